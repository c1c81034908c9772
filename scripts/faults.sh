#!/bin/sh
# Every n-th operation of every kind fails, in every scenario; writes docs/faults.md.
set -eu
cd "$(dirname "$0")/.."
report="$(mktemp)"
trap 'rm -f "$report"' EXIT
.venv/bin/pytest -q tests/production/test_every_operation.py -o faulthandler_timeout=0 --junitxml="$report" "$@"
.venv/bin/python scripts/faults_page.py "$report"
