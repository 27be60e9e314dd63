#!/usr/bin/env bash
# Run molecule scenarios on real systemd hosts: all of them, or SCENARIO="patching log_rotation". JOBS=1 runs one at a time instead of two.
# Each scenario's output goes to .cache/molecule/<scenario>.log; a failed one is printed. Ends with one line of counts.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH=$PWD/.venv/bin:$PATH MOLECULE_COMMAND_BORDERS=false NO_COLOR=1 PY_COLORS=0 ANSIBLE_FORCE_COLOR=0

logs=.cache/molecule
mkdir -p "$logs"
if [[ -n ${SCENARIO:-} ]]; then
  read -ra scenarios <<<"$SCENARIO"
else
  # The longest first, so that two at a time end together.
  mapfile -t scenarios < <(printf '%s\n' recovery default $(printf '%s\n' molecule/*/molecule.yml | cut -d/ -f2) | awk '!seen[$0]++')
fi

# `molecule test` destroys what an interrupted run left before it begins, and what it made when it ends, failed or not.
run() {
  local name=$1 begin=$SECONDS verdict=passed
  molecule test --scenario-name "$name" >"$logs/$name.log" 2>&1 </dev/null || verdict=failed
  echo "$verdict" >"$logs/$name.verdict"
  echo "molecule: $name $verdict after $((SECONDS - begin)) s"
}

rm -f "$logs"/*.verdict
for name in "${scenarios[@]}"; do
  while (($(jobs -rp | wc -l) >= ${JOBS:-2})); do
    wait -n
  done
  run "$name" &
done
wait

passed=0 failed=0
for name in "${scenarios[@]}"; do
  if [[ $(cat "$logs/$name.verdict" 2>/dev/null) == passed ]]; then
    ((passed += 1))
  else
    ((failed += 1))
    printf '\n===== molecule: %s failed; the end of %s =====\n' "$name" "$logs/$name.log"
    tail -n 80 "$logs/$name.log"
  fi
done
echo "molecule: $passed passed, $failed failed"
((failed == 0 && passed > 0))
