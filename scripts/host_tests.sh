#!/usr/bin/env bash
# Run the tests in tests/hosts on real Debian systems with the real PostgreSQL, Redis and backup tools: in a container of each
# test-host image, as root, without a network. SUITES="bookworm" runs one; further arguments go to pytest.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

mapfile -t images < <(scripts/images.sh --names)
failed=()
for image in "${images[@]}"; do
  echo "host tests: $image"
  docker run --rm --network none --init --shm-size 512m --cap-add SYS_PTRACE --tmpfs /tmp:rw,exec,mode=1777 --tmpfs /run:rw,exec,mode=755 \
    --volume "$PWD:/src:ro" --workdir /src --env PYTHONPATH=/src/collections:/src/tests/hosts --env PYTHONDONTWRITEBYTECODE=1 --env LC_ALL=C.UTF-8 \
    "$image" \
    python3 -m pytest -c tests/hosts/pytest.ini --rootdir /src -q "${@:-tests/hosts}" || failed+=("$image")
done
if ((${#failed[@]})); then
  printf 'host tests: failed on %s\n' "${failed[@]}" >&2
  exit 1
fi
