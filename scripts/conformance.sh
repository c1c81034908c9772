#!/bin/sh
# What others read of us, checked by their own definitions; writes docs/conformance.md.
set -eu
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
passed=0
.venv/bin/pytest -q -m conformance tests --junitxml="$work/conformance.xml" "$@" || passed=$?
.venv/bin/python scripts/conformance_page.py "$work/conformance.xml" >"$work/page.md"
mv "$work/page.md" docs/conformance.md
exit $passed
