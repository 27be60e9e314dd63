#!/usr/bin/env bash
# Make .venv from requirements.lock. A stamp holding the lock's hash makes a second call instant.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.lock-sha256
wanted=$(sha256sum requirements.lock | cut -d' ' -f1)
if [[ -x .venv/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
  exit 0
fi

# Version-manager shims look like interpreters and may fail: run each candidate, keep the path of what answered.
find_python() {
  local name
  for name in python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.14; do
    "$name" -c '
import os, sys
if sys.version_info < (3, 11):
    sys.exit(1)
print(os.path.realpath(sys.executable))
' 2>/dev/null && return
  done
  return 1
}

make_environment() {
  local python version
  if ! python=$(find_python); then
    echo "setup: no Python 3.11 or newer on PATH; on Debian 12 or newer: apt-get install python3 python3-venv" >&2
    exit 1
  fi
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
      echo "setup: installing python$version-venv"
      apt-get -qq update
      DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "python$version-venv" ca-certificates >/dev/null
    else
      echo "setup: $python cannot make virtual environments; as root: apt-get install python$version-venv" >&2
      exit 1
    fi
  fi

  echo "setup: making .venv with $python"
  "$python" -m venv --clear .venv
}

# A working environment is brought up to date in place: others may be using it.
.venv/bin/python -c '' 2>/dev/null || make_environment

# Company proxies have their own authority: trust what the system trusts.
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_SYSTEM_CERTS=true
if [[ -x .venv/bin/uv ]] || .venv/bin/python -m pip --quiet install --only-binary :all: 'uv>=0.8'; then
  .venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes --compile-bytecode requirements.lock
else
  echo "setup: no uv for this machine, pip does it more slowly"
  .venv/bin/python -m pip --quiet install --require-hashes --requirement requirements.lock
fi
printf '%s\n' "$wanted" >"$stamp"
# All of it is read before one line is shown: a pipe that is closed early would be an error.
version=$(.venv/bin/ansible --version)
printf '%s\n' "${version%%$'\n'*}"
