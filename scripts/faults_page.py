"""Writes docs/faults.md of a run of tests/production/test_every_operation.py; `make faults` runs both.

The test appends a line to the file that TASKPILOT_OBS_FAULT_COUNTS names as each case ends, so that a run which is cut
short loses nothing. The counts are kept in tests/faults.json, so that a run of some scenarios leaves those of the
others. Without a file the page is written from them again.

Run: python scripts/faults_page.py [FILE …]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from _boundaries import BOUNDARIES  # noqa: E402  the folder of the tests is not a package
from _empty_cells import reason  # noqa: E402
from _operations import SCENARIOS  # noqa: E402
from production.test_every_operation import cases  # noqa: E402

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]
Plan = Mapping[str, Mapping[str, Sequence[str]]]
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
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


def merged(files: list[Path]) -> dict[str, Any]:
    """The counts that are kept, with those of these files; a case that did not pass loses its count."""
    counts: dict[str, Any] = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else {}
    for line in (line for file in files for line in file.read_text(encoding="utf-8").splitlines()):
        scenario, boundary, how, operations = json.loads(line)
        hows = counts.setdefault(scenario, {}).setdefault(boundary, {})
        hows.pop(how, None)
        if operations is not None:
            hows[how] = operations
    return counts


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
    reasons: dict[str, str] = {}
    rows = ["| operation | " + " | ".join(map(_title, SCENARIOS)) + " |", "| --- |" + " --- |" * len(SCENARIOS)]
    for boundary in BOUNDARIES:
        cells = [_cell(counts, plan, scenario, boundary, reasons) for scenario in SCENARIOS]
        rows.append(f"| {boundary} | " + " | ".join(cells) + " |")
    empty = [f"- {mark}: {why}." for why, mark in reasons.items()]
    return (
        HEAD
        + _told(counts)
        + "\n".join(rows)
        + "\n\nAn empty cell has the letter of its reason:\n\n"
        + "\n".join(empty)
        + "\n"
    )


def _told(counts: Counts) -> str:
    """How much was run, and how to read the table."""
    runs = {name: sum(sum(hows.values()) for hows in counts.get(name, {}).values()) for name in SCENARIOS}
    each = [f"- {_title(name)}, {runs[name]:,} runs: {_words(SCENARIOS[name].work)}" for name in SCENARIOS]
    return "\n".join(
        [
            f"Runs with a fault in the last results: **{sum(runs.values()):,}**.",
            "",
            *each,
            "",
            "A cell has how many runs had a fault: alone + with all after it. A letter is the reason of an empty cell.",
            "`?`: not run yet, or failed. A fork happens alone only.",
            "",
            "",
        ]
    )


def _words(work: Callable[..., object]) -> str:
    """What a scenario does: the first sentence of its docstring."""
    sentence = (work.__doc__ or "").partition("\n")[0].partition(";")[0].rstrip(".")
    return sentence[0].lower() + sentence[1:] + "."


def _title(scenario: str) -> str:
    return f"{scenario} on SQLite" if f"{scenario} on PostgreSQL" in SCENARIOS else scenario


def _cell(counts: Counts, plan: Plan, scenario: str, boundary: str, reasons: dict[str, str]) -> str:
    """The counts of a cell, `?` for a case without a result; the letter of the reason where there is no operation."""
    hows, wanted = counts.get(scenario, {}).get(boundary, {}), plan[scenario].get(boundary, ())
    if all(hows.get(how) == 0 for how in wanted):
        why = reason(scenario, boundary)
        return "?" if why is None else reasons.setdefault(why, LETTERS[len(reasons)])
    return " + ".join(str(hows.get(how, "?")) for how in wanted)


if __name__ == "__main__":
    kept = merged([Path(each) for each in sys.argv[1:]])
    COUNTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")
