"""docs/faults.md: what the kept counts of runs with a fault say, and that they cover everything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _boundaries import BOUNDARIES
from _empty_cells import reason
from _operations import SCENARIOS
from _scripts import load

WRITER = load("faults_page")
COUNTS = json.loads(WRITER.COUNTS.read_text(encoding="utf-8"))


def test_the_page_is_current() -> None:
    """The page follows from the kept counts; `python scripts/faults_page.py` would not change it."""
    assert WRITER.PAGE.read_text(encoding="utf-8") == WRITER.page(COUNTS), "run `python scripts/faults_page.py`"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_operation_of_every_scenario_failed(scenario: str) -> None:
    """Each operation was made to fail once and from then on, or the page states why the work has none."""
    for boundary in BOUNDARIES:
        hows, wanted = COUNTS[scenario].get(boundary, {}), WRITER.planned()[scenario].get(boundary, ())
        assert set(wanted) <= set(hows), f"{boundary} was not run: `make faults ARGS='-k \"{scenario}\"'`"
        assert any(hows.values()) != bool(reason(scenario, boundary)), f"{boundary}: {hows}, and a reason for no count"


def test_what_was_not_run_is_named() -> None:
    """A case without a result is a `?`, and an operation that the work has not gets the letter of its reason."""
    row = dict.fromkeys(("once", "from then on"), 0)
    page = WRITER.page({"spool": {"open": {"once": 70}, "execute": row, "fork": {"once": 3}}})
    assert "| open | ? + ? | 70 + ? |" in page
    assert "| execute | ? + ? | a |" in page
    assert "| fork | ? | 3 |" in page
    assert "- a: it keeps no tables." in page


def test_results_are_kept_as_they_come(tmp_path: Path) -> None:
    """A case that passed replaces its count, one that failed loses it, and all others keep theirs."""
    lines = [("spool", "open", "once", 71), ("spool", "write", "once", None)]
    results = tmp_path / "results"
    results.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    assert COUNTS["spool"]["write"].keys() == {"once", "from then on"}
    merged = WRITER.merged([results])
    assert merged["spool"]["open"]["once"] == 71
    assert merged["spool"]["write"].keys() == {"from then on"}
    assert merged["audit log"] == COUNTS["audit log"]
