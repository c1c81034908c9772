"""The monthly partitions of the two big tables on PostgreSQL: lists them, and creates them ahead of time.

A partition's primary key is the record's ID alone, as in a table without partitions, so that a record is stored once
within its month whatever its time. The table as a whole has no primary key, because PostgreSQL would require the time
in it. Records of months without a partition go to the default partition. It is kept small, because PostgreSQL scans it
whenever a partition is added.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import MetaData, func, select, text

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store.marks import server_clock
from taskpilot_obs.store.short_locks import BusyError, briefly
from taskpilot_obs.store.tables import AGENT_RUNS, LLM_CALLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.opened import OpenStore

BIG_TABLES: Final = (LLM_CALLS, AGENT_RUNS)
AHEAD: Final = 3
"""How many months after the present one are created ahead of time."""
OLDEST: Final = 120
"""Older months get no partition, so that a clock at 1970 does not create hundreds."""
_MOST_MOVED: Final = 5_000
"""How many rows are moved out of the default partition at once; writers wait meanwhile."""
_MOST_SEARCHED: Final = 64 << 20
"""The size in bytes beyond which scanning the default partition would take too long."""
_MAKE_WITHIN_S: Final = 3.0
_LOOK_AGAIN_S: Final = 60.0
_RANGE: Final = re.compile(r"FROM \('([^']+)'\) TO \('([^']+)'\)")
_LAYOUT: Final = text(
    "SELECT piece.relname, pg_get_expr(piece.relpartbound, piece.oid), "
    "pg_has_role(parent.relowner, 'USAGE') AND has_schema_privilege(parent.relnamespace, 'CREATE') "
    "FROM pg_class AS parent JOIN pg_inherits ON inhparent = parent.oid JOIN pg_class AS piece ON piece.oid = inhrelid "
    "WHERE parent.oid = to_regclass(:name) AND parent.relkind = 'p' ORDER BY piece.relname"
)

COPY_MARK: Final = "taskpilot-obs: a copy that is being filled"
"""The comment on a copy."""
_OUR_COPY: Final = text(
    "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(:name) AND relkind = 'p' "
    "AND obj_description(oid, 'pg_class') = :mark)"
)
_HAS_NEW: Final = text(
    "SELECT EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
    "WHERE inhparent = to_regclass(:name) AND reltuples < 0)"
)
"""Whether a partition was never analysed."""


class Piece(NamedTuple):
    """A partition with the times [start, end)."""

    name: str
    start: datetime
    end: datetime


class TablePartitions(NamedTuple):
    """The partitions of a table."""

    pieces: tuple[Piece, ...]
    rest: str | None
    """The default partition, for rows that belong to no other."""
    may_change: bool
    """Whether this role may create and drop them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all partitions."""
        return (*(piece.name for piece in self.pieces), *(() if self.rest is None else (self.rest,)))

    def covers(self, month: datetime) -> bool:
        """Whether a part of the month has a partition."""
        return any(piece.start < next_month(month) and month < piece.end for piece in self.pieces)


def floor_month(moment: datetime) -> datetime:
    """The beginning of the month, in UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(month: datetime) -> datetime:
    """The beginning of the next month."""
    return add_months(month, 1)


def add_months(month: datetime, amount: int) -> datetime:
    """The beginning of the month that is this many months later."""
    years, number = divmod(month.month - 1 + amount, 12)
    return month.replace(year=month.year + years, month=number + 1)


def layout_of(connection: Connection, table: Table) -> TablePartitions | None:
    """The partitions of a table; None for a table without partitions, and on SQLite."""
    if connection.dialect.name != "postgresql":
        return None
    found = connection.execute(_LAYOUT, {"name": table.name}).all()
    if not found:
        return None
    ranges = ((name, _RANGE.search(bound)) for name, bound, _ in found)
    pieces = tuple(Piece(name, *map(_moment, at.groups())) for name, at in ranges if at)
    rest = next((name for name, bound, _ in found if bound == "DEFAULT"), None)
    return TablePartitions(tuple(sorted(pieces, key=lambda piece: piece.start)), rest, found[0][2])


def _moment(said: str) -> datetime:
    return datetime.fromisoformat(said).astimezone(UTC)


def piece_name(connection: Connection, table: Table, month: datetime | None) -> str:
    """A free name for a new partition.

    Args:
        connection: finds which names are free: a table and the copy that will replace it have the same months.
        table: which one.
        month: its beginning; None for the default partition.
    """
    name = f"{table.name}_{'other' if month is None else f'{month:%Y_%m}'}"
    others = (f"{name}_{number}" for number in count(2))
    return next(each for each in chain([name], others) if not exists(connection, each))


def key_of(table: Table) -> str:
    """The column of the record's ID."""
    (column,) = table.primary_key
    return column.name


def range_of(month: datetime) -> str:
    """The bounds of a month in SQL."""
    return f"FROM ('{month.isoformat()}') TO ('{next_month(month).isoformat()}')"


def months_with_rows(connection: Connection, table: Table) -> Iterator[datetime]:
    """The months that have rows, oldest first; it jumps from one to the next by the index on time."""
    moments, since = table.c.created_at, None
    while True:
        query = select(moments).order_by(moments).limit(1)
        if since is not None:
            query = query.where(moments >= since)
        found = connection.execute(query).scalar_one_or_none()
        if found is None:
            return
        month = floor_month(found)
        yield month
        since = next_month(month)


def is_usual(month: datetime, present: datetime) -> bool:
    """Whether a month is close enough to the present to get a partition."""
    now = floor_month(present)
    return add_months(now, -OLDEST) <= month <= add_months(now, AHEAD)


# --- making ----------------------------------------------------------------------------------------------------------


def make_ahead(store: OpenStore) -> None:
    """Create the partitions of this month and the next, and of months whose records went to the default partition.

    It does nothing if the tables have no partitions, if this role does not own them, or if a lock is not free: records
    then go to the default partition, and the next call tries again.

    Raises:
        StoreError: the database failed.
    """
    for table in BIG_TABLES:
        with store.reading() as connection:
            layout = layout_of(connection, table)
            if layout is None or not layout.may_change:
                continue
            present = server_clock(connection)
            wanted = {add_months(floor_month(present), n) for n in range(AHEAD + 1)}
            wanted |= {month for month in _months_of_rest(connection, table, layout) if is_usual(month, present)}
        _make(store, table, sorted(month for month in wanted if not layout.covers(month)))
        _analyse(store, table)


def _months_of_rest(connection: Connection, table: Table, layout: TablePartitions) -> Iterable[datetime]:
    if layout.rest is None or not _may_read(connection, layout.rest):
        return ()
    return list(months_with_rows(connection, named(table, layout.rest)))


def _may_read(connection: Connection, name: str) -> bool:
    """Whether this role may query a partition directly, to which rights on the whole table do not extend."""
    query = text("SELECT has_table_privilege(to_regclass(:name), 'SELECT')")
    return bool(connection.execute(query, {"name": name}).scalar_one())


def named(table: Table, name: str) -> Table:
    """The table under another name, with the same columns."""
    return table.to_metadata(MetaData(), name=name)


def _make(store: OpenStore, table: Table, months: Iterable[datetime], *, within_s: float = inf) -> None:
    deadline = time.monotonic() + within_s
    for month in months:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        try:
            briefly(store, partial(_attach, table=table, month=month), within_s=min(_MAKE_WITHIN_S, left))
        except BusyError:
            continue


def _analyse(store: OpenStore, table: Table) -> None:
    """Analyse a table with a new partition: autovacuum analyses only partitions; the planner needs the whole too."""
    with store.writing() as connection:
        if connection.execute(_HAS_NEW, {"name": table.name}).scalar_one():
            connection.execute(text(f"ANALYZE {table.name}"))


def _attach(connection: Connection, table: Table, month: datetime) -> bool:
    """Create the partition of a month with its rows from the default partition; False if these are too many."""
    connection.execute(text(f"LOCK TABLE ONLY {table.name} IN SHARE UPDATE EXCLUSIVE MODE"))
    layout = layout_of(connection, table)
    if layout is None or layout.covers(month) or is_being_rebuilt(connection, table):
        return False
    if not _is_little(connection, table, layout, month):
        return False
    name = piece_name(connection, table, month)
    become_owner(connection, table)
    connection.execute(text(f"CREATE TABLE {name} (LIKE {table.name} INCLUDING ALL)"))
    connection.execute(text(f"ALTER TABLE {name} ADD PRIMARY KEY ({key_of(table)})"))
    if layout.rest is not None:
        connection.execute(text(f"LOCK TABLE {layout.rest} IN ACCESS EXCLUSIVE MODE"))
        _move(connection, layout.rest, name, month)
    connection.execute(text(f"ALTER TABLE {table.name} ATTACH PARTITION {name} FOR VALUES {range_of(month)}"))
    return True


def _is_little(connection: Connection, table: Table, layout: TablePartitions, month: datetime) -> bool:
    """Whether the default partition is small enough to scan, and has few rows of the month."""
    if layout.rest is None:
        return True
    size = connection.execute(text("SELECT pg_relation_size(to_regclass(:name))"), {"name": layout.rest}).scalar_one()
    moment = named(table, layout.rest).c.created_at
    some = select(moment).where(moment >= month, moment < next_month(month)).limit(_MOST_MOVED + 1).subquery()
    rows = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return int(size) <= _MOST_SEARCHED and int(rows) <= _MOST_MOVED


def _move(connection: Connection, rest: str, name: str, month: datetime) -> None:
    names = ", ".join(stored_columns(connection, rest))
    connection.execute(
        text(
            f"WITH moved AS (DELETE FROM {rest} WHERE created_at >= :start AND created_at < :end RETURNING {names}) "  # noqa: S608  our names
            f"INSERT INTO {name} ({names}) SELECT {names} FROM moved"
        ),
        {"start": month, "end": next_month(month)},
    )


def stored_columns(connection: Connection, table: str) -> list[str]:
    """The stored columns of a table in order and quoted, including those that others added."""
    query = text(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0 "
        "AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
    )
    return list(connection.execute(query, {"name": table}).scalars())


def become_owner(connection: Connection, table: Table) -> None:
    """Act as the owner of the table until the transaction ends, so that new objects belong to the owner."""
    query = text("SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = to_regclass(:name)")
    owner = connection.execute(query, {"name": table.name}).scalar_one()
    connection.execute(text(f"SET LOCAL ROLE {owner}"))


def gaps(connection: Connection) -> list[str]:
    """The work that `aggregate` has left: tables without the next month, or with records in the default partition."""
    found = []
    for table in BIG_TABLES:
        layout = layout_of(connection, table)
        if layout is None:
            continue
        present = server_clock(connection)
        if not layout.covers(next_month(floor_month(present))):
            found.append(f"{table.name} has no partition for the next month")
        if any(is_usual(month, present) for month in _months_of_rest(connection, table, layout)):
            found.append(f"{table.name} has records in its default partition that belong to a month's")
    return found


def _missing(connection: Connection, table: Table, months: Iterable[datetime]) -> list[datetime]:
    """The months without a partition, if this role may create them."""
    layout = layout_of(connection, table)
    if layout is None or not layout.may_change:
        return []
    present = server_clock(connection)
    return [month for month in months if is_usual(month, present) and not layout.covers(month)]


class MonthsOnDemand:
    """Creates partitions for the records that a process writes, if its role may. Not thread-safe.

    A month that could not be created is tried again a minute later; its records go to the default partition.
    """

    def __init__(self, store: OpenStore) -> None:
        self._store = store
        self._seen: dict[tuple[str, datetime], float] = {}

    def cover(self, table: Table, moments: Iterable[datetime]) -> None:
        """Create the partitions of these times, unless this process has checked them already."""
        now = time.monotonic()
        months = {floor_month(moment) for moment in moments}
        new = [month for month in months if self._seen.get((table.name, month), now) <= now]
        if not new:
            return
        self._seen |= {(table.name, month): now + _LOOK_AGAIN_S for month in new}
        try:
            with self._store.reading() as connection:
                missing = _missing(connection, table, new)
            _make(self._store, table, missing, within_s=_MAKE_WITHIN_S)  # in all, because an exporter waits
        except StoreError as error:  # the rows matter more, and writing them reports an unreachable database
            log_failure("store partitions", error)


# --- copies ----------------------------------------------------------------------------------------------------------


def copy_name(table: Table) -> str:
    """The name of the copy that will replace a table."""
    return f"{table.name}_copy"


def is_being_rebuilt(connection: Connection, table: Table) -> bool:
    """Whether a copy is being filled, which changes of partitions would not reach.

    A table of another application may have the copy's name, so a comment identifies ours.
    """
    return bool(connection.execute(_OUR_COPY, {"name": copy_name(table), "mark": COPY_MARK}).scalar_one())


def exists(connection: Connection, name: str) -> bool:
    """Whether a table, a view or an index of this name is in the search path."""
    return bool(connection.execute(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name}).scalar_one())
