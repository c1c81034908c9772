"""Renews state in forked children: locks that another thread may hold, queues that the parent writes."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from taskpilot_obs._support.fork_hooks import around_forks
from taskpilot_obs._support.guarded import guarded

_PATIENCE_S = 1.0


class Renewable(Protocol):
    """An object that a forked child must not share with its parent."""

    def after_fork(self) -> None:
        """Reset the object, in the child."""


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()
_functions: list[Callable[[], object]] = []


def renew_in_child(renewable: Renewable) -> None:
    """Call its `after_fork` in every forked child, for as long as it lives."""
    _renewables.add(renewable)


def call_in_child(function: Callable[[], object]) -> None:
    """Call a function in every forked child, before objects are renewed."""
    _functions.append(function)


class ForkableLock(Protocol):
    """A lock of `threading`."""

    def acquire(self, *, timeout: float) -> bool:
        """Wait for the lock."""

    def release(self) -> None:
        """Let others in."""


class HeldOverFork:
    """Holds a lock over a fork, so that the child inherits nothing half-updated; waits a second for it at most."""

    def __init__(self) -> None:
        self._thread = 0

    def hold(self, lock: ForkableLock) -> None:
        """Wait for the work in progress, before the fork."""
        if lock.acquire(timeout=_PATIENCE_S):
            self._thread = threading.get_ident()

    def let_go(self, lock: ForkableLock) -> None:
        """Go on, in the parent."""
        if self._thread == threading.get_ident():  # two threads may fork at once
            self._thread = 0
            lock.release()


class ForkGate:
    """Holds a fork back, for a second at most, while another thread is inside a C library that has locks of its own.

    A child that is forked while a thread of its parent holds such a lock waits for it for ever. SQLite has some for
    the whole process: for its memory and for the list of open files.
    """

    def __init__(self) -> None:
        self._reset()
        around_forks(before=self._before, in_parent=self._after, in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        """How deep each thread is inside."""

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Use the library in this block."""
        me = threading.get_ident()
        with self._changed:
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] = self._inside.get(me, 0) - 1
                if self._inside[me] <= 0:
                    del self._inside[me]
                self._changed.notify_all()

    def _before(self) -> None:
        self._changed.acquire()  # until the fork is over, so that no thread goes inside meanwhile
        me = threading.get_ident()
        self._changed.wait_for(lambda: not self._inside.keys() - {me}, _PATIENCE_S)

    def _after(self) -> None:
        self._changed.release()


def _renew() -> None:
    """Renew everything: what fails is logged, and keeps nothing else from being renewed."""
    for renew in (*_functions, *(renewable.after_fork for renewable in list(_renewables))):
        with guarded(f"{getattr(renew, '__qualname__', renew)} after a fork"):
            renew()


around_forks(in_child=_renew)
