"""The page of the docs with the last result of `scripts/test_frameworks.sh`: versions, date, what passed.

Run: python scripts/frameworks_page.py FOLDER, which has a JUnit file and a list of packages for each framework.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

SHOWN = re.compile(
    r"agent-framework|anthropic|google-adk|haystack|mcp$|strands|langchain|litellm|openai|pydantic-ai|opentelemetry-(?:sdk|instrumentation-genai)"
)
HEAD = """# Frameworks: the last result

Written by `make test-frameworks` on {date}: real clients and frameworks against a provider on loopback, each in an
environment of its own. [What works where](frameworks.md#agent-frameworks-and-sdks) has the meaning.

| framework | test | result | versions |
| --- | --- | --- | --- |
"""


def rows(report: Path) -> list[str]:
    """One row for each test that ran."""
    name = report.stem
    packages = json.loads(report.with_name(f"{name}.packages.json").read_text())
    versions = ", ".join(f"{one['name']} {one['version']}" for one in packages if SHOWN.match(one["name"]))
    found = []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  written by our own run a moment ago
        if case.find("skipped") is not None:
            continue
        test = case.get("name", "").partition("[")[0].removeprefix("test_").replace("_", " ")
        bad = case.find("failure") is not None or case.find("error") is not None
        found.append(f"| {name} | {test} | {'FAILED' if bad else 'passed'} | {versions} |")
    return found


def main(folder: Path) -> None:
    """Print the page."""
    print(HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}"), end="")
    for report in sorted(folder.glob("*.xml")):
        print("\n".join(rows(report)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
