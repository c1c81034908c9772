"""Building the indexes that an upgrade of PostgreSQL adds, without a lock that writers wait for.

`CREATE INDEX` keeps writers out for some seconds a million rows. `CREATE INDEX CONCURRENTLY` does not, but cannot run
in the transaction of the migration, so it runs before; the migration then finds the indexes there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text
from sqlalchemy.schema import CreateIndex

from taskpilot_obs.store import on_postgresql
from taskpilot_obs.store.ledger_tables import ALL_TABLES
from taskpilot_obs.store.months import layout_of
from taskpilot_obs.store.tables import SQLITE_SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Index

    from taskpilot_obs.store.opened import OpenStore

_RETRY_S: Final = 0.1
_INVALID: Final = text(
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE NOT i.indisvalid AND c.relnamespace ="
    " to_regnamespace(coalesce(CAST(:schema AS text), CAST(current_schema() AS text)))"
)


def build_beforehand(store: OpenStore) -> None:
    """Build the indexes that the tables lack and whose columns are there.

    Behind a pooler, which gives each statement another connection, the migration builds them itself.

    Raises:
        StoreError: the database failed, or does not allow it; what was built stays, and the next try goes on.
    """
    with store.mapped(), store.engine.connect() as connection:
        if on_postgresql.behind_pooler(connection):
            return
        connection.execution_options(isolation_level="AUTOCOMMIT")
        missing = list(_missing(connection, store.target.schema))
        if not missing:
            return
        connection.execute(text("SET lock_timeout = 0"))  # it waits for open transactions, and they go on
        try:
            _wait_for_turn(connection)
            for index in _missing(connection, store.target.schema):
                _build(connection, index)
        finally:
            connection.invalidate()  # ends the session, its settings and its lock


def invalid_indexes(connection: Connection, schema: str | None) -> set[str]:
    """Indexes that an interrupted build left behind; no question uses them."""
    return set(connection.execute(_INVALID, {"schema": schema}).scalars())


def _wait_for_turn(connection: Connection) -> None:
    """Take the lock of upgrades. Waiting for it in one statement would hold a snapshot that builds wait for in turn."""
    turn = text("SELECT pg_try_advisory_lock(:lock)")
    while not connection.execute(turn, {"lock": on_postgresql.UPGRADE_LOCK}).scalar_one():
        time.sleep(_RETRY_S)


def _missing(connection: Connection, schema: str | None) -> Iterator[Index]:
    found = inspect(connection)
    invalid = invalid_indexes(connection, schema)
    for table in ALL_TABLES:
        if not found.has_table(table.name, schema=schema):
            continue
        columns = {column["name"] for column in found.get_columns(table.name, schema=schema)}
        there = {index["name"] for index in found.get_indexes(table.name, schema=schema)} - invalid
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            is_wanted = index.name not in there and index.name != SQLITE_SUMS
            if is_wanted and columns.issuperset(column.name for column in index.columns):
                yield index


def _build(connection: Connection, index: Index) -> None:
    statement = str(CreateIndex(index, if_not_exists=True).compile(dialect=connection.dialect))
    table = index.table
    layout = None if table is None else layout_of(connection, table)
    if table is None or layout is None:
        _build_beside(connection, str(index.name), statement)
        return
    for piece in layout.names:  # an index of the whole cannot be built beside writers, and takes on those of its parts
        name = f"{index.name}{piece.removeprefix(table.name)}"
        of_piece = statement.replace(str(index.name), name, 1).replace(f" ON {table.name} ", f" ON {piece} ", 1)
        _build_beside(connection, name, of_piece)
    connection.execute(text(statement))


def _build_beside(connection: Connection, name: str, statement: str) -> None:
    if name in invalid_indexes(connection, None):
        connection.execute(text(f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"'))
    connection.execute(text(statement.replace("INDEX", "INDEX CONCURRENTLY", 1)))
