"""Converts PostgreSQL's big tables to monthly partitions while other processes read and write them.

It fills a partitioned copy beside each table: triggers repeat every change in the copy (see `mirror`), and old rows are
copied in batches, oldest first. When both are equal and every transaction that began before has ended, the copy
replaces the table in one transaction of some milliseconds. Every step is committed, so the next run resumes an
interrupted one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, select, text
from sqlalchemy.dialects import postgresql

from taskpilot_obs.exceptions import ConfigurationError, StoreError
from taskpilot_obs.store import mirror as mirrors
from taskpilot_obs.store import on_postgresql, table_swap
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.marks import server_clock
from taskpilot_obs.store.months import (
    AHEAD,
    BIG_TABLES,
    COPY_MARK,
    add_months,
    become_owner,
    copy_name,
    floor_month,
    is_being_rebuilt,
    is_usual,
    key_of,
    layout_of,
    make_ahead,
    months_with_rows,
    piece_name,
    range_of,
)
from taskpilot_obs.store.short_locks import briefly, wait_for_older
from taskpilot_obs.store.tables import STATE

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Table

    from taskpilot_obs.store.engine import Store

_WITHIN_S: Final = 600.0
"""How long to wait for a lock, or for open transactions to end; the next run resumes."""
_FIRST_ROWS: Final = 500
_MOST_ROWS: Final = 20_000
_TARGET_S: Final = 0.1
"""How long a batch should take: deletions wait for it, other writers do not."""
_COPIED: Final = "copied_before:"


def partition(*, store: str | Store | None = None) -> dict[str, int]:
    """Convert the tables of calls and runs to monthly partitions; does nothing to tables that have them.

    Reading and writing continue, and answers stay the same. It needs as much free disk space as the tables take, and
    some minutes for ten million rows. The next call resumes an interrupted one.

    Args:
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.

    Returns:
        How many monthly partitions each table has.

    Raises:
        ConfigurationError: the store is not in PostgreSQL, or none is named.
        StoreError: the store cannot be used, this role does not own the tables, or they have something that a table
            with partitions cannot keep; `BusyError` where others kept them busy for ten minutes.
    """
    with opened(store) as opened_store:
        _require_postgresql(opened_store)
        opened_store.require_current()
        for table in BIG_TABLES:
            if _is_needed(opened_store, table):
                _rebuild(opened_store, table)
        make_ahead(opened_store)
        with opened_store.reading() as connection:
            layouts = {table.name: layout_of(connection, table) for table in BIG_TABLES}
    return {name: len(layout.pieces) for name, layout in layouts.items() if layout is not None}


def abandon(*, store: str | Store | None = None) -> None:
    """Undo an interrupted `partition`: drop the copies and the triggers that fill them.

    Raises:
        ConfigurationError: the store is not in PostgreSQL, or none is named.
        StoreError: the store cannot be used, or this role does not own the tables.
    """
    with opened(store) as opened_store:
        _require_postgresql(opened_store)
        for table in BIG_TABLES:
            _abandon(opened_store, table)


def _require_postgresql(store: Store) -> None:
    if store.engine.dialect.name != "postgresql":
        raise ConfigurationError("partition: monthly partitions are for PostgreSQL alone")


def _abandon(store: Store, table: Table) -> None:
    def drop(connection: Connection) -> None:
        become_owner(connection, table)
        connection.execute(text(f"LOCK TABLE ONLY {table.name} IN ACCESS EXCLUSIVE MODE"))
        if is_being_rebuilt(connection, table):
            mirrors.remove(connection, mirrors.mirror_of(connection, table))

    briefly(store, drop, within_s=_WITHIN_S)
    _forget_mark(store, table)


def _is_needed(store: Store, table: Table) -> bool:
    """Whether the table has no partitions, or too many rows in the default one to create more."""
    with store.reading() as connection:
        layout = layout_of(connection, table)
        if layout is None or is_being_rebuilt(connection, table):
            return True
    make_ahead(store)
    with store.reading() as connection:
        present = server_clock(connection)
        layout = layout_of(connection, table)
        months = (month for month in months_with_rows(connection, table) if is_usual(month, present))
        return layout is not None and not all(map(layout.covers, months))


def _rebuild(store: Store, table: Table) -> None:
    if _is_outdated(store, table):
        _abandon(store, table)
    with store.writing() as connection:
        on_postgresql.lock_upgrades(connection)
        table_swap.check(connection, table)
        become_owner(connection, table)
        if not is_being_rebuilt(connection, table):
            connection.execute(delete(STATE).where(STATE.c.key == _COPIED + table.name))
            _draw(connection, table)
    briefly(store, lambda connection: _begin(connection, table), within_s=_WITHIN_S)
    _copy_all(store, table)
    _check_equal(store, table)
    # A snapshot from before a row was copied would miss the row.
    wait_for_older(store, within_s=_WITHIN_S)
    briefly(store, lambda connection: _take_over(connection, table), within_s=_WITHIN_S)


def _is_outdated(store: Store, table: Table) -> bool:
    """Whether there is a copy whose columns differ from the table's, as after an upgrade."""
    with store.reading() as connection:
        if not is_being_rebuilt(connection, table):
            return False
        return not table_swap.has_equal_columns(connection, mirrors.mirror_of(connection, table))


def _draw(connection: Connection, table: Table) -> None:
    """Create the copy with the partitions that the rows need, but without rows."""
    copy, present = copy_name(table), server_clock(connection)
    months = {add_months(floor_month(present), n) for n in range(AHEAD + 1)}
    months |= {month for month in months_with_rows(connection, table) if is_usual(month, present)}
    _run(
        connection,
        f"CREATE TABLE {copy} (LIKE {table.name} INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (created_at)",
        f"COMMENT ON TABLE {copy} IS '{COPY_MARK}'",
        *table_swap.indexes_of_copy(connection, table),
    )
    for month in (None, *sorted(months)):
        name = piece_name(connection, table, month)
        part = "DEFAULT" if month is None else f"FOR VALUES {range_of(month)}"
        _run(
            connection,
            f"CREATE TABLE {name} PARTITION OF {copy} {part}",
            f"ALTER TABLE {name} ADD PRIMARY KEY ({key_of(table)})",
        )


def _run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement.replace("%", "%%"))


def _begin(connection: Connection, table: Table) -> None:
    become_owner(connection, table)
    connection.execute(text(f"LOCK TABLE ONLY {table.name} IN SHARE ROW EXCLUSIVE MODE"))
    mirror = mirrors.mirror_of(connection, table)
    if is_being_rebuilt(connection, table) and not mirrors.is_installed(connection, mirror):
        mirrors.install(connection, mirror)


# --- copying ---------------------------------------------------------------------------------------------------------


def _copy_all(store: Store, table: Table) -> None:
    rows, is_done = _FIRST_ROWS, False
    while not is_done:
        began = time.perf_counter()
        with store.writing() as connection:
            is_done = _copy_some(connection, table, rows)
        took = time.perf_counter() - began
        rows = max(_FIRST_ROWS // 4, min(_MOST_ROWS, 2 * rows, int(rows * _TARGET_S / max(took, 1e-4))))
        time.sleep(took / 4)  # leaves time for other users of the database


def _copy_some(connection: Connection, table: Table, rows: int) -> bool:
    """Copy the next rows; True if they were the last."""
    mirrors.take_turn(connection)
    if not _has_copy(connection, table):
        return True
    mirror, mark = mirrors.mirror_of(connection, table), _mark(connection, table)
    moment = table.c.created_at
    left = select(moment) if mark is None else select(moment).where(moment > mark)
    next_rows = left.order_by(moment).offset(rows - 1).limit(1)
    last: datetime | None = connection.execute(next_rows).scalar_one_or_none()
    bounds = {"created_at > :mark": mark, "created_at <= :last": last}
    where = " AND ".join(condition for condition, moment in bounds.items() if moment is not None) or "true"
    connection.execute(
        text(
            f"INSERT INTO {mirror.copy} ({mirror.columns}) SELECT {mirror.columns} FROM {mirror.table} "  # noqa: S608  our names
            f"WHERE {where} ON CONFLICT DO NOTHING"
        ),
        {name: moment for name, moment in (("mark", mark), ("last", last)) if moment is not None},
    )
    if last is not None:
        put: Any = postgresql.insert(STATE).values(key=_COPIED + table.name, value=last)
        connection.execute(put.on_conflict_do_update(index_elements=[STATE.c.key], set_={"value": last}))
    return last is None


def _has_copy(connection: Connection, table: Table) -> bool:
    """Whether there is a copy, locked from now to the transaction's end; another process may have replaced it."""
    connection.execute(text(f"LOCK TABLE ONLY {table.name} IN ACCESS SHARE MODE"))
    return is_being_rebuilt(connection, table)


def _mark(connection: Connection, table: Table) -> datetime | None:
    """Note the time up to which rows are copied."""
    query = select(STATE.c.value).where(STATE.c.key == _COPIED + table.name)
    found: datetime | None = connection.execute(query).scalar_one_or_none()
    return found


def _check_equal(store: Store, table: Table) -> None:
    with store.reading() as connection:
        if not _has_copy(connection, table):
            return
        is_equal = mirrors.is_equal(connection, mirrors.mirror_of(connection, table))
    if is_equal:
        with store.writing() as connection:  # or the first questions would be planned without statistics
            if _has_copy(connection, table):
                connection.execute(text(f"ANALYZE {copy_name(table)}"))
    else:
        _abandon(store, table)
        raise StoreError(
            f"the copy of {table.name} in the telemetry store {store} differs from the table, as after a TRUNCATE or a "
            "change of its columns: it was dropped, and nothing was changed; start again"
        )


def _take_over(connection: Connection, table: Table) -> None:
    become_owner(connection, table)
    connection.execute(text(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE"))
    if not is_being_rebuilt(connection, table):
        return
    table_swap.swap(connection, table, mirrors.mirror_of(connection, table))
    connection.execute(delete(STATE).where(STATE.c.key == _COPIED + table.name))


def _forget_mark(store: Store, table: Table) -> None:
    with store.writing() as connection:
        connection.execute(delete(STATE).where(STATE.c.key == _COPIED + table.name))
