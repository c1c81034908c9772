"""Deleting rows by age, a few at a time, so that writers never wait long."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, literal_column, select

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.aggregate import aggregate_summaries
from taskpilot_obs.store.segments import changed_before, set_pruned_before
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, LLM_CALLS, SUMMARIES, VIOLATIONS

if TYPE_CHECKING:
    from sqlalchemy import ColumnClause, Table

    from taskpilot_obs.store.engine import Store

ROW_TABLES: Final = {table.name: table for table in (LLM_CALLS, AGENT_RUNS, FEEDBACK, VIOLATIONS)}
TABLES: Final = {**ROW_TABLES, SUMMARIES.name: SUMMARIES}
_FIRST_ROWS: Final = 200
_MOST_ROWS: Final = 5_000
_TARGET_S: Final = 0.010
"""How long one transaction of deletions should hold the lock: well below the 50 ms that a writer may have to wait."""


def checked_retention(retention_days: float | Mapping[str, float] | None) -> dict[str, float]:
    """How many days each table is kept; a table that is left out is kept for ever.

    Raises:
        ConfigurationError: a table that does not exist, or an age that is not positive.
    """
    if retention_days is None:
        return {}
    if not isinstance(retention_days, Mapping):
        retention_days = dict.fromkeys(ROW_TABLES, retention_days)
    for name, days in retention_days.items():
        if name not in TABLES:
            raise ConfigurationError(f"retention_days: there is no table {name!r}; allowed are {', '.join(TABLES)}")
        if not days > 0:
            raise ConfigurationError(f"retention_days: given {days!r} for {name}; it must be a positive number of days")
    return dict(retention_days)


def prune(
    retention_days: float | Mapping[str, float], *, store: str | Store | None = None, now: datetime | None = None
) -> dict[str, int]:
    """Delete rows older than so many days. Calls are summed up before they go; summaries stay unless they are named.

    Whole hours are deleted, in transactions of some milliseconds. Several processes may do it at once.

    Args:
        retention_days: days for all tables of rows, or by table: `{"llm_call_telemetry": 30, "agent_runs": 90}`.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.

    Returns:
        How many rows of each table were deleted.

    Raises:
        ConfigurationError: a table that does not exist, or an age that is not positive.
        StoreError: the store cannot be used.
    """
    ages = checked_retention(retention_days)
    present = now or datetime.now(UTC)
    deleted = {}
    with opened(store) as opened_store:
        for name, days in ages.items():
            cutoff = (present - timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
            if TABLES[name] is LLM_CALLS and not _ready(opened_store, cutoff):
                continue
            deleted[name] = _delete_before(opened_store, TABLES[name], cutoff)
    return deleted


def _ready(store: Store, cutoff: datetime) -> bool:
    """Sum up all that is about to go, and mark it as gone; False where another process writes there at this moment."""
    aggregate_summaries("hourly", lookback_hours=None, store=store)
    with store.writing() as connection:
        if changed_before(connection, cutoff):
            return False
        set_pruned_before(connection, LLM_CALLS.name, cutoff)
    return True


def _delete_before(store: Store, table: Table, cutoff: datetime) -> int:
    moment = table.c.period_start if table is SUMMARIES else table.c.created_at
    row: ColumnClause[Any] = literal_column("rowid" if store.is_sqlite else "ctid")
    deleted, rows = 0, _FIRST_ROWS
    while True:
        started = time.perf_counter()
        with store.writing() as connection:
            some = select(row).select_from(table).where(moment < cutoff).limit(rows)
            gone = connection.execute(delete(table).where(row.in_(some))).rowcount
        took = time.perf_counter() - started
        deleted += gone
        if gone < rows:
            return deleted
        rows = max(_FIRST_ROWS // 4, min(_MOST_ROWS, int(rows * _TARGET_S / max(took, 1e-4))))
        time.sleep(took)  # as long for the writers as for the deletions
