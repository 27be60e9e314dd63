#!/usr/bin/env bash
# Run the weekly maintenance of a small system made in .demo/, with real faults in it. Nothing else on the machine is touched.
# --check: make it anew, run twice, and fail unless the planted faults were found and the second run changed nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH
export DEMO_ROOT=$PWD/.demo DEMO_PORT=${DEMO_PORT:-18080}
export OPS_MAINTENANCE_JOURNAL_DIR=$DEMO_ROOT/journal OPS_MAINTENANCE_REPORT_DIR=$DEMO_ROOT/report
export ANSIBLE_STDOUT_CALLBACK=ops.maintenance.progress ANSIBLE_LOCALHOST_WARNING=false

if [[ ${1:-} == --check ]]; then
  DEMO_ROOT=$PWD/.cache/demo DEMO_PORT=$((DEMO_PORT + 1))
  OPS_MAINTENANCE_JOURNAL_DIR=$DEMO_ROOT/journal OPS_MAINTENANCE_REPORT_DIR=$DEMO_ROOT/report
  rm -rf "$DEMO_ROOT"
fi
service() {
  python "$DEMO_ROOT/service.py" "$1" "$DEMO_ROOT/site" "$DEMO_PORT"
}
weekly() {
  ansible-playbook playbooks/weekly.yml -i inventories/lab -e maintenance_report_dir="$OPS_MAINTENANCE_REPORT_DIR" "$@"
}

last_words() {
  local report=${OPS_MAINTENANCE_REPORT_DIR#"$PWD"/}
  cat <<EOF

The report of this run:
  $report/latest.html   open it in a browser
  $report/latest.md
  $report/latest.json

Run it again to see what is new, fixed and unchanged. Start afresh: rm -r ${DEMO_ROOT#"$PWD"/}
EOF
}

if [[ ! -e $DEMO_ROOT/site/service.pid ]]; then
  mkdir -p "$DEMO_ROOT"
  rm -rf "$DEMO_ROOT/site"
  cp demo/service.py "$DEMO_ROOT/"
  python demo/build.py "$DEMO_ROOT/site"
fi
service start
if [[ ${1:-} == --check ]]; then
  trap 'service stop' EXIT
  weekly
  weekly
  last_words | python demo/check.py "$DEMO_ROOT"
  exit
fi

status=0
weekly "$@" || status=$?
last_words
service stop
exit "$status"
