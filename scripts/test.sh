#!/bin/sh
# Everything that has to hold: lint, types, and every test against the built wheel.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh
bin="$PWD/.venv/bin"

echo "== lint"
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/python" scripts/prose.py

echo "== site"
NO_MKDOCS_2_WARNING=1 "$bin/mkdocs" build --strict --quiet

echo "== types"
"$bin/mypy"
for example in integrations/*/example.py; do # of one name, so one by one
    "$bin/mypy" "$example"
done
"$bin/pyright"

echo "== tests, of the installed wheel"
"$bin/pip" install -q --disable-pip-version-check --no-deps --force-reinstall .
trap '"$bin/pip" install -q --disable-pip-version-check --no-deps -e .' EXIT
marks="not full"
[ -z "${TASKPILOT_OBS_FULL:-}" ] || marks=""
# The script, not `-m pytest`: that would put the checkout before the wheel.
# Two processes, because most tests wait for servers and children; a file stays in one, where its tests share servers.
workers="-n 2 --dist loadfile"
# Long ones have limits of their own, which the watchdog of the others would cut short.
[ -z "${TASKPILOT_OBS_FULL:-}" ] || workers="$workers -o faulthandler_timeout=0"
# shellcheck disable=SC2086  a list of options
"$bin/pytest" $workers -m "$marks" "$@"

if [ -n "${TASKPILOT_OBS_FULL:-}" ]; then
    echo "== NeMo Guardrails, in an environment of its own: it brings thirty packages along"
    [ -x .venv-nemo/bin/python ] || python3 -m venv .venv-nemo
    .venv-nemo/bin/pip install -q --disable-pip-version-check '.[nemoguardrails]' pytest pytest-timeout hypothesis
    PYTHONPATH=.:integrations/nemoguardrails .venv-nemo/bin/python -m pytest -c pyproject.toml integrations/nemoguardrails
fi
