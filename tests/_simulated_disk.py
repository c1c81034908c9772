"""Files of a simulated machine: real ones in memory, on a disk that is slow or full and loses what is not synced."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from _simulated_threads import SECOND, Process, scheduler

WRITEBACK: Final = 30 * SECOND
"""So old changes are on the disk without a sync, as the kernel sees to it."""


class Disk:
    """What a machine's disk is like at the moment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.is_full = False
        self.slow_ns = 0
        self._changes: dict[int, list[tuple[int, int]]] = {}
        """By inode: when its size became what."""
        self._open: dict[Process, set[int | DiskFile]] = {}

    def operation(self, what: str) -> None:
        """Take as long as the disk takes."""
        run = scheduler()
        run.step(what)
        if self.slow_ns and run.current is not None and run.random.random() < 0.3:
            run.sleep(int(run.random.random() * self.slow_ns))

    def took(self, size: int) -> int:
        """How many of so many bytes a write takes.

        Raises:
            OSError: none, because the disk is full.
        """
        if not self.is_full:
            return size
        if size > 1 and scheduler().random.random() < 0.5:
            return size // 2
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def changed(self, file: int, *, is_synced: bool = False) -> None:
        """Note a file's size, and the simulated time of its change."""
        found, now = os.fstat(file), scheduler().now
        if is_synced:
            self._changes[found.st_ino] = [(-WRITEBACK, found.st_size)]
            return
        os.utime(file, ns=(now, now))
        self._changes.setdefault(found.st_ino, [(-WRITEBACK, 0)]).append((now, found.st_size))

    def opened(self, file: int | DiskFile, process: Process | None = None) -> None:
        """Note that a process has it open, by default the running one."""
        task = scheduler().current
        process = process or (None if task is None else task.process)
        if process is not None:
            self._open.setdefault(process, set()).add(file)

    def closed(self, file: int | DiskFile) -> None:
        """Note that it is closed."""
        for held in self._open.values():
            held.discard(file)

    def process_died(self, process: Process) -> None:
        """Close what it had open, which lets its locks go."""
        for file in self._open.pop(process, set()):
            if isinstance(file, int):
                os.close(file)
            else:
                io.FileIO.close(file)

    def lose_power(self) -> None:
        """Cut each file to what was synced and some part of the rest, or fill the rest with zeros."""
        run = scheduler()
        for path in sorted(self.home.rglob("*")):
            found = path.stat()
            changes = self._changes.get(found.st_ino)
            if not path.is_file() or not changes:
                continue
            safe = [size for at, size in changes if at <= run.now - WRITEBACK]
            sure = min(safe[-1] if safe else 0, found.st_size)
            kept = run.random.randint(sure, found.st_size)
            run.note(f"power lost: {path.name} {found.st_size} to {kept}")
            os.truncate(path, kept)
            if run.random.random() < 0.2:
                os.truncate(path, found.st_size)


class DiskFile(io.FileIO):
    """A file of the spool."""

    disk: Disk

    def write(self, data: Any, /) -> int:
        self.disk.operation("write")
        written: int = super().write(memoryview(data)[: self.disk.took(len(data))])
        self.disk.changed(self.fileno())
        return written

    def truncate(self, size: int | None = None, /) -> int:
        self.disk.operation("truncate")
        done = super().truncate(size)
        self.disk.changed(self.fileno())
        return done

    def close(self) -> None:
        if not self.closed:
            self.disk.closed(self)
        super().close()

    def __deepcopy__(self, memo: dict[int, Any]) -> DiskFile:
        """What a forked child has: the file and its lock, behind a descriptor of its own."""
        return self if self.closed else type(self)(os.dup(self.fileno()), "r+")


class OsModule(ModuleType):
    """Takes the place of `os` in modules of the library."""

    def __init__(self, disk: Disk) -> None:
        super().__init__("os")
        self._disk = disk

    @staticmethod
    def getpid() -> int:
        """The identifier of the simulated process."""
        task = scheduler().current
        return os.getpid() if task is None else task.process.pid

    def open(self, path: Any, flags: int, mode: int = 0o777, **named: Any) -> int:
        """Open, or make, a file."""
        self._disk.operation("open")
        is_new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        if is_new:
            self._disk.took(1)
        file = os.open(path, flags, mode, **named)
        self._disk.opened(file)
        if is_new:
            self._disk.changed(file)
        return file

    def close(self, file: int) -> None:
        """Close a file."""
        self._disk.closed(file)
        os.close(file)

    def write(self, file: int, data: Any) -> int:
        """Write some of it, or nothing on a full disk."""
        self._disk.operation("write")
        written = os.write(file, memoryview(data)[: self._disk.took(len(data))])
        self._disk.changed(file)
        return written

    def fsync(self, file: int) -> None:
        """What was written survives a loss of power."""
        self._disk.operation("fsync")
        self._disk.changed(file, is_synced=True)

    def ftruncate(self, file: int, size: int) -> None:
        """Cut a file."""
        self._disk.operation("ftruncate")
        os.ftruncate(file, size)
        self._disk.changed(file)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def opener(disk: Disk) -> Any:
    """Takes the place of `open` in modules that turn a descriptor into a file, which closes it."""
    made = type("OneDiskFile", (DiskFile,), {"disk": disk})

    def opened(file: Any, mode: str = "r", buffering: int = -1, *, closefd: bool = True) -> Any:
        if not (isinstance(file, int) and closefd):
            return open(file, mode, buffering, closefd=closefd)
        disk.closed(file)
        found = made(file, mode.replace("b", ""))
        disk.opened(found)
        return found if buffering == 0 else io.BufferedWriter(found)

    return opened
