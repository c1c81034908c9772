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
    "torn write": _system(errno.EIO),
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
TORN: Final = "torn write"
BESIDES: Final = {"ftruncate": "truncate"}
MEMORY: Final = ("open", "write")
"""Operations for which the memory may not be there."""


class Failures:
    """How likely each kind of operation fails at the moment."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.happened: dict[str, int] = {}
        self._is_torn = False

    def happens(self, kind: str) -> bool:
        """Whether an operation of a simulated thread fails in this way now."""
        run, rate = scheduler(), self.rates.get(kind, 0.0)
        if not rate or run.current is None or run.random.random() >= rate:
            return False
        self.happened[kind] = self.happened.get(kind, 0) + 1
        run.note(f"{kind} fails")
        return True

    def check(self, what: str) -> None:
        """Let an operation of a simulated thread fail.

        Raises:
            BaseException: as its kind does.
        """
        kind = BESIDES.get(what, what)
        for each in (kind, "memory") if kind in MEMORY else (kind,):
            if self.happens(each):
                error = KINDS[each]()
                raise error
        if kind == "write" and self._is_torn:
            self._is_torn = False
            error = KINDS[TORN]()
            raise error

    def took(self, size: int) -> int:
        """How much of so many bytes a write takes: half of them where it is torn, and the next one fails."""
        if size > 1 and self.happens(TORN):
            self._is_torn = True
            return size // 2
        return size


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

    real_took = disk.took
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
        patch.setattr(disk, "took", lambda size: failures.took(real_took(size)))
        patch.setattr(database, "check", after(database.check))
        yield
