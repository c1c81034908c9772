"""Writes the last result of `scripts/test_frameworks.sh`, and the table of what works where that follows from it.

Run: python scripts/frameworks_page.py FOLDER, which has a JUnit file and a list of packages for each framework. It
writes `docs/frameworks-results.md`, where frameworks without a new result keep their last one, and the table between
two marks in `docs/frameworks.md`. Without a folder it writes the table again from the page of results.
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
    r"(agent-framework|anthropic|cedarpy|crewai$|google-(?:adk|genai)|haystack|langchain|litellm|mcp$|openai|pydantic-ai|regopy"
    r"|strands|opentelemetry-sdk|opentelemetry-instrumentation-genai)"
)
TOPICS = {
    "success": r"run\b|agents and tools|tool call$|a call|each answered|environment of its own|responses of|pipeline",
    "async": r"async|\[await|loop|concurrent|twenty|environment of its own",
    "failure": r"fail|error",
    "streamed": r"stream",
    "left": r"\bleft\b|abandon",
    "cancelled": r"cancel",
    "nested": r"nested|beneath|an agent in|parents|agents and tools|environment of its own",
    "enforced": r"refus|budget|withheld|guardrail|checks|enforce",
    "counted once": r"beside|twice|once|one record|bridge|mcp servers|environment of its own|recorded by the hooks",
}
"""What a column is about, and the tests of it by a part of their names."""
NO_TESTS = {"azure_monitor"}
"""Back ends: their tests are not about a framework, and have no row in the table."""
REASONS = {
    ("anthropic", "nested"): "calls only",
    ("google_genai", "nested"): "calls only",
    ("openai", "nested"): "calls only",
    ("haystack", "left"): "streams go to callbacks",
    ("mcp", "streamed"): "no streams",
    ("mcp", "left"): "no streams",
}
"""Why a topic of a framework has no test there; a cell without one is an error."""
HOMES = {
    "langchain": "its handler's tests, in `make test`",
}
"""Where else the topics of a framework are tested."""
PAGE = Path(__file__).parent.parent / "docs" / "frameworks-results.md"
TABLE = Path(__file__).parent.parent / "docs" / "frameworks.md"
BEGIN, END = "<!-- what works where: written by scripts/frameworks_page.py -->", "<!-- end of what works where -->"
HEAD = """# Frameworks: the last result

Written by `make test-frameworks`: real clients and frameworks against a provider on loopback, each in an environment
of its own, on the day that its section states. [What works where](frameworks.md#agent-frameworks-and-sdks) has the
meaning. A cell is the number of tests that passed; `-` is a topic without a test here. `@lowest` is the lowest version
supported.

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
        passed, failed = _by_test(self.passed), _by_test(self.failed)
        marks = [*((each, "passed") for each in passed), *((each, "FAILED") for each in failed)]
        counts = passed + failed
        lines = (f"- {test}{f' ({counts[test]} ways)' if counts[test] > 1 else ''}: {mark}" for test, mark in marks)
        told = f"On {datetime.now(UTC):%Y-%m-%d}, with {self.versions}."
        return "\n".join([f"## {self.name}", "", told, "", *lines])


def read(report: Path) -> Result:
    """Read a JUnit file and the list of packages beside it."""
    packages = json.loads(report.with_name(f"{report.stem}.packages.json").read_text())
    versions = ", ".join(f"{one['name']} {one['version']}" for one in packages if SHOWN.match(one["name"]))
    result = Result(report.stem, versions, Counter(), Counter())
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  written by our own run a moment ago
        if case.find("skipped") is not None:
            continue
        test = case.get("name", "").removeprefix("test_").replace("_", " ")
        bad = case.find("failure") is not None or case.find("error") is not None
        (result.failed if bad else result.passed)[test] += 1
    return result


def _by_test(cases: Counter[str]) -> Counter[str]:
    """Count the cases of each test, whatever they were given."""
    found: Counter[str] = Counter()
    for case, count in cases.items():
        found[case.partition("[")[0]] += count
    return found


def results_page(folder: Path, before: str = "") -> str:
    """The page of results.

    Args:
        folder: has the results of this run.
        before: the page as it is: frameworks that were not run keep their rows and sections.
    """
    results = [read(report) for report in sorted(folder.glob("*.xml"))]
    rows = {line.split(" | ")[0]: line for line in re.findall(r"^\| [\w@]+ \| [-*\d].*$", before, re.MULTILINE)}
    known = dict(re.findall(r"^(## \S+)\n(.*?)(?=\n\n## |\Z)", before.rstrip(), re.MULTILINE | re.DOTALL))
    for each in results:
        rows[f"| {each.name}"] = f"| {each.name} | {' | '.join(map(each.cell, TOPICS.values()))} |"
        title, _, text = each.section().partition("\n")
        known[title] = text
    table = [f"| framework | {' | '.join(TOPICS)} |", f"| --- |{' --- |' * len(TOPICS)}"]
    table += [rows[name] for name in sorted(rows)]
    sections = "\n\n".join(f"{title}\n{known[title]}" for title in sorted(known))
    return HEAD + "\n".join(table) + f"\n\n{sections}\n"


def works_where(page: str) -> str:
    """The table of what works where, as the page of results has it.

    Raises:
        ValueError: a topic of a framework has neither a test nor a reason.
    """
    versions = dict(re.findall(r"^## (\S+)\n\nOn [-\d]+, with (.*)\.$", page, re.MULTILINE))
    rows = [f"| framework, tested with | {' | '.join(TOPICS)} |", f"| --- |{' --- |' * len(TOPICS)}"]
    for line in re.findall(r"^\| (.*) \|$", page, re.MULTILINE)[2:]:
        name, *cells = line.split(" | ")
        if name not in NO_TESTS:
            shown = (_shown(name.partition("@")[0], topic, cell) for topic, cell in zip(TOPICS, cells, strict=True))
            rows.append(f"| `{name}`: {_main_version(versions[name])} | {' | '.join(shown)} |")
    return "\n".join(rows)


def _main_version(versions: str) -> str:
    """The packages of a framework, without those that instrument it."""
    return ", ".join(each for each in versions.split(", ") if not each.startswith("opentelemetry"))


def _shown(name: str, topic: str, cell: str) -> str:
    if cell != "-":
        return cell if "FAILED" in cell else "yes"
    reason = REASONS.get((name, topic)) or HOMES.get(name)
    if reason is None:
        raise ValueError(f"{name} has no test of {topic!r}, and REASONS has no reason")
    return reason


def with_table(document: str, page: str) -> str:
    """A document with the table between its two marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{works_where(page)}\n\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Write the page of results, where there are new ones, and the table."""
    if arguments:
        PAGE.write_text(results_page(Path(arguments[0]), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    document = TABLE.read_text(encoding="utf-8")
    TABLE.write_text(with_table(document, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
