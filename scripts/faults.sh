#!/bin/sh
# Every n-th operation of every kind fails, in every scenario; writes docs/faults.md, also when it is cut short.
set -eu
cd "$(dirname "$0")/.."
TASKPILOT_OBS_FAULT_COUNTS="$(mktemp)"
export TASKPILOT_OBS_FAULT_COUNTS
trap 'rm -f "$TASKPILOT_OBS_FAULT_COUNTS"' EXIT
trap : INT
passed=0
TASKPILOT_OBS_FULL=1 .venv/bin/pytest -q tests/production/test_every_operation.py -o faulthandler_timeout=0 "$@" || passed=$?
.venv/bin/python scripts/faults_page.py "$TASKPILOT_OBS_FAULT_COUNTS"
exit $passed
