"""Single operations that fail in a simulation: of files, locks, threads, memory and the database."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from _simulated_database import Database, unavailable
from _simulated_disk import Disk
from _simulated_threads import Thread, scheduler
from sqlalchemy.engine.default import DefaultDialect


def _system(number: int) -> Callable[[], BaseException]:
    return lambda: OSError(number, os.strerror(number))


KINDS: Final[dict[str, Callable[[], BaseException]]] = {
    "open": _system(errno.EMFILE),
    "write": _system(errno.EIO),
    "fsync": _system(errno.EIO),
    "truncate": _system(errno.EIO),
    "rename": _system(errno.EIO),
    "unlink": _system(errno.EIO),
    "flock": _system(errno.ENOLCK),
    "memory": MemoryError,
    "thread start": lambda: RuntimeError("can't start new thread"),
    "connect": lambda: unavailable("connection refused"),
    "execute": lambda: unavailable("the connection broke"),
    "commit": lambda: unavailable("the connection broke"),
}
"""What fails, and how."""
BESIDES: Final = {"ftruncate": "truncate"}
MEMORY: Final = ("open", "write")
"""Operations for which the memory may not be there."""


class Failures:
    """How likely each kind of operation fails at the moment."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.happened: dict[str, int] = {}

    def check(self, what: str) -> None:
        """Let an operation of a simulated thread fail.

        Raises:
            BaseException: as its kind does.
        """
        if not self.rates or scheduler().current is None:
            return
        kind = BESIDES.get(what, what)
        for each in (kind, "memory") if kind in MEMORY else (kind,):
            if scheduler().random.random() < self.rates.get(each, 0.0):
                self.happened[each] = self.happened.get(each, 0) + 1
                scheduler().note(f"{each} fails")
                error = KINDS[each]()
                raise error


@contextmanager
def failing(failures: Failures, disk: Disk, database: Database) -> Iterator[None]:
    """While the block runs, operations of simulated threads may fail."""

    def checked(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*given: Any, **named: Any) -> Any:
            if scheduler().current is not None:
                scheduler().step(what)
                failures.check(what)
            return real(*given, **named)

        return operation

    def after(real: Callable[..., Any]) -> Callable[..., Any]:
        """Fails when the operation has taken its time."""

        def operation(*given: Any) -> None:
            real(*given)
            failures.check(given[-1])

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for owner, name, what in (
            (os, "rename", "rename"),
            (os, "unlink", "unlink"),
            (fcntl, "flock", "flock"),
            (Thread, "start", "thread start"),
            (DefaultDialect, "connect", "connect"),
        ):
            patch.setattr(owner, name, checked(what, getattr(owner, name)))
        patch.setattr(disk, "operation", after(disk.operation))
        patch.setattr(database, "check", after(database.check))
        yield
