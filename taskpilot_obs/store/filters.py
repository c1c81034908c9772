"""Which calls a question is about, in the words of the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import or_

from taskpilot_obs.exceptions import StoreVersionError
from taskpilot_obs.store.rollups import Grain, rollup_for
from taskpilot_obs.store.tables import LLM_CALLS, columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement

    from taskpilot_obs._telemetry.filters import Filters


def rollup_of(filters: Filters, dimensions: Iterable[str], version: str) -> Grain | None:
    """The roll-up that answers, grouped by these dimensions; None: rows alone.

    Raises:
        StoreVersionError: the tables have no column for a filter.
    """
    missing = filters.keys() - set(columns_of(LLM_CALLS, version))
    if missing:
        raise StoreVersionError(
            f"the telemetry store has version {version!r}, which does not keep {', '.join(sorted(missing))}: "
            "run `taskpilot-obs db upgrade --store URL` once"
        )
    return rollup_for({*filters, *dimensions}, version)


def rows_where(filters: Filters) -> list[ColumnElement[bool]]:
    """The filters as conditions on rows, where NULL and the empty text both stand for no value."""
    columns: Any = LLM_CALLS.c
    return [
        columns[name] == value if value else or_(columns[name].is_(None), columns[name] == "")
        for name, value in filters.items()
    ]
