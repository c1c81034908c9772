#!/bin/sh
# The whole suite several times in a row beside a load, as a background script would start it:
#     nohup scripts/under_load.sh > under_load.log 2>&1 &
# RUNS (3) runs beside LOAD (12) busy processes; further arguments go to pytest. Ends with 1 at the first failure.
set -eu
cd "$(dirname "$0")/.."
runs="${RUNS:-3}"
load="${LOAD:-12}"
children=""

stop_load() {
    # shellcheck disable=SC2086  a list of process IDs
    [ -z "$children" ] || kill $children 2>/dev/null || true
}
trap stop_load EXIT
trap 'exit 1' HUP INT TERM

if command -v stress-ng >/dev/null; then
    stress-ng --quiet --cpu "$load" &
    children="$!"
else
    for _ in $(seq "$load"); do
        sh -c 'while :; do :; done' &
        children="$children $!"
    done
fi

for run in $(seq "$runs"); do
    echo "== run $run of $runs beside a load of $load: $(date -u +%H:%M:%S), load average $(cut -d' ' -f1 /proc/loadavg)"
    .venv/bin/pytest -n 2 --dist loadfile -m "not full" -o timeout=900 -o faulthandler_timeout=0 "$@"
done
echo "== $runs runs passed"
