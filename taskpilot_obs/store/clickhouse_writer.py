"""Writing batches of rows to ClickHouse: one request a table, and nothing is counted twice when it is repeated."""

from __future__ import annotations

import json
from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from taskpilot_obs.store.clickhouse_tables import ROW_TABLES
from taskpilot_obs.store.on_clickhouse import client_of
from taskpilot_obs.store.rows import LLM_COLUMNS, Row, Rows
from taskpilot_obs.store.tables import LLM_SERIES, from_microseconds
from taskpilot_obs.store.verdicts import revised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.engine import Store

_FORMAT: Final = "JSONCompactEachRow"
_SERIES: Final = itemgetter(*map(LLM_COLUMNS.index, ("provider", "model_name", "agent")))
_encode: Final[Callable[[Any], str]] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class ClickHouseWriter:
    """Writes to one store. Not safe for threads; a fork needs a new one.

    A batch is several requests, and no transaction: where one fails, the whole batch is written again, and the rows
    that are there already replace themselves.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._series: dict[tuple[str, ...], int] = {}
        self._inserts = tuple(_ClickHouseInsert(table) for table in ROW_TABLES)

    def write(self, rows: Rows) -> None:
        """Write the rows of a batch; those that the store has already stay as they are.

        Raises:
            StoreError: the database failed; `StoreUnavailableError` where it may work later.
        """
        with self._store.writing() as connection:
            names = [tuple(name or "" for name in _SERIES(row)) for row in rows.llm_calls]
            self._name_series(connection, set(names))
            calls = [(self._series[key], *row) for key, row in zip(names, rows.llm_calls, strict=True)]
            parts = (calls, rows.runs, revised(connection, rows.feedback), rows.violations)
            for into, part in zip(self._inserts, parts, strict=True):
                into(connection, part)

    def _name_series(self, connection: Connection, keys: set[tuple[str, ...]]) -> None:
        """Add the names that the store lacks: a restored backup, or a replica that took over, may lack some again."""
        if not keys:
            return
        self._series.update({key: _digest(key) for key in keys - self._series.keys()})
        number = LLM_SERIES.c.series_id
        asked = select(number).where(number.in_([self._series[key] for key in keys]))
        there = set(connection.execute(asked).scalars())
        lines = [(self._series[key], *key) for key in sorted(keys) if self._series[key] not in there]
        if lines:
            _send(connection, LLM_SERIES.name, LLM_SERIES.columns.keys(), map(_encode, lines))


def _digest(key: tuple[str, ...]) -> int:
    """A number for a combination of names, which every process finds by itself."""
    digest = blake2b("\0".join(key).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class _ClickHouseInsert:
    """Adds rows to a table, in which money is one column."""

    def __init__(self, table: Table) -> None:
        names = [column.name for column in table.columns]
        self._table = table.name
        self._time = names.index("created_at")
        self._money = names.index("cost_nano") if "cost_nano" in names else None
        self._columns = [name for name in names if name != "cost_rest"]
        if self._money is not None:
            self._columns[self._money] = "cost"

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Add the rows, in one request."""
        if rows:
            _send(connection, self._table, self._columns, map(self._line, rows))

    def _line(self, row: Row) -> str:
        values: list[Any] = list(row)
        values[self._time] = _moment(values[self._time])
        if self._money is not None:
            nano, rest = values[self._money : self._money + 2]
            values[self._money : self._money + 2] = [None if nano is None else _amount(nano, rest or 0)]
        return _encode(values)


def _moment(microseconds: int) -> str:
    """A moment as the server reads it from text, exactly; before 1970 as a date, because it reads no minus there."""
    if microseconds < 0:
        return f"{from_microseconds(microseconds):%Y-%m-%d %H:%M:%S.%f}"
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{seconds}.{rest:06}"


def _amount(nano: int, rest: int) -> str:
    """Nano-dollars and the pico-dollars beyond as a decimal number."""
    pico = nano * 1_000 + rest
    whole, fraction = divmod(abs(pico), 10**12)
    return f"{'-' if pico < 0 else ''}{whole}.{fraction:012}"


def _send(connection: Connection, table: str, columns: Sequence[str], lines: Any) -> None:
    body = "\n".join(lines).encode("utf-8", "replace")
    client_of(connection).raw_insert(table, list(columns), body, fmt=_FORMAT)
