"""Retention and erasure in ClickHouse, where the server deletes: by a TTL, or by rewriting the parts that hold rows."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text

from taskpilot_obs.exceptions import StoreUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

_TTL: Final = re.compile(r" TTL toDateTime\(\w+\) \+ toIntervalSecond\((\d+)\)")
_AT_ONCE: Final = "SETTINGS mutations_sync = 0"
"""The server answers at once: to rewrite a large table takes longer than any answer is waited for."""
PATIENCE_S: Final = 3_600.0


def lifetime_of(connection: Connection, table: str) -> timedelta | None:
    """After how long the server deletes the rows of a table; None: never."""
    asked = text(
        "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = :name SETTINGS final = 0"
    )
    found = _TTL.search(str(connection.execute(asked, {"name": table}).scalar() or ""))
    return None if found is None else timedelta(seconds=int(found[1]))


def keep_for(connection: Connection, table: str, moment: str, age: timedelta) -> None:
    """Have the server delete rows that are older, from now on; it begins now, and this does not wait for it.

    Args:
        connection: one that writes.
        table: whose rows.
        moment: the column that tells how old a row is.
        age: how long rows are kept, down to the second.
    """
    seconds = int(age.total_seconds())
    if lifetime_of(connection, table) != timedelta(seconds=seconds):
        kept = f"toDateTime({moment}) + toIntervalSecond({seconds})"
        connection.execute(text(f"ALTER TABLE {table} MODIFY TTL {kept} {_AT_ONCE}"))


def erase_rows(connection: Connection, table: Table, column: str, value: str) -> int:
    """Rewrite the parts of a table without the rows that have this value, and wait for it; how many there were."""
    whose: ColumnElement[bool] = table.c[column] == value
    found = int(connection.execute(select(func.count()).select_from(table).where(whose)).scalar_one())
    if found:
        statement = f"ALTER TABLE {table.name} DELETE WHERE {column} = :value {_AT_ONCE}"
        connection.execute(text(statement), {"value": value})
        _wait(connection, table.name)
    return found


def _wait(connection: Connection, table: str) -> None:
    """Wait until the server has done what it has to do to a table now.

    Raises:
        StoreUnavailableError: it takes over an hour, or cannot be done at the moment; the server goes on trying.
    """
    give_up, pause = time.monotonic() + PATIENCE_S, 0.02
    started = {name for name, _ in _open_mutations(connection, table)}
    while still := [failure for name, failure in _open_mutations(connection, table) if name in started]:
        if any(still) or time.monotonic() > give_up:
            cause = "cannot finish" if any(still) else f"has not finished in {PATIENCE_S / 60:.0f} min"
            raise StoreUnavailableError(
                f"the server {cause} a deletion in {table}, and goes on trying: look into system.mutations"
            )
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _open_mutations(connection: Connection, table: str) -> list[tuple[str, str]]:
    """Those that are not done: name and latest failure."""
    asked = text(
        "SELECT mutation_id, latest_fail_reason FROM system.mutations "
        "WHERE database = currentDatabase() AND table = :name AND NOT is_done SETTINGS final = 0"
    )
    return [(row[0], row[1]) for row in connection.execute(asked, {"name": table})]
