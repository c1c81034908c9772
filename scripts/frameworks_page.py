"""The page of the docs with the last result of `scripts/test_frameworks.sh`: what works where, versions, each test.

Run: python scripts/frameworks_page.py FOLDER, which has a JUnit file and a list of packages for each framework.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

SHOWN = re.compile(
    r"(agent-framework|anthropic|cedarpy|crewai$|google-adk|haystack|langchain|litellm|mcp$|openai|pydantic-ai|regopy"
    r"|strands|opentelemetry-sdk|opentelemetry-instrumentation-genai)"
)
TOPICS = {
    "runs": r"run$|agents and tools|tool call$|each answered|environment of its own|responses of",
    "streams": r"stream",
    "failures": r"fail|error",
    "cancelled": r"cancel",
    "left": r"\bleft\b|abandon",
    "nested": r"nested|beneath",
    "concurrent": r"concurrent|twenty",
    "once beside other layers": r"beside|twice|once|one record|bridge|mcp servers|environment of its own",
    "refused": r"refus|budget|withheld|guardrail|checks|enforce",
}
"""What a column is about, and the tests of it by a part of their names."""
HEAD = """# Frameworks: the last result

Written by `make test-frameworks` on {date}: real clients and frameworks against a provider on loopback, each in an
environment of its own. [What works where](frameworks.md#agent-frameworks-and-sdks) has the meaning. A cell is the
number of tests that passed; `-` is a topic without a test of its own. `@lowest` is the lowest version supported.

"""


class Result(NamedTuple):
    """What the tests of one framework came to."""

    name: str
    versions: str
    passed: Counter[str]
    failed: Counter[str]

    def cell(self, pattern: str) -> str:
        """The result of one topic."""
        good = sum(count for test, count in self.passed.items() if re.search(pattern, test))
        bad = sum(count for test, count in self.failed.items() if re.search(pattern, test))
        return f"**{bad} FAILED**" if bad else (str(good) if good else "-")

    def section(self) -> str:
        """Its versions and its tests."""
        marks = [*((each, "passed") for each in self.passed), *((each, "FAILED") for each in self.failed)]
        counts = self.passed + self.failed
        lines = (f"- {test}{f' ({counts[test]} ways)' if counts[test] > 1 else ''}: {mark}" for test, mark in marks)
        return "\n".join([f"## {self.name}", "", f"With {self.versions}.", "", *lines])


def read(report: Path) -> Result:
    """Read a JUnit file and the list of packages beside it."""
    packages = json.loads(report.with_name(f"{report.stem}.packages.json").read_text())
    versions = ", ".join(f"{one['name']} {one['version']}" for one in packages if SHOWN.match(one["name"]))
    result = Result(report.stem, versions, Counter(), Counter())
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  written by our own run a moment ago
        if case.find("skipped") is not None:
            continue
        test = case.get("name", "").partition("[")[0].removeprefix("test_").replace("_", " ")
        bad = case.find("failure") is not None or case.find("error") is not None
        (result.failed if bad else result.passed)[test] += 1
    return result


def main(folder: Path) -> None:
    """Print the page."""
    results = [read(report) for report in sorted(folder.glob("*.xml"))]
    print(HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}"), end="")
    print(f"| framework | {' | '.join(TOPICS)} |")
    print(f"| --- |{' --- |' * len(TOPICS)}")
    for result in results:
        print(f"| {result.name} | {' | '.join(result.cell(pattern) for pattern in TOPICS.values())} |")
    print()
    print("\n\n".join(result.section() for result in results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
