#!/usr/bin/env bash
# Run every check and name at the end what failed: nothing hides behind the first failure, and a check that hangs is
# ended after CHECK_LIMIT, so that the others are still heard.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

checks=(lint units sanity demo-check host-tests engine-tests molecule)
make --no-print-directory setup || exit 1
passed=() failed=()
for check in "${checks[@]}"; do
  begin=$SECONDS
  echo "===== $check"
  if timeout --kill-after=30s "${CHECK_LIMIT:-40m}" make --no-print-directory "$check"; then
    passed+=("$check")
  else
    failed+=("$check")
  fi
  echo "===== $check took $((SECONDS - begin)) s"
done
((${#failed[@]})) && printf 'failed: %s\n' "${failed[@]}"
echo "checks: ${#passed[@]} passed, ${#failed[@]} failed"
((${#failed[@]} == 0))
