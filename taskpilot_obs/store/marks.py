"""What was deleted by age: marks that every process reads, so that each answer knows from when on it is complete.

A mark is set before rows are deleted, and never beyond the newest row or the clock of the server: a process whose clock
is ahead cannot blind the store. Rows older than the mark of their table are never counted, also those that arrive late.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite

from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store import on_clickhouse
from taskpilot_obs.store.clickhouse_upkeep import lifetime_of
from taskpilot_obs.store.tables import STATE

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, Table

FAR: Final = timedelta(days=14)
"""A clock that is further ahead of both the newest row and the server's clock is taken for wrong."""
_BEFORE: Final = "pruned_before:"
_SINCE: Final = "pruned_since:"
_MERGED: Final = {
    "services_merged_before": frozenset({"service", "environment"}),
    "tenants_merged_before": frozenset({"organization_id", "prompt_name"}),
}
"""Marks that a downgrade left, and what sums from before do not distinguish."""
MERGEABLE: Final = frozenset[str]().union(*_MERGED.values())
"""The dimensions that sums from before some moment may not distinguish."""


class Deleted(NamedTuple):
    """Which stretch of time was deleted from a table."""

    since: datetime | None = None
    """Nothing before was ever there; None: unknown."""
    before: datetime | None = None
    """Rows before this moment were deleted; None: none ever were."""

    def missing_in(self, start: datetime, end: datetime) -> datetime | None:
        """From when on rows of [start, end) are all there; None: all are."""
        if self.before is None or self.before <= start or (self.since is not None and end <= self.since):
            return None
        return min(self.before, end)


NOTHING: Final = Deleted()


def deleted_from(connection: Connection, table: str) -> Deleted:
    """What was deleted from a table by age."""
    query = select(STATE.c.key, STATE.c.value).where(STATE.c.key.in_([_BEFORE + table, _SINCE + table]))
    found = {line.key: line.value for line in connection.execute(query)}
    before = found.get(_BEFORE + table)
    if on_clickhouse.is_on(connection):  # whose server goes on deleting without a mark
        moments = (before, _expired_before(connection, table))
        before = max((moment for moment in moments if moment is not None), default=None)
    return Deleted(found.get(_SINCE + table), before)


def _expired_before(connection: Connection, table: str) -> datetime | None:
    """Up to when the server of ClickHouse may have deleted rows since the mark was set, in whole hours."""
    age = lifetime_of(connection, table)
    if age is None:
        return None
    return (server_clock(connection) - age).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def merged_before(connection: Connection, names: Collection[str]) -> datetime | None:
    """Before which moment sums do not tell these dimensions apart, because of a downgrade; None: all do."""
    keys = [key for key, merged in _MERGED.items() if not merged.isdisjoint(names)]
    if not keys:
        return None
    found: datetime | None = connection.execute(select(func.max(STATE.c.value)).where(STATE.c.key.in_(keys))).scalar()
    return found


def mark_deleted(connection: Connection, table: Table, moment: datetime, oldest: datetime | None) -> None:
    """Note that rows before this moment are about to be deleted.

    Args:
        connection: one that writes.
        table: which one.
        moment: never goes back; see `set_back`.
        oldest: the moment of the oldest row that is there.
    """
    _put(connection, _BEFORE + table.name, moment, "later")
    if oldest is not None:
        _put(connection, _SINCE + table.name, oldest, "earlier")


def set_back(connection: Connection, table: str, moment: datetime) -> None:
    """Correct a mark that a wrong clock has set."""
    _put(connection, _BEFORE + table, moment, "always")


def _put(connection: Connection, key: str, value: datetime, when: str) -> None:
    if on_clickhouse.is_on(connection):
        _put_clickhouse(connection, key, value, when)
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    put = dialect.insert(STATE).values(key=key, value=value)
    where = {"later": STATE.c.value < put.excluded.value, "earlier": STATE.c.value > put.excluded.value}.get(when)
    connection.execute(
        put.on_conflict_do_update(index_elements=[STATE.c.key], set_={"value": put.excluded.value}, where=where)
    )


def _put_clickhouse(connection: Connection, key: str, value: datetime, when: str) -> None:
    """Put the row in place of the one with its key. Two processes at once may put the smaller mark last."""
    known = connection.execute(select(STATE.c.value).where(STATE.c.key == key)).scalar()
    if known is None or when == "always" or (value > known if when == "later" else value < known):
        connection.execute(insert(STATE), {"key": key, "value": value})


def server_clock(connection: Connection) -> datetime:
    """The present, by the clock of the server; a SQLite store has that of this machine."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    clock = on_clickhouse.CLOCK if on_clickhouse.is_on(connection) else "SELECT clock_timestamp()"
    found: datetime = connection.execute(text(clock)).scalar_one()
    if found.tzinfo is None:  # as ClickHouse's driver gives UTC
        return found.replace(tzinfo=UTC)
    return found.astimezone(UTC)


def newest_and_oldest(connection: Connection, table: Table) -> tuple[datetime | None, datetime | None]:
    """The moments of the newest and the oldest row."""
    moment = moment_of(table)
    newest = connection.execute(select(func.max(moment))).scalar_one()
    return newest, connection.execute(select(func.min(moment))).scalar_one()


def moment_of(table: Table) -> Any:
    """The column that says how old a row is."""
    return table.c[next(name for name in ("created_at", "updated_at", "period_start") if name in table.c)]


def check_clock(now: datetime, clock: datetime, newest: datetime | None) -> None:
    """Refuse to delete by a clock that is far ahead of everything that is known about the time.

    A clock that is behind deletes less, and does no harm.

    Raises:
        StoreError: the present is far ahead of the server's clock and of the newest row.
    """
    if now - max(clock, newest or clock) > FAR:
        raise StoreError(
            f"nothing was deleted: it is {now:%Y-%m-%d %H:%M} UTC by the clock of this process, and "
            f"{clock:%Y-%m-%d %H:%M} UTC by the server's"
            + ("" if newest is None else f"; the newest row is of {newest:%Y-%m-%d %H:%M} UTC")
        )
