"""Retention and erasure in ClickHouse, where the server deletes: by a TTL, or by rewriting the parts that hold rows."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Table

_TTL: Final = re.compile(r" TTL toDateTime\(\w+\) \+ toIntervalSecond\((\d+)\)")


def lifetime_of(connection: Connection, table: str) -> timedelta | None:
    """After how long the server deletes the rows of a table; None: never."""
    asked = text(
        "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = :name SETTINGS final = 0"
    )
    found = _TTL.search(str(connection.execute(asked, {"name": table}).scalar() or ""))
    return None if found is None else timedelta(seconds=int(found[1]))


def keep_for(connection: Connection, table: str, moment: str, age: timedelta) -> None:
    """Have the server delete rows that are older, now and from now on.

    Args:
        connection: one that writes.
        table: whose rows.
        moment: the column that tells how old a row is.
        age: how long rows are kept, down to the second.
    """
    seconds = int(age.total_seconds())
    if lifetime_of(connection, table) != timedelta(seconds=seconds):
        connection.execute(text(f"ALTER TABLE {table} MODIFY TTL toDateTime({moment}) + toIntervalSecond({seconds})"))


def erase_rows(connection: Connection, table: Table, column: str, value: str) -> int:
    """Rewrite the parts of a table without the rows that have this value, and wait for it; how many there were."""
    whose: ColumnElement[bool] = table.c[column] == value
    found = int(connection.execute(select(func.count()).select_from(table).where(whose)).scalar_one())
    if found:
        connection.execute(text(f"ALTER TABLE {table.name} DELETE WHERE {column} = :value"), {"value": value})
    return found


def erase_from(connection: Connection, tables: Sequence[Table], column: str, value: str) -> dict[str, int]:
    """`erase_rows` for every table that has the column: how many rows of each were erased."""
    return {table.name: erase_rows(connection, table, column, value) for table in tables if column in table.c}
