#!/bin/sh
# Which lines the tests run, of the installed wheel. Apart from `make test`: tests that fork and kill upset its files.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh
bin="$PWD/.venv/bin"
"$bin/pip" install -q --disable-pip-version-check --no-deps --force-reinstall .
trap '"$bin/pip" install -q --disable-pip-version-check --no-deps -e .' EXIT
rm -f .coverage .coverage.*
"$bin/coverage" run "$bin/pytest" -m "not full" "$@"
"$bin/coverage" combine -q
"$bin/coverage" report --omit='*/taskpilot_obs/cli/*,*/taskpilot_obs/demo/*'
"$bin/coverage" report --include='*/taskpilot_obs/cli/*,*/taskpilot_obs/demo/*' --fail-under=95
