"""Writing batches of rows to ClickHouse: one request a table, and nothing is counted twice when it is repeated."""

from __future__ import annotations

from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from taskpilot_obs.store.clickhouse_columns import Columns
from taskpilot_obs.store.clickhouse_tables import ROW_TABLES
from taskpilot_obs.store.on_clickhouse import insert_block
from taskpilot_obs.store.rows import LLM_COLUMNS, Row, Rows
from taskpilot_obs.store.tables import LLM_SERIES
from taskpilot_obs.store.verdicts import revised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.engine import Store

_Key = tuple[str | None, ...]
"""Provider, model and agent of a row, which may lack any of them."""
_SERIES: Final = itemgetter(*map(LLM_COLUMNS.index, ("provider", "model_name", "agent")))


class ClickHouseWriter:
    """Writes to one store. Not safe for threads; a fork needs a new one.

    A batch is several requests, and no transaction: where one fails, the whole batch is written again, and the rows
    that are there already replace themselves.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._inserts = tuple(_ClickHouseInsert(table) for table in ROW_TABLES)
        self._insert_series = _ClickHouseInsert(LLM_SERIES)

    def write(self, rows: Rows) -> None:
        """Write the rows of a batch; those that the store has already stay as they are.

        Raises:
            StoreError: the database failed; `StoreUnavailableError` where it may work later.
        """
        with self._store.writing() as connection:
            keys = [*map(_SERIES, rows.llm_calls)]
            numbers = {key: _digest(_names(key)) for key in set(keys)}
            self._name_series(connection, numbers)
            series = [numbers[key] for key in keys]
            insert_calls, *inserts = self._inserts
            insert_calls(connection, rows.llm_calls, series)
            parts = (rows.runs, revised(connection, rows.feedback), rows.violations)
            for into, part in zip(inserts, parts, strict=True):
                into(connection, part)

    def _name_series(self, connection: Connection, numbers: Mapping[_Key, int]) -> None:
        """Add the names that the store lacks: a restored backup, or a replica that took over, may lack some again."""
        if not numbers:
            return
        series_id = LLM_SERIES.c.series_id
        asked = select(series_id).where(series_id.in_(set(numbers.values())))
        there = set(connection.execute(asked).scalars())
        lines: set[Row] = {(number, *_names(key)) for key, number in numbers.items() if number not in there}
        self._insert_series(connection, sorted(lines))


def _names(key: _Key) -> tuple[str, ...]:
    """A series as the table has it: without a name is the empty one."""
    return tuple(name or "" for name in key)


def _digest(names: tuple[str, ...]) -> int:
    """A number for a combination of names, which every process finds by itself."""
    digest = blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class _ClickHouseInsert:
    """Adds rows to a table."""

    def __init__(self, table: Table) -> None:
        self._table = table.name
        self._columns = Columns(table)

    def __call__(self, connection: Connection, rows: Sequence[Row], *ahead: Sequence[int]) -> None:
        """Add the rows, in one request; with the first columns of the table, where the rows lack them."""
        if rows:
            insert_block(connection, self._table, self._columns.block(rows, *ahead))
