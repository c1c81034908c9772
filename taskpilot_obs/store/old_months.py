"""Drops the monthly partitions whose records have passed the retention limit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs.exceptions import StoreError
from taskpilot_obs.store.months import is_being_rebuilt, layout_of, named
from taskpilot_obs.store.short_locks import BusyError, briefly, wait_for_older

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.opened import OpenStore

_DROP_WITHIN_S: Final = 60.0


def drop_before(store: OpenStore, table: Table, moment: datetime) -> int:
    """Drop the partitions that end before a time, and return how many rows they had.

    A partition stays if this role does not own the tables, if others keep it busy for a minute, or if an object of
    others, such as a view, needs it.

    Args:
        store: any store; nothing happens on SQLite.
        table: one of the big tables.
        moment: the limit, which the mark of deletion must already state.

    Raises:
        StoreError: the database failed.
    """
    with store.reading() as connection:
        layout = layout_of(connection, table)
        ended = [] if layout is None or not layout.may_change else [p for p in layout.pieces if p.end <= moment]
        if not ended or is_being_rebuilt(connection, table):
            return 0
    dropped = 0
    try:
        # A query with a snapshot from before the mark still expects the partition's rows.
        wait_for_older(store, within_s=_DROP_WITHIN_S)
        for piece in ended:
            dropped += _rows_dropped(store, table, piece.name)
    except BusyError:
        return dropped
    return dropped


def _rows_dropped(store: OpenStore, table: Table, name: str) -> int:
    """Drop a partition; 0 if it stays, for example because a view of others reads it."""
    try:
        with store.reading() as connection:
            rows = connection.execute(select(func.count()).select_from(named(table, name))).scalar_one()
        is_gone = briefly(store, partial(_drop, table=table, name=name), within_s=_DROP_WITHIN_S)
    except BusyError:
        raise
    except StoreError as error:  # its rows are deleted one by one
        what = f"the partition {name} was not dropped, and its rows are deleted one by one: {error}"
        log_failure("store partitions", StoreError(what))
        return 0
    return int(rows) if is_gone else 0


def _drop(connection: Connection, table: Table, name: str) -> bool:
    connection.execute(text(f"LOCK TABLE ONLY {table.name} IN ACCESS EXCLUSIVE MODE"))  # before the partition's
    layout = layout_of(connection, table)
    if layout is None or name not in layout.names or is_being_rebuilt(connection, table):
        return False
    connection.execute(text(f"DROP TABLE {name}"))
    return True
