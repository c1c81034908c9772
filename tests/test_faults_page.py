"""docs/faults.md: what the kept counts of runs with a fault say, and what has not been run."""

from __future__ import annotations

import json

from _scripts import load

WRITER = load("faults_page")


def test_the_page_is_current() -> None:
    """The page follows from the kept counts; `python scripts/faults_page.py` would not change it."""
    counts = json.loads(WRITER.COUNTS.read_text(encoding="utf-8"))
    assert WRITER.PAGE.read_text(encoding="utf-8") == WRITER.page(counts), "run `python scripts/faults_page.py`"


def test_what_was_not_run_is_named() -> None:
    """A case without a result is a `?`, an operation that the work has not is empty, and other scenarios are listed."""
    page = WRITER.page({"spool": {"open": {"once": 70}, "write": {"once": 0, "from then on": 0}, "fork": {"once": 3}}})
    assert "| open | 70 + ? |" in page
    assert "| write |" not in page
    assert "| read | ? + ? |" in page
    assert "| fork | 3 |" in page
    assert "Not run yet: audit log, scrape, store on SQLite," in page
