"""Writes docs/faults.md of a run of tests/production/test_every_operation.py; `make faults` runs both.

The counts are kept in tests/faults.json, so that a run of some scenarios leaves those of the others.

Run: python scripts/faults_page.py JUNIT_FILE …
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).parent.parent
COUNTS: Final = ROOT / "tests" / "faults.json"
PAGE: Final = ROOT / "docs" / "faults.md"
CASE: Final = re.compile(r"test_every_nth_operation\[(?P<scenario>.+): (?P<boundary>.+) (?P<how>once|from then on)]")
HEAD: Final = """# Every n-th operation fails

Written by `make faults`. Each part of the library does short work again and again: with its first operation of a kind
failing, then with its second, its third and so on until the work goes through untouched; once with that operation
failing alone, and once with all after it failing too. After each run the part's invariants hold: records that were
accepted are written or counted as dropped, the audit chain verifies, a budget has what its calls took and never admits
more than the estimates allow, a scrape counts neither less nor more than there is, functions return what they return
without the library, the shutdown ends in time, and the next start works.

A cell has how many runs had a fault: alone + with all after it. An empty cell: the work has no such operation.
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


def page(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """The page of the docs."""
    scenarios = list(counts)
    boundaries = list(dict.fromkeys(boundary for kinds in counts.values() for boundary in kinds))
    rows = ["| operation | " + " | ".join(scenarios) + " |", "| --- |" + " --- |" * len(scenarios)]
    for boundary in boundaries:
        cells = [_cell(counts[scenario].get(boundary, {})) for scenario in scenarios]
        if any(cells):
            rows.append(f"| {boundary} | " + " | ".join(cells) + " |")
    total = sum(sum(hows.values()) for kinds in counts.values() for hows in kinds.values())
    return HEAD + f"Runs with a fault in the last results: **{total:,}**.\n\n" + "\n".join(rows) + "\n"


def _cell(hows: Mapping[str, int]) -> str:
    return " + ".join(str(hows[how]) for how in ("once", "from then on") if hows.get(how))


if __name__ == "__main__":
    kept = merged([Path(each) for each in sys.argv[1:]])
    COUNTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")
