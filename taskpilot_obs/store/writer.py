"""Writing batches of rows, each in one transaction, each row once."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from taskpilot_obs.store.rows import FEEDBACK_COLUMNS, LLM_COLUMNS, RUN_COLUMNS, VIOLATION_COLUMNS, Row, Rows
from taskpilot_obs.store.tables import (
    AGENT_RUNS,
    FEEDBACK,
    LLM_CALLS,
    LLM_SERIES,
    SUMMARY_WORK,
    VIOLATIONS,
    from_microseconds,
)
from taskpilot_obs.store.verdicts import revised

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.engine import Store

HOUR_US: Final = 3_600_000_000
_MOMENT: Final = itemgetter(LLM_COLUMNS.index("created_at"))
_NAMES: Final = ("provider", "model_name", "agent")
_SERIES: Final = itemgetter(*map(LLM_COLUMNS.index, _NAMES))

Series = tuple[str | None, str | None, str | None]
"""Provider, model and agent of a row, which may lack any of them."""


class Writer:
    """Writes to one store. Not safe for threads; a fork needs a new one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._series: dict[Series, int] = {}
        columns = ("series_id", *LLM_COLUMNS)
        self._insert_call = _Insert(store, LLM_CALLS, columns)
        self._insert_run = _Insert(store, AGENT_RUNS, RUN_COLUMNS)
        self._insert_feedback = _Insert(store, FEEDBACK, FEEDBACK_COLUMNS)
        self._insert_violation = _Insert(store, VIOLATIONS, VIOLATION_COLUMNS)

    def write(self, rows: Rows) -> None:
        """Write the rows of a batch, all or none; those that the store has already stay as they are.

        Raises:
            StoreError: the database failed; `StoreUnavailableError` where it may work later.
        """
        keys = [*map(_SERIES, rows.llm_calls)]
        self._number(set(keys))
        series = self._series
        calls = [(series[key], *row) for key, row in zip(keys, rows.llm_calls, strict=True)]
        hours = {moment - moment % HOUR_US for moment in map(_MOMENT, rows.llm_calls)}
        with self._store.writing() as connection:
            self._insert_call(connection, calls)
            self._insert_run(connection, rows.runs)
            self._insert_feedback(connection, revised(connection, rows.feedback))
            self._insert_violation(connection, rows.violations)
            if hours:
                mark_changed(connection, "hourly", [*map(from_microseconds, sorted(hours))])

    def _number(self, keys: set[Series]) -> None:
        """Learn the numbers of series, in a transaction of their own: a number that is rolled back must not be kept."""
        new = keys - self._series.keys()
        if not new:
            return
        dialect = sqlite if self._store.is_sqlite else postgresql
        named = {key: tuple(name or "" for name in key) for key in new}
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


class _Insert:
    """The fastest way to add rows and leave alone those that are there already.

    SQLite takes them one by one through a prepared statement. PostgreSQL takes a COPY into a temporary table, which is
    four times as fast as INSERTs, and moves them from there.
    """

    def __init__(self, store: Store, table: Table, columns: tuple[str, ...]) -> None:
        names = ", ".join(columns)
        self._is_sqlite = store.is_sqlite
        self._time = columns.index("created_at")
        if self._is_sqlite:
            source = f"VALUES ({', '.join('?' * len(columns))})"
            self._sql = f"INSERT INTO {table.name} ({names}) {source} ON CONFLICT DO NOTHING"
            return
        batch = f"taskpilot_obs_batch_{table.name}"
        some = f"SELECT {names} FROM"
        self._draw = (
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {batch} ON COMMIT DELETE ROWS AS {some} {table.name} LIMIT 0"
        )
        self._copy = f"COPY {batch} ({names}) FROM STDIN"
        self._sql = f"INSERT INTO {table.name} ({names}) {some} {batch} ON CONFLICT DO NOTHING"

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        if not rows:
            return
        if self._is_sqlite:
            connection.exec_driver_sql(self._sql, list(rows))
            return
        cursor: Any = connection.connection.cursor()
        cursor.execute(self._draw)
        with cursor.copy(self._copy) as copy:
            for row in rows:
                copy.write_row(self._with_time(row))
        cursor.execute(self._sql)
        cursor.close()

    def _with_time(self, row: Row) -> list[Any]:
        values: list[Any] = list(row)
        values[self._time] = from_microseconds(values[self._time])
        return values
