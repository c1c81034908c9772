"""What differs between the tables in a database and those that this code expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from taskpilot_obs.store import clickhouse_tables
from taskpilot_obs.store.index_builds import invalid_indexes
from taskpilot_obs.store.ledger_tables import ALL_TABLES
from taskpilot_obs.store.months import layout_of
from taskpilot_obs.store.tables import SQLITE_SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Inspector, Table
    from sqlalchemy.types import TypeEngine

    from taskpilot_obs.store.engine import Store


def differences(store: Store) -> list[str]:
    """Every difference in tables, columns, types, NULLs, primary and unique keys, and indexes; empty is right.

    Tables of other applications, and columns and indexes that were added, are left out.

    Raises:
        StoreError: the database failed.
    """
    schema = store.target.schema
    with store.reading() as connection:
        if store.is_clickhouse:
            return list(clickhouse_tables.differences_of(connection))
        found = inspect(connection)
        return [
            f"{table.name}: {difference}"
            for table in ALL_TABLES
            for difference in _of_table(connection, found, table, schema)
        ]


def _of_table(connection: Connection, found: Inspector, table: Table, schema: str | None) -> Iterator[str]:
    if not found.has_table(table.name, schema=schema):
        yield "the table is missing"
        return
    columns = {column["name"]: column for column in found.get_columns(table.name, schema=schema)}
    for column in table.columns:
        there = columns.get(column.name)
        if there is None:
            yield f"the column {column.name} is missing"
            continue
        wanted, actual = _kind(column.type, connection), _kind(there["type"], connection)
        if wanted != actual:
            yield f"the column {column.name} is {actual}, and should be {wanted}"
        if there["nullable"] and not column.nullable:
            yield f"the column {column.name} allows NULL"
        if not there["nullable"] and column.nullable:
            yield f"the column {column.name} does not allow NULL"
    yield from _of_keys(connection, found, table, schema)
    yield from _of_indexes(connection, found, table, schema)


def _of_keys(connection: Connection, found: Inspector, table: Table, schema: str | None) -> Iterator[str]:
    """Of a table with partitions, each has a key, and the whole has none."""
    layout = layout_of(connection, table)
    wanted = [column.name for column in table.primary_key]
    for name in (table.name,) if layout is None else layout.names:
        key = found.get_pk_constraint(name, schema=schema)["constrained_columns"]
        told = [column for column in key if column != "created_at" or column in wanted]  # a hypertable adds its time
        if told != wanted:
            which = "" if name == table.name else f" of the partition {name}"
            yield f"the primary key{which} is ({', '.join(key)}), and should be ({', '.join(wanted)})"
    if layout is not None and layout.rest is None:
        yield "there is no default partition, which takes records of months without one"


def _of_indexes(connection: Connection, found: Inspector, table: Table, schema: str | None) -> Iterator[str]:
    invalid = set() if connection.dialect.name == "sqlite" else invalid_indexes(connection, schema)
    indexes: dict[Any, Any] = {index["name"]: index for index in found.get_indexes(table.name, schema=schema)}
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        if index.name == SQLITE_SUMS and connection.dialect.name != "sqlite":
            continue
        there = indexes.get(index.name)
        wanted = [column.name for column in index.columns]
        if there is None:
            yield f"the index {index.name} is missing"
        elif index.name in invalid:
            yield f"the index {index.name} is not complete: its build was interrupted"
        elif there["column_names"] != wanted or bool(there["unique"]) != bool(index.unique):
            unique = "unique " if there["unique"] else ""
            columns = ", ".join(str(name) for name in there["column_names"])
            yield f"the index {index.name} is {unique}({columns}), and should be ({', '.join(wanted)})"


_SAME = {"DOUBLE_PRECISION": "FLOAT", "DOUBLE PRECISION": "FLOAT", "REAL": "FLOAT", "BIGINT": "BIGINT"}


def _kind(kind: TypeEngine[Any], connection: Connection) -> str:
    """A type in the words of this database, without its length."""
    words = kind.compile(connection.dialect).upper().split("(")[0].strip()
    return _SAME.get(words, words)
