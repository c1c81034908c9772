"""How a store is: what an operator looks at when answers are slow, wrong or missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select, text

from taskpilot_obs.exceptions import StoreVersionError
from taskpilot_obs.store import clickhouse_sums, clickhouse_tables
from taskpilot_obs.store.budget_limits import noted_limits
from taskpilot_obs.store.differences import differences
from taskpilot_obs.store.engine import Store
from taskpilot_obs.store.ledger_tables import ALL_TABLES
from taskpilot_obs.store.marks import deleted_from, newest_and_oldest, server_clock
from taskpilot_obs.store.months import gaps
from taskpilot_obs.store.on_postgresql import ENCODING, server_encoding
from taskpilot_obs.store.tables import LLM_CALLS, NEWEST, SUMMARY_WORK

if TYPE_CHECKING:
    from sqlalchemy import Connection


class StoreHealth(NamedTuple):
    """A store at one moment."""

    name: str
    version: str
    wanted: str
    is_current: bool
    differences: list[str]
    encoding: str
    missing_rights: list[str]
    hours_to_sum_up: int
    oldest_work: datetime | None
    size_bytes: int
    has_retention: bool
    clock_ahead: timedelta
    """How far the clock of this host is ahead of the server's."""
    newest: datetime | None
    """The newest call."""
    partition_gaps: list[str]
    """What is missing of monthly partitions."""
    contradictory_limits: dict[str, tuple[str, ...]]
    """Budgets that running processes keep under several limits."""


def health_of(url: str) -> StoreHealth:
    """Look at a store, and change nothing in it.

    Raises:
        StoreError: it cannot be used, or has no tables.
    """
    store = Store(url)
    try:
        version = store.version()
        if version is None:
            raise StoreVersionError(f"the telemetry store {store} has no tables yet: run `taskpilot-obs db upgrade`")
        wrong = differences(store) if store.is_current else []
        with store.reading() as connection:
            return _looked_at(store, connection, version, wrong)
    finally:
        store.close()


def _looked_at(store: Store, connection: Connection, version: str, wrong: list[str]) -> StoreHealth:
    hours, oldest = _to_sum_up(store, connection)
    newest, _ = newest_and_oldest(connection, LLM_CALLS)
    return StoreHealth(
        str(store),
        version,
        NEWEST,
        store.is_current,
        wrong,
        server_encoding(connection) if connection.dialect.name == "postgresql" else ENCODING,
        _missing_rights(store, connection),
        hours,
        oldest,
        _size(store, connection),
        deleted_from(connection, LLM_CALLS.name).before is not None,
        datetime.now(UTC) - server_clock(connection),
        newest,
        gaps(connection),
        {} if store.is_clickhouse else _contradictions(connection),
    )


def _to_sum_up(store: Store, connection: Connection) -> tuple[int, datetime | None]:
    """How many hours wait to be summed up, and the first of them."""
    work = SUMMARY_WORK.c
    todo = select(func.count(), func.min(work.period_start)).where(work.period == "hourly")
    if store.is_current:
        todo = todo.where(work.lacking.is_(None))
    first = clickhouse_sums.first_to_sum_up(connection) if store.is_clickhouse else None
    if first is not None:
        todo = todo.where(work.period_start >= first)
    hours, oldest = connection.execute(todo).one()
    return hours, oldest


def _contradictions(connection: Connection) -> dict[str, tuple[str, ...]]:
    noted = noted_limits(connection, datetime.now(UTC))
    return {name: limits for name, limits in noted.items() if len(limits) > 1}


def _missing_rights(store: Store, connection: Connection) -> list[str]:
    if store.is_sqlite or store.is_clickhouse:
        return []
    rights = ("SELECT", "INSERT", "UPDATE", "DELETE")
    asked = text("SELECT has_table_privilege(to_regclass(:name), :right)")
    return [
        f"{right} on {table.name}"
        for table in ALL_TABLES
        for right in rights
        if connection.execute(asked, {"name": table.name, "right": right}).scalar_one() is False
    ]


def _size(store: Store, connection: Connection) -> int:
    if store.is_sqlite:
        path = Path(str(store.url.database))
        files = (path, path.with_name(f"{path.name}-wal"))
        return sum(each.stat().st_size for each in files if each.exists())
    if store.is_clickhouse:
        return clickhouse_tables.size_of(connection)
    size = text(
        "SELECT coalesce(pg_total_relation_size(to_regclass(:name)), 0) + (SELECT coalesce(sum("
        "pg_total_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = to_regclass(:name))"
    )
    return sum(int(connection.execute(size, {"name": table.name}).scalar_one()) for table in ALL_TABLES)
