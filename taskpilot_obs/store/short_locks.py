"""Changes PostgreSQL's tables without long waits: a lock that is not free is tried again later.

A statement that waits for a lock makes every later one wait behind it, so each try waits only briefly.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import text

from taskpilot_obs.exceptions import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from taskpilot_obs.store.opened import OpenStore

T = TypeVar("T")

LOCK_MS: Final = 25
"""How long one try waits for a lock; writers wait as long, plus the time that the change itself takes."""
_PAUSE_S: Final = 0.2
_POLL_S: Final = 0.02
_NOT_FREE: Final = frozenset({"55P03", "40P01"})
"""PostgreSQL's codes for a lock that was not free in time, and for a deadlock."""
_OPEN: Final = text(
    "SELECT held.virtualxid FROM pg_locks AS held JOIN pg_stat_activity AS session ON session.pid = held.pid "
    "WHERE held.locktype = 'virtualxid' AND held.mode = 'ExclusiveLock' AND held.pid <> pg_backend_pid() "
    "AND session.datname = current_database() AND session.usesysid IS NOT NULL"
)
"""Open transactions of users in this database. Autovacuum has no user, and only few roles see what it does."""


class BusyError(StoreUnavailableError):
    """Others held the locks that a change needs for as long as it was tried."""


def briefly(store: OpenStore, change: Callable[[Connection], T], *, within_s: float) -> T:
    """Make a change in one transaction, and retry until its locks are free.

    Args:
        store: on PostgreSQL.
        change: makes the change; it must have no effect outside of the transaction.
        within_s: how long to try.

    Raises:
        BusyError: the locks were not free in time; nothing was changed.
        StoreError: the database failed.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            with store.writing() as connection:
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_MS}ms'"))
                return change(connection)
        except StoreUnavailableError as error:
            if not _is_not_free(error):
                raise
            if time.monotonic() > deadline:
                raise BusyError(f"the tables of the telemetry store {store} are in use: try again later") from error
        time.sleep(random.uniform(0.5, 1.0) * _PAUSE_S)  # noqa: S311  spreads tries out, keeps no secret


def wait_for_older(store: OpenStore, *, within_s: float) -> None:
    """Wait until every transaction that is open now has ended, so that none reads an older state.

    Raises:
        BusyError: one of them stayed open for too long.
        StoreError: the database failed.
    """
    deadline = time.monotonic() + within_s
    older = _open_transactions(store)
    while older := older & _open_transactions(store):
        if time.monotonic() > deadline:
            raise BusyError(f"{len(older)} transactions in the telemetry store {store} stay open: try again later")
        time.sleep(_POLL_S)


def _open_transactions(store: OpenStore) -> set[str]:
    with store.reading() as connection:
        return set(connection.execute(_OPEN).scalars())


def _is_not_free(error: StoreUnavailableError) -> bool:
    original = getattr(error.__cause__, "orig", None)
    return getattr(original, "sqlstate", None) in _NOT_FREE
