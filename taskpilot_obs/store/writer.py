"""Writing batches of rows, each in one transaction, each row once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from taskpilot_obs.exceptions import StoreUnavailableError
from taskpilot_obs.store import on_postgresql
from taskpilot_obs.store.clickhouse_writer import ClickHouseWriter
from taskpilot_obs.store.months import BIG_TABLES, MonthsOnDemand
from taskpilot_obs.store.rows import LLM_COLUMNS, Row, Rows, named_in
from taskpilot_obs.store.tables import (
    AGENT_RUNS,
    FEEDBACK,
    LLM_CALLS,
    LLM_SERIES,
    SUMMARY_WORK,
    VIOLATIONS,
    columns_of,
    from_microseconds,
)
from taskpilot_obs.store.verdicts import revised

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.engine import Store

HOUR_US: Final = 3_600_000_000
_MOMENT: Final = itemgetter(LLM_COLUMNS.index("created_at"))
"""When a call or a run ended: the first column of both."""
_NAMES: Final = ("provider", "model_name", "agent")
_SERIES: Final = itemgetter(*map(LLM_COLUMNS.index, _NAMES))

_MAX_SERIES: Final = 20_000
"""How many numbers are remembered, unless one batch has more."""
Series = tuple[str | None, str | None, str | None]
"""Provider, model and agent of a row, which may lack any of them."""


class Writer:
    """Writes to one store. Not safe for threads; a fork needs a new one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clickhouse = ClickHouseWriter(store) if store.is_clickhouse else None
        self._series: dict[Series, int] = {}
        self._inserts: tuple[_Insert, ...] | None = None
        self._codec: str | None = None
        self._generation = store.generation
        self._months = MonthsOnDemand(store) if store.engine.dialect.name == "postgresql" else None

    def write(self, rows: Rows) -> None:
        """Write the rows of a batch, all or none; those that the store has already stay as they are.

        Raises:
            StoreError: the database failed; `StoreUnavailableError` where it may work later.
        """
        if self._clickhouse is not None:
            self._clickhouse.write(rows)
            return
        if not (self._has_written(rows) or self._has_written(rows)):
            raise StoreUnavailableError(f"the telemetry store {self._store} changes the numbers of its series")

    def _has_written(self, rows: Rows) -> bool:
        """Write the rows, unless what was learned of the store turns out to be void: a second try learns it again."""
        inserts = self._learned()
        if self._codec is not None:
            rows = Rows(*([_in_codec(row, self._codec) for row in part] for part in rows))
        keys = [*map(_SERIES, rows.llm_calls)]
        series = dict.fromkeys(keys)
        self._number(series)
        if self._store.generation != self._generation:  # the file was replaced at this very moment
            return False
        calls = [(self._series[key], *row) for key, row in zip(keys, rows.llm_calls, strict=True)]
        hours = _hours(rows.llm_calls)
        if self._months is not None:
            for table, starts in zip(BIG_TABLES, (hours, _hours(rows.runs)), strict=True):
                self._months.cover(table, map(from_microseconds, starts))
        with self._store.writing() as connection:
            if self._store.may_fail_over and not self._are_numbered(connection, series):
                self._series.clear()
                return False
            parts = (calls, rows.runs, revised(connection, rows.feedback), rows.violations)
            for into, part in zip(inserts, parts, strict=True):
                into(connection, part)
            if hours:
                mark_changed(connection, "hourly", [*map(from_microseconds, sorted(hours))])
        return True

    def _are_numbered(self, connection: Connection, keys: Collection[Series]) -> bool:
        """Whether these series still have the numbers that were learned.

        A replica that lagged when it took over, or a restored backup, may lack the latest series, and give their
        numbers to others, also to another series of this batch. Behind a pooler no connection breaks then, so that
        each batch looks.
        """
        if not keys:
            return True
        columns = (LLM_SERIES.c.series_id, *(LLM_SERIES.c[column] for column in _NAMES))
        numbers = {self._series[key] for key in keys}
        found = connection.execute(select(*columns).where(LLM_SERIES.c.series_id.in_(numbers)))
        names = {row[0]: tuple(row[1:]) for row in found}
        return all(names.get(self._series[key]) == _names(key) for key in keys)

    def _learned(self) -> tuple[_Insert, ...]:
        """What the database is like: asked once, and again where its file was replaced."""
        if self._inserts is None or self._store.generation != self._generation:
            self._generation = self._store.generation
            self._series.clear()
            version = self._store.known_version
            with self._store.reading() as connection:
                is_sqlite = self._store.is_sqlite
                kind: type[_Insert] = _SqliteInsert if is_sqlite else _CopyInsert
                if not is_sqlite:
                    self._codec = on_postgresql.codec_of(on_postgresql.server_encoding(connection))
                    if not on_postgresql.may_use_temporary_tables(connection):
                        kind = _PlainInsert
            self._inserts = tuple(kind(table, version) for table in _TABLES)
        return self._inserts

    def _number(self, keys: Collection[Series]) -> None:
        """Learn the numbers of series, in a transaction of their own: a number that is rolled back must not be kept."""
        new = [key for key in keys if key not in self._series]
        if not new:
            return
        if len(self._series) + len(new) > _MAX_SERIES:  # agents and models may be named at run time
            self._series.clear()
            new = [*keys]
        dialect = sqlite if self._store.is_sqlite else postgresql
        named = {key: _names(key) for key in new}
        numbers: dict[Series, int] = {}
        with self._store.writing() as connection:
            lines = [dict(zip(_NAMES, names, strict=True)) for names in sorted(set(named.values()))]
            connection.execute(dialect.insert(LLM_SERIES).on_conflict_do_nothing(), lines)
            for key, names in named.items():
                found = select(LLM_SERIES.c.series_id).where(
                    *(LLM_SERIES.c[column] == name for column, name in zip(_NAMES, names, strict=True))
                )
                numbers[key] = connection.execute(found).scalar_one()
        self._series.update(numbers)


def _names(key: Series) -> tuple[str, ...]:
    """A series as the table has it: without a name is the empty one."""
    return tuple(name or "" for name in key)


def _hours(rows: Sequence[Row]) -> set[int]:
    """The hours in which they ended."""
    return {moment - moment % HOUR_US for moment in map(_MOMENT, rows)}


def mark_changed(connection: Connection, period: str, starts: Sequence[datetime]) -> None:
    """Note, in the transaction that changes them, which hours or days have to be summed up (again).

    The lock on a line that is there already keeps it from being claimed before this transaction has ended.
    """
    work = SUMMARY_WORK.c
    lines = select(func.min(work.work_id)).where(
        work.period == period, work.period_start.in_(starts), work.claimed.is_(False)
    )
    one_each = lines.group_by(work.period_start)
    open_lines = select(work.period_start).where(work.work_id.in_(one_each)).order_by(work.work_id)
    known = set(connection.execute(open_lines.with_for_update(read=True)).scalars())
    new = [{"period": period, "period_start": start, "claimed": False} for start in starts if start not in known]
    if new:
        connection.execute(insert(SUMMARY_WORK), new)


def _in_codec(row: Row, codec: str) -> Row:
    """The row with names that the encoding of the database can hold."""
    return tuple(named_in(codec, value) if isinstance(value, str) else value for value in row)


class _Insert(ABC):
    """Adds rows to a table, and leaves alone those that are there already.

    Args:
        table: where to.
        version: of the tables; columns that they lack are left out.
    """

    def __init__(self, table: Table, version: str) -> None:
        columns = columns_of(table, version)
        every = tuple(column.name for column in table.columns)
        self._fit = None if columns == every else itemgetter(*map(every.index, columns))
        self._time = columns.index("created_at")
        self._prepare(table.name, columns)

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Add the rows."""
        if rows:
            self._add(connection, rows if self._fit is None else [*map(self._fit, rows)])

    def _with_time(self, row: Row) -> list[Any]:
        values: list[Any] = list(row)
        values[self._time] = from_microseconds(values[self._time])
        return values

    @abstractmethod
    def _prepare(self, table: str, columns: tuple[str, ...]) -> None: ...

    @abstractmethod
    def _add(self, connection: Connection, rows: Sequence[Row]) -> None: ...


class _SqliteInsert(_Insert):
    """One by one, through a prepared statement."""

    def _prepare(self, table: str, columns: tuple[str, ...]) -> None:
        self._sql = _insert_values(table, columns, "?")

    def _add(self, connection: Connection, rows: Sequence[Row]) -> None:
        connection.exec_driver_sql(self._sql, list(rows))


class _PlainInsert(_Insert):
    """For a PostgreSQL role without the right to make temporary tables."""

    def _prepare(self, table: str, columns: tuple[str, ...]) -> None:
        self._sql = _insert_values(table, columns, "%s")

    def _add(self, connection: Connection, rows: Sequence[Row]) -> None:
        connection.exec_driver_sql(self._sql, [tuple(self._with_time(row)) for row in rows])


class _CopyInsert(_Insert):
    """A COPY into a temporary table, and from there: four times as fast as INSERTs.

    The table lasts for one transaction, because behind a pooler another client may get the connection next.
    """

    def _prepare(self, table: str, columns: tuple[str, ...]) -> None:
        names, batch = ", ".join(columns), f"taskpilot_obs_batch_{table}"
        some = f"SELECT {names} FROM"
        self._batch = batch
        self._lasting = f"CREATE TEMPORARY TABLE IF NOT EXISTS {batch} ON COMMIT DELETE ROWS AS {some} {table} LIMIT 0"
        self._passing = f"CREATE TEMPORARY TABLE {batch} ON COMMIT DROP AS {some} {table} LIMIT 0"
        self._copy = f"COPY {batch} ({names}) FROM STDIN"
        self._sql = f"INSERT INTO {table} ({names}) {some} {batch} ON CONFLICT DO NOTHING"

    def _add(self, connection: Connection, rows: Sequence[Row]) -> None:
        cursor: Any = connection.connection.cursor()
        cursor.execute(self._passing if on_postgresql.behind_pooler(connection) else self._lasting)
        with cursor.copy(self._copy) as copy:
            for row in rows:
                copy.write_row(self._with_time(row))
        cursor.execute(self._sql)
        cursor.close()


def _insert_values(table: str, columns: tuple[str, ...], place: str) -> str:
    places = ", ".join([place] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608  our names


_TABLES: Final = (LLM_CALLS, AGENT_RUNS, FEEDBACK, VIOLATIONS)
"""In the order of `Rows`."""
