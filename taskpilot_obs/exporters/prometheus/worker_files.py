"""Reads the files of PROMETHEUS_MULTIPROC_DIR, and compacts those of processes that have ended.

prometheus_client gives each process files of its own and never removes those of counters, so a service that recycles
its workers reads more files with every scrape. Here the files of dead processes are merged into one of each kind.
Scrapes and compaction exclude each other by a file lock. A compaction is committed by one rename; the next process that
takes the lock finishes or undoes an interrupted one. So counters never go down.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

from taskpilot_obs.exceptions import ConfigurationError, SourceError

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
LOCK_NAME: Final = "taskpilot_obs.lock"
COMMIT_NAME: Final = "taskpilot_obs.committed"
LOCK_TIMEOUT_S: Final = 10.0
"""Prometheus' default scrape timeout."""
TOTALS: Final = "dead"
"""Replaces the process ID in the names of the files with the merged values of dead processes."""
_CLAIMED: Final = ".claimed"
_NEW: Final = ".new"
_PER_PROCESS: Final = re.compile(r"(?P<kind>[a-z]+(?:_[a-z]+)?)_(?P<pid>\d+)\.db")
_NAMESPACE: Final = "taskpilot_obs.namespace-"
_LIVE: Final = tuple(f"gauge_live{mode}" for mode in ("all", "max", "min", "mostrecent", "sum"))
_POLL_S: Final = 0.005

Entry = tuple[float, float]
"""A value and when it was set (seconds since the epoch; only for `mostrecent` gauges)."""


DAMAGE: Final = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, struct.error)
"""What prometheus_client raises for a file that was cut or overwritten."""


def exact_sum(values: Iterable[float]) -> float:
    """The sum, rounded once, so that it does not depend on the order of the files."""
    every = list(values)
    try:
        return math.fsum(every)
    except (OverflowError, ValueError):  # infinities of both signs, in an application's own metric
        return sum(every)


def never_less(values: Iterable[float]) -> float:
    """The sum, rounded up if inexact, because the merged value must not be less than its parts were."""
    every = list(values)
    total = exact_sum(every)
    if math.isfinite(total) and exact_sum([*every, -total]) > 0:
        return math.nextafter(total, math.inf)
    return total


_COMBINED: Final[dict[str, Callable[[list[Entry]], Entry]]] = {
    **dict.fromkeys(("counter", "histogram", "summary"), lambda entries: (never_less(v for v, _ in entries), 0.0)),
    "gauge_sum": lambda entries: (exact_sum(value for value, _ in entries), 0.0),
    "gauge_max": lambda entries: (max(value for value, _ in entries), 0.0),
    "gauge_min": lambda entries: (min(value for value, _ in entries), 0.0),
    "gauge_mostrecent": lambda entries: max(entries, key=lambda entry: entry[1]),
}
"""How the values of dead processes are merged, by kind of file. Gauges of mode `all` keep one file per process, because
the process is part of their meaning; those of `live…` modes are removed with their process."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: no other process of this library reads or compacts it during the block.

    Raises:
        SourceError: another process kept the lock for ten seconds, or the lock cannot be opened.
    """
    try:
        # World-readable, because the process that compacts may run as another user than those that scrape.
        file = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise SourceError(f"{VARIABLE}={str(directory)!r} cannot be locked: {error.strerror or error}") from error
    try:
        _take(file, directory)
        yield
    finally:
        try:
            fcntl.flock(file, fcntl.LOCK_UN)  # explicitly, because a child forked meanwhile also holds the file
        finally:
            os.close(file)


def _take(file: int, directory: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SourceError(
                    f"another process has kept {str(directory / LOCK_NAME)!r} locked for {LOCK_TIMEOUT_S:g} s; "
                    "is one of them stopped?"
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def files_of(directory: Path) -> dict[str, list[Path]]:
    """Return the value files by kind (`counter`, `gauge_livesum`, …). The caller holds the lock.

    A compaction that failed halfway changes nothing: before its commit the claimed files count, after it the merged
    ones.
    """
    found: defaultdict[str, list[Path]] = defaultdict(list)
    is_committed = (directory / COMMIT_NAME).exists()
    for path in sorted(directory.glob("*.db")):
        is_replaced = is_committed and path.with_name(path.name + _NEW).exists()
        if path.stat().st_size and not is_replaced:  # a newly opened file is still empty and cannot be read
            found[path.stem.rpartition("_")[0]].append(path)
    suffix = _NEW if is_committed else _CLAIMED
    for path in sorted(directory.glob(f"*.db{suffix}")):
        if path.stat().st_size:
            found[path.name.removesuffix(f".db{suffix}").rpartition("_")[0]].append(path)
    return found


def read(path: Path) -> Iterator[tuple[str, float, float]]:
    """Read key, value and time of each value in a file.

    Raises:
        SourceError: the file is damaged.
    """
    try:
        for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]  # it has no types
            yield key, value, timestamp
    except DAMAGE as error:
        raise SourceError(f"the file of metric values {str(path)!r} is damaged: {error}") from error


# --- compaction ------------------------------------------------------------------------------------------------------


def compact(directory: Path, dead: int) -> None:
    """Merge the files of a process that has ended and been waited for.

    Raises:
        SourceError: the lock was not available.
        OSError: a file could not be written; no value is lost.
    """
    with locked(directory):
        _recover(directory)
        # By name: listing the files of all workers for each one that ends would take the square of their number.
        _compact(directory, _claim(path for path in _paths_of(directory, dead) if path.exists()))


def sweep(directory: Path) -> None:
    """Finish what a compaction left, and merge the files of all processes that have ended. The caller holds the lock.

    The latter only if every process that wrote into the directory is visible from here: process IDs of another
    container mean nothing in this one.
    """
    _recover(directory)
    if namespaces(directory) == [_namespace_name()]:
        gone = dead_processes(directory)
        if gone:
            claimed = _claim([path for path, pid in _owners(directory) if pid in gone])
            _compact(directory, [path for path in claimed if not _unclaim_if_alive(path)])


def mark_namespace(directory: Path) -> None:
    """Record the PID namespace of this process and its children."""
    (directory / _namespace_name()).touch(mode=0o644)


def require_directory() -> None:
    """Refuse a directory that is missing or cannot be written to, and record the PID namespace in it.

    Raises:
        ConfigurationError: PROMETHEUS_MULTIPROC_DIR is not a directory, or this process cannot write to it.
    """
    path = os.environ.get(VARIABLE, "")
    if not os.path.isdir(path):  # noqa: PTH112  "" must not become "."
        raise ConfigurationError(
            f"{VARIABLE} is {path!r}, which is not a directory: create it before the service starts, "
            "and empty it between runs"
        )
    try:
        mark_namespace(Path(path))
    except OSError as error:
        raise ConfigurationError(
            f"{VARIABLE} is {path!r}, which this process cannot write to ({error.strerror}): "
            "give it a directory of its own, with the right to write for the user that runs the service"
        ) from error


def namespaces(directory: Path) -> list[str]:
    """Return the PID namespaces of the processes that wrote into the directory."""
    return sorted(path.name for path in directory.glob(f"{_NAMESPACE}*"))


def dead_processes(directory: Path) -> set[int]:
    """Return process IDs in the directory without a visible process."""
    return {pid for _, pid in _owners(directory) if not _lives(pid)}


def _namespace_name() -> str:
    try:
        name = Path("/proc/self/ns/pid").readlink().name
    except OSError:  # not Linux: there is only one
        name = "0"
    return _NAMESPACE + re.sub(r"\D", "", name)


def _owners(directory: Path) -> Iterator[tuple[Path, int]]:
    for path in directory.glob("*.db"):
        named = _PER_PROCESS.fullmatch(path.name)
        if named is not None and (named["kind"] in _COMBINED or named["kind"].startswith("gauge_live")):
            yield path, int(named["pid"])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process belongs to another user
        return True
    return True


def _paths_of(directory: Path, pid: int) -> list[Path]:
    """The files that a process may have."""
    return [directory / f"{kind}_{pid}.db" for kind in (*_COMBINED, *_LIVE)]


def _claim(paths: Iterable[Path]) -> list[Path]:
    """Rename files so that a new process with a reused ID cannot open them; gauges of `live…` modes are removed."""
    claimed = []
    for path in paths:
        if path.name.startswith("gauge_live"):
            path.unlink()
        else:
            claimed.append(path.rename(path.with_name(path.name + _CLAIMED)))
    return claimed


def _unclaim_if_alive(claimed: Path) -> bool:
    """Return a file to a process that reused a dead one's ID and opened the file before it was claimed."""
    original = claimed.with_name(claimed.name.removesuffix(_CLAIMED))
    if not _lives(int(original.stem.rpartition("_")[2])):
        return False
    try:
        original.hardlink_to(claimed)
    except FileExistsError:  # the process has created a new file, so this one is unused
        return False
    claimed.unlink()
    return True


def _compact(directory: Path, claimed: list[Path]) -> None:
    if not claimed:
        return
    by_kind: defaultdict[str, list[Path]] = defaultdict(list)
    for path in claimed:
        by_kind[path.name.removesuffix(".db" + _CLAIMED).rpartition("_")[0]].append(path)
    for kind, paths in by_kind.items():
        totals = directory / f"{kind}_{TOTALS}.db"
        _write(totals, _COMBINED[kind], [*paths, *([totals] if totals.exists() else [])])
    pending = directory / (COMMIT_NAME + _NEW)
    pending.touch()
    pending.rename(directory / COMMIT_NAME)
    _finish(directory, [directory / f"{kind}_{TOTALS}.db{_NEW}" for kind in by_kind], claimed)


def _write(totals: Path, combined: Callable[[list[Entry]], Entry], sources: list[Path]) -> None:
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    for source in sources:
        if source.stat().st_size:
            for key, value, timestamp in read(source):
                entries[key].append((value, timestamp))
    new = totals.with_name(totals.name + _NEW)
    new.unlink(missing_ok=True)
    values = MmapedDict(str(new))  # type: ignore[no-untyped-call]  # it has no types
    try:
        for key, several in entries.items():
            values.write_value(key, *combined(several))  # type: ignore[no-untyped-call]
    finally:
        values.close()  # type: ignore[no-untyped-call]


def _finish(directory: Path, merged: Iterable[Path], claimed: Iterable[Path]) -> None:
    """Replace the merged files by the committed result."""
    for new in merged:
        new.replace(new.with_name(new.name.removesuffix(_NEW)))
    for path in claimed:
        path.unlink()
    (directory / COMMIT_NAME).unlink()


def _recover(directory: Path) -> None:
    """Finish an interrupted compaction if it was committed; otherwise undo and repeat it."""
    names = os.listdir(directory)  # noqa: PTH208  a path for each file of a thousand workers takes several times as long
    left = [directory / name for name in names if name.endswith((_NEW, _CLAIMED))]
    new, claimed = ([path for path in left if path.suffix == suffix] for suffix in (_NEW, _CLAIMED))
    if (directory / COMMIT_NAME).exists():
        _finish(directory, [path for path in new if path.stem.endswith(".db")], claimed)
        return
    for path in new:
        path.unlink()
    _compact(directory, claimed)
