"""The page of the docs with the last result of `make conformance`: what was checked, and how it went.

Run: python scripts/conformance_page.py JUNIT_FILE
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

TESTS: Final = Path(__file__).parent.parent / "tests"
PACKAGES: Final = ("opentelemetry-sdk", "opentelemetry-semantic-conventions", "prometheus-client")
HEAD: Final = """# Conformance: the last result

Written by `make conformance` on {date}, with {versions}.

Each check reads what the library writes by the definition, the parser or the tool of those who define it.
`make test` runs these checks too.

Not run: pint, a linter of rules, because neither Debian nor the Python package index has it.

| what | check | result |
| --- | --- | --- |
"""


def main(report: Path) -> None:
    """Print the page."""
    sentences = _sentences()
    print(HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}", versions=_versions()), end="")
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  written by our own run a moment ago
        name = case.get("name", "")
        sentence = sentences[name.partition("[")[0]]
        print(f"| {_what(name)} | {sentence} | {_result(case)} |")


def _sentences() -> dict[str, str]:
    """The docstring of each test that is marked, or whose module is."""
    found: dict[str, str] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.conformance" in text:
            functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
            found |= {node.name: (ast.get_docstring(node) or "").partition("\n")[0] for node in functions}
    return found


def _what(name: str) -> str:
    plain, _, variant = name.removeprefix("test_").partition("[")
    words = plain.replace("_", " ")
    return f"{words} ({variant.removesuffix(']').partition(';')[0]})" if variant else words


def _result(case: ET.Element) -> str:
    if case.find("skipped") is not None:
        return "not run"
    return "passed" if case.find("failure") is None and case.find("error") is None else "FAILED"


def _versions() -> str:
    found = [f"{name} {version(name)}" for name in PACKAGES]
    promtool = shutil.which("promtool")
    if promtool is not None:
        told = subprocess.run([promtool, "--version"], capture_output=True, text=True, check=True)
        found.append(" ".join((told.stdout + told.stderr).split()[:3]).rstrip(","))
    return ", ".join(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
