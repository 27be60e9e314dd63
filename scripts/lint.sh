#!/usr/bin/env bash
# Run every linter, also after one has failed, and fail at the end if any did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH=$PWD/.venv/bin:$PATH NO_COLOR=1

failed=()
check() {
  local name=$1
  shift
  echo "lint: $name"
  "$@" || failed+=("$name")
}

check yamllint yamllint --strict .
check ruff ruff check --quiet --output-format concise
check "ruff format" ruff format --check --quiet --output-format concise
check mypy mypy --no-error-summary
check "role READMEs" scripts/role_docs.py --check
check antsibull-changelog scripts/changelog_lint.sh
check ansible-lint ansible-lint --offline --profile production -q
if ((${#failed[@]})); then
  printf 'lint: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
