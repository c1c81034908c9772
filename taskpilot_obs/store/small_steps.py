"""Deletions in small transactions, with pauses between them for the writers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from taskpilot_obs.store.engine import Store

_LEAST_S: Final = 1e-4
"""A clock may stand still between two readings."""


class DeletionPace(NamedTuple):
    """How large the transactions are, and how far apart."""

    first_rows: int
    """Of the first transaction; no transaction is smaller than a quarter of it."""
    most_rows: int
    target_s: float
    """How long one transaction should last."""
    pauses: float
    """The pause after a transaction, as a multiple of its time."""

    def next_rows(self, rows: int, took_s: float) -> int:
        """The size of the transaction after one of `rows` that took so long."""
        return max(self.first_rows // 4, min(self.most_rows, int(rows * self.target_s / max(took_s, _LEAST_S))))


def in_small_steps(store: Store, delete_some: Callable[[Connection, int], int], pace: DeletionPace) -> int:
    """Delete until there is nothing left, and return how many rows there were.

    Args:
        store: where the rows are.
        delete_some: deletes this many rows at most in a transaction, and returns how many it found.
        pace: the size of the transactions and the pauses between them.

    Raises:
        StoreError: the database failed; what was deleted before stays deleted.
    """
    deleted, rows = 0, pace.first_rows
    while True:
        started = time.perf_counter()
        with store.writing() as connection:
            gone = delete_some(connection, rows)
        took = time.perf_counter() - started
        deleted += gone
        if gone < rows:
            return deleted
        rows = pace.next_rows(rows, took)
        time.sleep(took * pace.pauses)
