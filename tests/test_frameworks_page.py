"""docs/frameworks.md: what works where is what the last run of the frameworks' tests found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from _scripts import load

WRITER = load("frameworks_page")


def test_the_table_is_current() -> None:
    """The table follows from the page of results; `python scripts/frameworks_page.py` would not change it."""
    document, page = WRITER.TABLE.read_text(encoding="utf-8"), WRITER.PAGE.read_text(encoding="utf-8")
    assert document == WRITER.with_table(document, page), "run `python scripts/frameworks_page.py`"
    assert "| yes |" in document


def test_a_topic_without_a_test_needs_a_reason() -> None:
    """A framework that has no test of a topic is refused, unless the script states why."""
    cells = " | ".join("-" for _ in WRITER.TOPICS)
    table = f"| framework | {cells} |\n| --- | --- |\n| unheard_of | {cells} |\n\n"
    section = "## unheard_of\n\nOn 2026-11-30, with x 1.\n"
    with pytest.raises(ValueError, match="unheard_of has no test of 'success'"):
        WRITER.works_where(table + section)


def test_a_framework_keeps_the_day_of_its_last_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frameworks that are run again get a new day, the others keep theirs."""
    (tmp_path / "openai.xml").touch()
    fresh = WRITER.Result("openai", "openai 9", Counter({"a call": 1}), Counter())
    monkeypatch.setattr(WRITER, "read", lambda _report: fresh)
    old = "## {name}\n\nOn 2020-01-01, with {name} 1.\n\n- a call: passed\n"
    page = WRITER.results_page(tmp_path, "\n\n" + old.format(name="mcp") + "\n" + old.format(name="openai"))
    assert "## mcp\n\nOn 2020-01-01, with mcp 1.\n" in page
    assert "with openai 9.\n" in page
    assert page.count("2020-01-01") == 1
