#!/usr/bin/env bash
# Run the unit tests of modules and module_utils on Python 3.9, the oldest that managed hosts may have.
# PYTHON39 names the interpreter; else PATH and the usual version managers are searched.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python39() {
  local candidate
  for candidate in "${PYTHON39:-python3.9}" /usr/bin/python3.9 "$HOME"/.pyenv/versions/3.9.*/bin/python3.9 \
    "$HOME"/.local/share/uv/python/cpython-3.9.*/bin/python3.9; do
    "$candidate" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 9)); ' 2>/dev/null && echo "$candidate" && return
  done
  return 1
}

if ! python=$(find_python39); then
  echo "units-py39: no Python 3.9 here; name one with PYTHON39=/path/to/python3.9" >&2
  exit 1
fi
environment=.cache/py39
if [[ ! -x $environment/bin/pytest ]]; then
  "$python" -m venv --clear "$environment"
  "$environment/bin/python" -m pip --quiet --disable-pip-version-check install 'pytest<9' hypothesis pyyaml
fi
unit=collections/ansible_collections/ops/maintenance/tests/unit/plugins
PYTHONPATH=$PWD/collections exec "$environment/bin/pytest" -c /dev/null --rootdir . -p no:cacheprovider --import-mode=importlib \
  "$unit/module_utils" "$@"
