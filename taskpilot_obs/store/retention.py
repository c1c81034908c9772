"""Deleting rows by age, a few at a time, so that writers never wait long."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, delete, func, or_, select

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs._support.timestamps import aware
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreVersionError
from taskpilot_obs.store import clickhouse_upkeep
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.aggregate import aggregate_summaries
from taskpilot_obs.store.clickhouse_sums import first_to_sum_up
from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER
from taskpilot_obs.store.marks import (
    check_clock,
    deleted_from,
    mark_deleted,
    moment_of,
    newest_and_oldest,
    server_clock,
)
from taskpilot_obs.store.months import BIG_TABLES
from taskpilot_obs.store.old_months import drop_before
from taskpilot_obs.store.picked import picked
from taskpilot_obs.store.segments import DAY, HOUR, first_changed, floor_day, floor_hour
from taskpilot_obs.store.small_steps import DeletionPace, in_small_steps
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, LLM_CALLS, SUMMARIES, VIOLATIONS

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

    from taskpilot_obs.store.engine import Store

ROW_TABLES: Final = {table.name: table for table in (LLM_CALLS, AGENT_RUNS, FEEDBACK, VIOLATIONS)}
TABLES: Final = {**ROW_TABLES, SUMMARIES.name: SUMMARIES, BUDGET_LEDGER.name: BUDGET_LEDGER}
MOST_DAYS: Final = 36_500.0
_MOST_TTL_DAYS: Final = 20_000.0
"""A moment of a TTL in ClickHouse ends in 2106: beyond, it would be long ago, and every row old."""
_PACE: Final = DeletionPace(first_rows=200, most_rows=5_000, target_s=0.010, pauses=1.0)
"""A transaction holds the lock for well below the 50 ms that a writer may have to wait, and leaves it as long again."""
_LENGTHS: Final = {"week": timedelta(days=8), "month": timedelta(days=32)}
_LONGEST_OTHER: Final = timedelta(days=2)
"""How long a line of the budget ledger counts after its period began; a budget without period is kept for ever."""


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
        if not 0 < days <= MOST_DAYS:
            raise ConfigurationError(
                f"retention_days: given {days!r} for {name}; it must be a positive number of days up to {MOST_DAYS:g}"
            )
    return dict(retention_days)


def prune(
    retention_days: float | Mapping[str, float],
    *,
    store: str | Store | None = None,
    now: datetime | None = None,
    dry_run: bool = False,
) -> dict[str, int]:
    """Delete rows older than so many days. Calls are summed up before they go; summaries stay unless they are named.

    Whole hours are deleted (of summaries, whole days), in transactions of some milliseconds; months of PostgreSQL that
    have a partition are dropped. ClickHouse gets a TTL of that age, and goes on deleting by it; while calls that are to
    go wait to be summed up, it gets none, which is logged. Several processes may do it at once. Lines of the budget
    ledger go after their period has ended; those of budgets without a period stay.

    Args:
        retention_days: days for all tables of rows, or by table: `{"llm_call_telemetry": 30, "agent_runs": 90}`.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        dry_run: count what would be deleted, and change nothing.

    Returns:
        How many rows of each table were deleted.

    Raises:
        ConfigurationError: a table that does not exist, an age that is not positive, or a time without zone.
        StoreError: the store cannot be used, or the clock of this process is far from both the server's and the newest
            row: nothing is deleted then.
    """
    ages = checked_retention(retention_days)
    present = aware(now)
    deleted = {}
    with opened(store) as opened_store:
        opened_store.require_current()
        if opened_store.is_clickhouse:
            check_ttls(ages)
        for name, days in ages.items():
            aged = _aged(opened_store, TABLES[name], present, timedelta(days=days))
            if dry_run:
                deleted[name] = _count(opened_store, aged)
            else:
                dispose = partial(_expired, days=days) if opened_store.is_clickhouse else _delete
                deleted[name] = dispose(opened_store, aged)
    return deleted


def check_ttls(ages: Mapping[str, float]) -> None:
    """Refuse ages that a store in ClickHouse cannot keep rows for.

    Raises:
        ConfigurationError: a table that it lacks, or an age beyond what a TTL may be.
    """
    if BUDGET_LEDGER.name in ages:
        raise ConfigurationError(f"retention_days: a store in ClickHouse has no table {BUDGET_LEDGER.name}")
    if (longest := max(ages.values(), default=0.0)) > _MOST_TTL_DAYS:
        raise ConfigurationError(
            f"retention_days: given {longest!r}; in ClickHouse it must be at most {_MOST_TTL_DAYS:g} days: "
            "leave a table out to keep its rows for ever"
        )


class _Aged(NamedTuple):
    """The rows of a table that have reached their age."""

    table: Table
    cutoff: datetime

    @property
    def where(self) -> ColumnElement[bool]:
        """Which rows they are."""
        moment = moment_of(self.table)
        if self.table is not BUDGET_LEDGER:
            return and_(moment < self.cutoff)
        line = BUDGET_LEDGER.c
        ended = [
            *(and_(line.period == name, line.period_start < self.cutoff - long) for name, long in _LENGTHS.items()),
            and_(line.period.not_in([*_LENGTHS, "total"]), line.period_start < self.cutoff - _LONGEST_OTHER),
        ]
        return and_(moment < self.cutoff, or_(*ended), line.reserved_units == 0, line.reserved_rest == 0)


def _aged(store: Store, table: Table, present: datetime, age: timedelta) -> _Aged:
    with store.reading() as connection:
        newest, _ = newest_and_oldest(connection, table)
        clock = server_clock(connection)
        check_clock(present, clock, newest)
    floor, whole = (floor_day, DAY) if table is SUMMARIES else (floor_hour, HOUR)
    # Never beyond the clock of the server, nor the hour of the newest row: new rows must not count as deleted ones.
    last = floor(clock) if newest is None else min(floor(clock), floor(newest) + whole)
    return _Aged(table, min(floor(present - age), last))


def _count(store: Store, aged: _Aged) -> int:
    with store.reading() as connection:
        query = select(func.count()).select_from(aged.table).where(aged.where)
        found: int = connection.execute(query).scalar_one()
    return found


def _announced(store: Store, aged: _Aged) -> _Aged:
    """Mark what is about to be deleted; calls are summed up first, and stay from the first hour on that is not.

    In ClickHouse, where no hour beside a mark is summed up, all stay until every hour is.
    """
    if aged.table is BUDGET_LEDGER:
        return aged
    if aged.table is LLM_CALLS:
        _sum_up(store)
    with store.writing() as connection:
        if aged.table is LLM_CALLS and (changed := _first_changed(connection, store, aged.cutoff)) is not None:
            aged = aged._replace(cutoff=changed)
            if store.is_clickhouse:
                return aged
        _, oldest = newest_and_oldest(connection, aged.table)
        if oldest is not None and oldest < aged.cutoff:
            mark_deleted(connection, aged.table, aged.cutoff, oldest)
    return aged


def _sum_up(store: Store) -> None:
    """Sum up what changed, unless the store is in ClickHouse and of the version that keeps no sums."""
    try:
        aggregate_summaries("daily", lookback_hours=None, store=store)
    except StoreVersionError as error:
        if not store.is_clickhouse:
            raise
        log_failure("store summaries", error)


def _first_changed(connection: Connection, store: Store, before: datetime) -> datetime | None:
    if store.is_clickhouse:
        return first_changed(connection, first_to_sum_up(connection), before)
    return first_changed(connection, deleted_from(connection, LLM_CALLS.name).before, before)


def _expired(store: Store, aged: _Aged, days: float) -> int:
    """Leave it to ClickHouse to delete what is older than the mark, now and from now on; how many rows there are."""
    _mark_expired(store, aged.table)
    first = _announced(store, aged).cutoff
    if first < aged.cutoff:
        waits = f"calls of {first:%Y-%m-%d %H:%M} UTC are not summed up yet: their TTL is set another time"
        log_failure("store retention", StoreError(waits))
        return 0
    count = _count(store, aged)
    with store.writing() as connection:
        clickhouse_upkeep.keep_for(connection, aged.table.name, moment_of(aged.table).name, timedelta(days=days))
    return count


def _mark_expired(store: Store, table: Table) -> None:
    """Mark what the server may have deleted by the TTL so far, which a longer one would not tell any more."""
    with store.writing() as connection:
        if (before := deleted_from(connection, table.name).before) is not None:
            mark_deleted(connection, table, before, None)


def _delete(store: Store, aged: _Aged) -> int:
    aged = _announced(store, aged)
    dropped = drop_before(store, aged.table, aged.cutoff) if aged.table in BIG_TABLES else 0
    return dropped + delete_in_small_steps(store, aged.table, aged.where)


def delete_in_small_steps(store: Store, table: Table, where: ColumnElement[bool]) -> int:
    """Delete rows in transactions of some milliseconds, with as much time for writers in between; how many there were.

    Raises:
        StoreError: the database failed; what was deleted before stays deleted.
    """
    return in_small_steps(store, partial(_delete_some, table=table, where=where), _PACE)


def _delete_some(connection: Connection, rows: int, table: Table, where: ColumnElement[bool]) -> int:
    return connection.execute(delete(table).where(picked(connection, table, where, rows))).rowcount
