#!/usr/bin/env bash
# Run the tests in tests/hosts on real Debian systems with the real PostgreSQL, Redis and backup tools: in a container of each
# test-host image, as root, without a network but the container's own, all images at once. SUITES="bookworm" runs one; further arguments go to pytest.
# /small is a filesystem of its own, for tests to fill. POSTGRESQL=13 tests the server that lies in .cache/postgresql/13.
# The output of one goes to .cache/host-tests/<image>.log and is shown when it ends.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

logs=.cache/host-tests
mkdir -p "$logs"
mapfile -t images < <(scripts/images.sh --names)

server=()
if [[ -n ${POSTGRESQL:-} ]]; then
  server=(--volume "$PWD/.cache/postgresql/$POSTGRESQL:/usr/lib/postgresql/$POSTGRESQL:ro" --env "POSTGRESQL_MAJOR=$POSTGRESQL")
fi

# Run the tests in one image; the container goes away with us.
run() {
  docker run --rm --network none --init --shm-size 512m --cap-add SYS_PTRACE --cap-add NET_ADMIN \
    --tmpfs /tmp:rw,exec,mode=1777 --tmpfs /run:rw,exec,mode=755 --tmpfs /small:rw,mode=1777,size=96m --volume "$PWD:/src:ro" --workdir /src --env PYTHONPATH=/src/collections:/src/tests/hosts \
    --env PYTHONDONTWRITEBYTECODE=1 "${server[@]}" --env LC_ALL=C.UTF-8 --name "$1" "$2" python3 -m pytest -c tests/hosts/pytest.ini --rootdir /src -q "${@:3}"
}

names=() pids=() failed=()
for image in "${images[@]}"; do
  names+=("host-tests-${image##*:}-$$")
  run "${names[-1]}" "$image" "${@:-tests/hosts}" >"$logs/${image##*:}.log" 2>&1 </dev/null &
  pids+=($!)
done
trap 'docker kill "${names[@]}" >/dev/null 2>&1' EXIT
for number in "${!images[@]}"; do
  wait "${pids[number]}" || failed+=("${images[number]}")
  echo "host tests: ${images[number]}"
  cat "$logs/${images[number]##*:}.log"
done
if ((${#failed[@]})); then
  printf 'host tests: failed on %s\n' "${failed[@]}" >&2
  exit 1
fi
