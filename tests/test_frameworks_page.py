"""docs/frameworks.md: what works where is what the last run of the frameworks' tests found."""

from __future__ import annotations

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
    table = f"| framework | {cells} |\n| --- | --- |\n| unheard_of | {cells} |\n\n## unheard_of\n\nWith x 1.\n"
    with pytest.raises(ValueError, match="unheard_of has no test of 'success'"):
        WRITER.works_where(table)
