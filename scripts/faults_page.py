"""Writes docs/faults.md of a run of tests/production/test_every_operation.py; `make faults` runs both.

The counts are kept in tests/faults.json, so that a run of some scenarios leaves those of the others. Without a file the
page is written from them again.

Run: python scripts/faults_page.py [JUNIT_FILE …]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from _operations import SCENARIOS  # noqa: E402  the folder of the tests is not a package
from production.test_every_operation import cases  # noqa: E402

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]
COUNTS: Final = ROOT / "tests" / "faults.json"
PAGE: Final = ROOT / "docs" / "faults.md"
CASE: Final = re.compile(r"test_every_nth_operation\[(?P<scenario>.+): (?P<boundary>.+) (?P<how>once|from then on)]")
HEAD: Final = """# Every n-th operation fails

Written by `make faults`. A part of the library does short work again and again: with its first operation of a kind
failing, then with its second, its third and so on until the work goes through untouched; once with that operation
failing alone, and once with all after it failing too. After each run the part's invariants hold: records that were
accepted are written or counted as dropped, the audit chain verifies, a budget has what its calls took and never admits
more than the estimates allow, a scrape counts neither less nor more than there is, and the next start works; for the
recorder as a whole, functions return what they return without the library too, and the shutdown ends in time.

`make test` runs a few of these, `make test-full` all.

"""


def merged(reports: list[Path]) -> dict[str, Any]:
    """The counts that are kept, with those of these reports.

    Raises:
        SystemExit: a case of a report did not pass.
    """
    counts: dict[str, Any] = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else {}
    for scenario, boundary, how, operations in (case for report in reports for case in _cases(report)):
        counts.setdefault(scenario, {}).setdefault(boundary, {})[how] = operations
    return counts


def _cases(report: Path) -> Iterator[tuple[str, str, str, int]]:
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  written by our own run a moment ago
        found = CASE.fullmatch(case.get("name", ""))
        if found is None:
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            sys.exit(f"{found[0]} failed: the page keeps its last result")
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        if "operations" in properties:  # not for the one that a Ctrl-C cut short
            yield found["scenario"], found["boundary"], found["how"], int(properties["operations"] or 0)


def planned() -> dict[str, dict[str, list[str]]]:
    """Of each scenario and boundary, the cases that a whole run has."""
    plan: dict[str, dict[str, list[str]]] = {}
    for each in cases():
        found = CASE.fullmatch(f"test_every_nth_operation[{each.id}]")
        if found is None:
            sys.exit(f"{each.id} is not named as a case of test_every_nth_operation")
        plan.setdefault(found["scenario"], {}).setdefault(found["boundary"], []).append(found["how"])
    return plan


def page(counts: Counts) -> str:
    """The page of the docs."""
    plan = planned()
    ran = [scenario for scenario in SCENARIOS if scenario in counts]
    boundaries = list(dict.fromkeys(boundary for scenario in ran for boundary in plan[scenario]))
    rows = ["| operation | " + " | ".join(map(_title, ran)) + " |", "| --- |" + " --- |" * len(ran)]
    for boundary in boundaries:
        cells = [_cell(counts[each].get(boundary, {}), plan[each].get(boundary, ())) for each in ran]
        if any(cells):
            rows.append(f"| {boundary} | " + " | ".join(cells) + " |")
    return HEAD + _told(counts, ran) + "\n".join(rows) + "\n"


def _told(counts: Counts, ran: Sequence[str]) -> str:
    """What was run, what was not, and how to read the table."""
    total = sum(sum(hows.values()) for scenario in ran for hows in counts[scenario].values())
    missing = [_title(scenario) for scenario in SCENARIOS if scenario not in ran]
    return (
        f"Runs with a fault in the last results: **{total:,}**, of {', '.join(map(_title, ran))}.\n"
        + (f"Not run yet: {', '.join(missing)}.\n" if missing else "")
        + "\nA cell has how many runs had a fault: alone + with all after it. "
        "An empty cell: the work has no such operation.\n"
        "`?`: not run yet. A fork happens alone only.\n\n"
    )


def _title(scenario: str) -> str:
    return f"{scenario} on SQLite" if f"{scenario} on PostgreSQL" in SCENARIOS else scenario


def _cell(hows: Mapping[str, int], wanted: Sequence[str]) -> str:
    """The counts of the cases of a cell, `?` for one without a result; empty where no operation was found."""
    if all(hows.get(how) == 0 for how in wanted):
        return ""
    return " + ".join(str(hows.get(how, "?")) for how in wanted)


if __name__ == "__main__":
    kept = merged([Path(each) for each in sys.argv[1:]])
    COUNTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")
