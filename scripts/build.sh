#!/bin/sh
# Builds the wheel and the source distribution twice, compares them, and states what they bring along (SBOM, checksums).
set -eu
cd "$(dirname "$0")/.."
bin="$PWD/.venv/bin"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

echo "== built twice"
rm -rf dist
"$bin/python" -m build --outdir dist . >"$work/first.log" 2>&1 || { cat "$work/first.log"; exit 1; }
mkdir "$work/source"
tar -xzf dist/*.tar.gz -C "$work/source" --strip-components=1 # the second time from what others build it from
(cd "$work/source" && "$bin/python" -m build --outdir "$work/again" .) >"$work/second.log" 2>&1 ||
    { cat "$work/second.log"; exit 1; }
for first in dist/*; do
    cmp "$first" "$work/again/$(basename "$first")"
done
(cd dist && sha256sum -- *.whl *.tar.gz | tee SHA256SUMS)

echo "== software bill of materials (CycloneDX)"
version="$("$bin/python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')"
python3 -m venv --without-pip "$work/env"
"$bin/pip" --python "$work/env" install -q --disable-pip-version-check --find-links dist \
    "taskpilot-obs[cli,compare,langchain,mcp,otlp,parquet,postgres,prices,rules,safety,server,store]==$version"
"$bin/pip" --python "$work/env" freeze >"$work/frozen.txt"
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install -q --disable-pip-version-check 'cyclonedx-bom>=7'
"$work/tools/bin/cyclonedx-py" environment --pyproject pyproject.toml --mc-type library --short-PURLs \
    --output-reproducible -o "dist/taskpilot-obs-$version.cdx.json" "$work/env/bin/python"
packages="$(grep -c '"purl"' "dist/taskpilot-obs-$version.cdx.json")"
echo "dist/taskpilot-obs-$version.cdx.json: $packages packages, at the versions that an installation resolves to today"

if [ "${1:-}" = audit ]; then
    echo "== known vulnerabilities, by the package index's own database"
    "$work/tools/bin/pip" install -q --disable-pip-version-check 'pip-audit>=2.9'
    grep -v '^taskpilot-obs' "$work/frozen.txt" >"$work/packages.txt"
    "$work/tools/bin/pip-audit" --strict --disable-pip --no-deps -r "$work/packages.txt"
fi
