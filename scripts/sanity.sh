#!/usr/bin/env bash
# ansible-test sanity on the interpreter of .venv. ansible-test makes virtual environments of its own, for which it downloads
# a pip bootstrap script; where that one host is out of reach, a stand-in made from PyPI's pip does the same.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
venv=$root/.venv

place_pip_bootstrap() {
  local cache=$HOME/.ansible/test/cache pip_version
  pip_version=$("$venv/bin/python" -c '
from types import SimpleNamespace
from ansible_test._internal.python_requirements import get_venv_packages
print(get_venv_packages(SimpleNamespace(version="any"))["pip"])
')
  local script=$cache/get_pip_${pip_version//./_}.py
  [[ -f $script ]] && return
  mkdir -p "$cache"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check download --no-deps "pip==$pip_version" --dest "$cache"
  sed "s/@VERSION@/$pip_version/" scripts/pip_bootstrap.py >"$script"
}

place_pip_bootstrap
# The real interpreter's folder comes first: version-manager shims on PATH look like interpreters and fail.
interpreter=$(readlink -f "$venv/bin/python")
version=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PATH=$(dirname "$interpreter"):$venv/bin:$PATH
cd collections/ansible_collections/ops/maintenance
exec "$venv/bin/ansible-test" sanity --venv --python "$version" --color no "$@"
