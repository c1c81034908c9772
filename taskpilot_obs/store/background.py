"""Summing up and pruning in the background of a process that writes to a store."""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING, Final

from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreVersionError
from taskpilot_obs.store.aggregate import aggregate_summaries
from taskpilot_obs.store.retention import prune

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs.store.engine import Store

_SHORTEST_S: Final = 1.0
_PRUNE_EVERY_S: Final = 3_600.0


def checked_interval(every_s: float | None) -> None:
    """Refuse an interval that would keep the database busy.

    Raises:
        ConfigurationError: it is shorter than a second.
    """
    if every_s is not None and not every_s >= _SHORTEST_S:
        raise ConfigurationError(
            f"aggregate_every_s: given {every_s!r}; it must be at least {_SHORTEST_S} seconds, or None"
        )


class Maintenance:
    """One thread a process; several processes may do the same work at the same time without harm.

    Args:
        store: what to look after.
        every_s: pause between two rounds of summing up; None for none.
        retention_days: as in `prune`; None keeps everything.
    """

    def __init__(self, store: Store, every_s: float | None, retention_days: float | Mapping[str, float] | None) -> None:
        self._store = store
        self._every_s = every_s
        self._retention_days = retention_days
        self._process = 0
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin, once in each process."""
        if (self._every_s is None and self._retention_days is None) or self._process == os.getpid():
            return
        self._process = os.getpid()
        self._stop = threading.Event()
        thread = threading.Thread(target=self._run, name="taskpilot_obs-maintenance", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, and the rows of its last batches matter more
            return
        self._thread = thread

    def _run(self) -> None:
        pause = self._every_s or _PRUNE_EVERY_S
        while not self._stop.wait(pause * random.uniform(0.8, 1.0)):  # noqa: S311  spreads replicas out, keeps no secret
            try:
                self.once()
            except StoreError as error:
                log_failure("store maintenance", error)

    def once(self) -> None:
        """Do the work once.

        Raises:
            StoreError: the database failed.
        """
        if self._every_s is not None:
            self._sum_up()
        if self._retention_days is not None:
            prune(self._retention_days, store=self._store)

    def _sum_up(self) -> None:
        """A store in ClickHouse that keeps no sums yet is pruned all the same."""
        try:
            aggregate_summaries("daily", lookback_hours=None, store=self._store)
        except StoreVersionError as error:
            log_failure("store summaries", error)

    def stop(self, timeout_s: float) -> None:
        """End the thread, which finishes its round first, and wait for it at most so long."""
        self._stop.set()
        if self._thread is not None and self._process == os.getpid():
            self._thread.join(timeout_s)
