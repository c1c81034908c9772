#!/bin/sh
# Everything that has to hold: lint, types, and every test against the installed wheel.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh
bin="$PWD/.venv/bin"

echo "== lint"
"$bin/ruff" check .
"$bin/ruff" format --check .
echo "== types"
"$bin/mypy"
"$bin/pyright"

echo "== tests"
marks="not full"
[ -z "${TASKPILOT_OBS_FULL:-}" ] || marks=""
export COVERAGE_PROCESS_START="$PWD/pyproject.toml"
rm -f .coverage .coverage.*
"$bin/coverage" run -m pytest -m "$marks" "$@"
"$bin/coverage" combine -q
"$bin/coverage" report
