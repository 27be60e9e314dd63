#!/usr/bin/env bash
# Remove what the other targets made: containers, images, environments, caches, archives.
set -euo pipefail
cd "$(dirname "$0")/.."
if docker info >/dev/null 2>&1; then
  # What molecule's docker driver starts is labelled.
  docker ps --all --quiet --filter label=owner=molecule | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  # As tests/engine labels what it makes.
  docker ps --all --quiet --filter label=ops-maintenance-engine-test | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  docker images --quiet --filter label=ops-maintenance-engine-test | sort -u | xargs --no-run-if-empty docker rmi --force >/dev/null
  docker images --quiet ops-maintenance-test | sort -u | xargs --no-run-if-empty docker rmi --force >/dev/null
fi
rm -rf .venv .cache .demo dist .ansible .mypy_cache .ruff_cache .pytest_cache .hypothesis \
  collections/ansible_collections/ops/maintenance/tests/output
