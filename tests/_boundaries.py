"""Makes the n-th operation of a kind fail, where the library asks the system for it, as SQLite's own tests do.

`failing(boundary, n)` counts the operations that code of the library begins, on any thread, and lets the n-th of them
fail (or that one and all after it). Everything else in the process is left alone.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy.engine.default import DefaultDialect

import taskpilot_obs

LIBRARY = str(Path(taskpilot_obs.__file__).parent)
DAY_NS = 86_400_000_000_000
FRAMES = 8
"""So far up it is looked for the library: `Path.open` and `ThreadPoolExecutor` stand between."""


def full() -> BaseException:
    """What a full disk says."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken() -> BaseException:
    """What a broken disk says."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


class Gate:
    """Counts operations, and says which of them fails."""

    def __init__(self, kind: str, nth: int, *, lasting: bool) -> None:
        self.kind = kind
        self.nth = nth
        self.lasting = lasting
        self.reached = 0
        self._lock = threading.Lock()

    @property
    def has_failed(self) -> bool:
        """Whether the n-th was reached at all."""
        return self.reached >= self.nth

    def closed(self) -> bool:
        """Count one operation; whether it fails."""
        return _is_the_librarys() and self.counted()

    def counted(self) -> bool:
        """Count one operation that is the library's by all means; whether it fails."""
        with self._lock:
            self.reached += 1
            last = self.nth + (self.kind == "torn write")  # a half, and then an error
            return self.nth <= self.reached and (self.lasting or self.reached <= last)


def _is_the_librarys() -> bool:
    frame = sys._getframe(2)
    for _ in range(FRAMES):
        if frame.f_code.co_filename.startswith(LIBRARY):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


class File(io.FileIO):
    """An unbuffered file whose operations may fail."""

    gate = Gate("", 0, lasting=False)

    def write(self, data: Any, /) -> int:
        if "write" in self.gate.kind and self.gate.closed():
            return _half(super().write, data, self.gate)
        return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        if self.gate.kind == "truncate" and self.gate.closed():
            raise broken()
        return super().truncate(size)

    def read(self, size: int | None = -1, /) -> Any:
        if self.gate.kind == "read" and self.gate.closed():
            raise broken()
        return super().read(size)

    def readinto(self, buffer: Any, /) -> Any:
        if self.gate.kind == "read" and self.gate.closed():
            raise broken()
        return super().readinto(buffer)


def _half(write: Callable[[Any], Any], data: Any, gate: Gate) -> int:
    """What becomes of a write that fails: an error, or a half of it, as the kernel does; what is left fails then."""
    if gate.kind == "write" or gate.reached != gate.nth:
        raise full()
    done: int = write(bytes(data)[: max(1, len(data) // 2)])
    return done


class Boundary(NamedTuple):
    """A kind of operation."""

    name: str
    install: Callable[[pytest.MonkeyPatch, Gate], None]


def _raising(places: tuple[tuple[Any, str], ...], error: Callable[[], BaseException]) -> Callable[..., None]:
    """Install a function in front of each place, which raises at the n-th call."""

    def install(patch: pytest.MonkeyPatch, gate: Gate) -> None:
        for owner, name in places:
            patch.setattr(owner, name, _guard(getattr(owner, name), gate, error))

    return install


def _guard(real: Callable[..., Any], gate: Gate, error: Callable[[], BaseException]) -> Callable[..., Any]:
    def guarded(*arguments: Any, **named: Any) -> Any:
        if gate.closed():
            raise error()
        return real(*arguments, **named)

    return guarded


def _files(patch: pytest.MonkeyPatch, gate: Gate) -> None:
    """Unbuffered files, and descriptors, whose operations fail."""
    made = type("Faulty", (File,), {"gate": gate})
    for owner in (builtins, io):
        patch.setattr(owner, "open", _opener(owner.open, made))
    if "write" in gate.kind:
        real = os.write

        def write(file: int, data: Any, /) -> int:
            return _half(lambda part: real(file, part), data, gate) if gate.closed() else real(file, data)

        patch.setattr(os, "write", write)


def _opener(real: Callable[..., Any], made: type[File]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if "b" not in mode or not _is_the_librarys():
            return real(file, mode, buffering, *rest, **named)
        raw = made(file, mode.replace("b", ""), closefd=named.get("closefd", True))
        if buffering == 0:
            return raw
        if "+" in mode:
            return io.BufferedRandom(raw)
        return io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)

    return opened


def _stepping(patch: pytest.MonkeyPatch, gate: Gate) -> None:
    """The wall clock jumps back by a day, for good or for one reading."""
    real_ns, real = time.time_ns, time.time
    patch.setattr(time, "time_ns", lambda: real_ns() - (DAY_NS if gate.closed() else 0))
    patch.setattr(time, "time", lambda: real() - (DAY_NS / 1e9 if gate.closed() else 0))


def _lost_answers(patch: pytest.MonkeyPatch, gate: Gate) -> None:
    """The database commits, and the connection breaks before it answers."""
    real: Callable[[DefaultDialect, Any], None] = DefaultDialect.do_commit

    def commit(self: DefaultDialect, connection: Any) -> None:
        is_lost = gate.closed()
        real(self, connection)
        if is_lost:
            raise _sql(self, connection)

    patch.setattr(DefaultDialect, "do_commit", commit)


def _no_thread() -> BaseException:
    return RuntimeError("can't start new thread")


def _database(*names: str) -> Callable[[pytest.MonkeyPatch, Gate], None]:
    """The driver fails in front of these methods of SQLAlchemy's dialects."""

    def install(patch: pytest.MonkeyPatch, gate: Gate) -> None:
        for name in names:
            patch.setattr(DefaultDialect, name, _failing_method(getattr(DefaultDialect, name), gate))

    return install


def _failing_method(real: Callable[..., Any], gate: Gate) -> Callable[..., Any]:
    def guarded(self: DefaultDialect, held: Any, *arguments: Any, **named: Any) -> Any:
        if gate.closed():
            raise _sql(self, held)
        return real(self, held, *arguments, **named)

    return guarded


def _sql(dialect: DefaultDialect, held: Any) -> BaseException:
    """What the driver says of a disk that fails, or of a server that is shut down, which closes the connection too.

    Args:
        dialect: of the database.
        held: the driver's connection, or a cursor of it.
    """
    if dialect.name == "sqlite":
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        return error
    connection = held.driver_connection if hasattr(held, "driver_connection") else held.connection
    connection.close()
    driver: Any = dialect.loaded_dbapi
    return driver.errors.AdminShutdown("terminating connection due to administrator command")  # type: ignore[no-any-return]  # `Any`


class Wire:
    """The way to a server, on which a connection is refused, or breaks before a request or its answer."""

    gate = Gate("", 0, lasting=False)

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._fails("connect"):
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                for way in ((client, server, "send"), (server, client, "receive")):
                    threading.Thread(target=self._carry, args=way, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, kind: str) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(65_536):
                if self._fails(kind):
                    break
                target.sendall(data)
            for each in (source, target):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _fails(self, kind: str) -> bool:
        return self.gate.kind == kind and self.gate.counted()


def _broken_wire(patch: pytest.MonkeyPatch, gate: Gate) -> None:
    patch.setattr(Wire, "gate", gate)


forked: list[int] = []
"""The children of `_forking`, which the scenario waits for."""


def _forking(patch: pytest.MonkeyPatch, gate: Gate) -> None:
    """In front of the n-th write or lock, the process forks; the child goes on recording, and ends."""

    def fork() -> None:
        child = os.fork()
        if child:
            forked.append(child)
            return
        gate.nth = sys.maxsize
        os._exit(_recorded_in_child())

    for owner, name in ((os, "write"), (os, "fsync"), (fcntl, "flock"), (threading.Thread, "start")):
        patch.setattr(owner, name, _before(getattr(owner, name), gate, fork))


def _before(real: Callable[..., Any], gate: Gate, action: Callable[[], None]) -> Callable[..., Any]:
    def guarded(*arguments: Any, **named: Any) -> Any:
        if gate.closed():
            action()
        return real(*arguments, **named)

    return guarded


def _recorded_in_child() -> int:
    """0 where the child could record, and its exporters wrote."""
    with suppress(BaseException):
        with taskpilot_obs.track_agent("child"):
            pass
        return 0 if taskpilot_obs.flush(5) else 1
    return 2


OPENED = ((os, "open"), (io, "open"), (builtins, "open"))
BOUNDARIES = {
    each.name: each
    for each in (
        Boundary("open", _raising(OPENED, full)),
        Boundary("write", _files),
        Boundary("torn write", _files),
        Boundary("short write", _files),
        Boundary("read", _files),
        Boundary("truncate", _files),
        Boundary("ftruncate", _raising(((os, "ftruncate"),), broken)),
        Boundary("fsync", _raising(((os, "fsync"),), broken)),
        Boundary("rename", _raising(((os, "rename"), (os, "replace"), (os, "link")), broken)),
        Boundary("unlink", _raising(((os, "unlink"), (os, "remove")), broken)),
        Boundary("mkdir", _raising(((os, "mkdir"),), full)),
        Boundary("stat", _raising(((os, "stat"), (os, "fstat"), (os, "lstat")), broken)),
        Boundary("list", _raising(((os, "scandir"), (os, "listdir")), broken)),
        Boundary("flock", _raising(((fcntl, "flock"),), lambda: OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)))),
        Boundary("thread", _raising(((threading.Thread, "start"),), _no_thread)),
        Boundary("memory", _raising((*OPENED, (os, "write"), (os, "fstat")), MemoryError)),
        Boundary("clock", _stepping),
        Boundary("fork", _forking),
        Boundary("execute", _database("do_execute", "do_executemany")),
        Boundary("commit", _database("do_commit")),
        Boundary("commit answer", _lost_answers),
        Boundary("connect", _broken_wire),
        Boundary("send", _broken_wire),
        Boundary("receive", _broken_wire),
    )
}


@contextmanager
def failing(boundary: str, nth: int, *, lasting: bool) -> Iterator[Gate]:
    """While the block runs, the n-th operation of the library of this kind fails."""
    gate = Gate(boundary, nth, lasting=lasting)
    with pytest.MonkeyPatch.context() as patch:
        BOUNDARIES[boundary].install(patch, gate)
        yield gate
