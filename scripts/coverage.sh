#!/bin/sh
# Which lines the tests run, of the installed wheel. Apart from `make test`, for measuring takes half as long again.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh
bin="$PWD/.venv/bin"
"$bin/pip" install -q --disable-pip-version-check --no-deps --force-reinstall .
trap '"$bin/pip" install -q --disable-pip-version-check --no-deps -e .' EXIT
rm -f .coverage .coverage.*
# Left out is one file, which forks hundreds of times: each child would spend seconds on saving what it ran, and it runs
# nothing that no other does. Nor is anything cut short that is only slow because it is measured.
"$bin/coverage" run "$bin/pytest" -n 2 --dist loadfile -m "not full" -o timeout=900 -o faulthandler_timeout=0 \
    --ignore=tests/production/test_state_machine.py "$@"
# A process that was killed while it saved leaves a file that cannot be read; coverage warns and takes the others.
"$bin/coverage" combine -q
rm -f .coverage.*
"$bin/coverage" report --fail-under=99.5 --precision=2
