#!/usr/bin/env bash
# Compile requirements.lock: one version of each package for every supported Python, with hashes, naming no index.
# LOCK_ARGS="--upgrade" takes newer versions.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_SYSTEM_CERTS=true
read -ra extra <<<"${LOCK_ARGS:-}"
.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
  --no-emit-index-url --no-emit-find-links --group dev --custom-compile-command "make lock" \
  "${extra[@]}" --output-file requirements.lock pyproject.toml
if grep -nE 'index-url|find-links|file://' requirements.lock; then
  echo "lock: the lines above name a place of this machine" >&2
  exit 1
fi
