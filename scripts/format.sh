#!/usr/bin/env bash
# Let ruff order imports and format the Python files.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/ruff check --quiet --fix || true # what it cannot mend, `make lint` says
.venv/bin/ruff format
