"""The files of PROMETHEUS_MULTIPROC_DIR: read whole, and compacted when their processes are gone.

prometheus_client gives each process files of its own and never removes those of counters, so a service that recycles
its workers reads more files with every scrape. Here the files of dead processes are added up into one of each kind.
Scrapes and compaction take turns under one file lock. A compaction is committed by one rename; one that was
interrupted is finished, or undone, by whoever takes the lock next. So no counter ever goes back.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

from taskpilot_obs.exceptions import SourceError

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
LOCK_NAME: Final = "taskpilot_obs.lock"
COMMIT_NAME: Final = "taskpilot_obs.committed"
LOCK_TIMEOUT_S: Final = 10.0
"""As long as Prometheus waits for a scrape by default."""
TOTALS: Final = "dead"
"""Stands where the process ID does, in the names of the files that dead processes' values are added up in."""
_CLAIMED: Final = ".claimed"
_NEW: Final = ".new"
_PER_PROCESS: Final = re.compile(r"(?P<kind>[a-z]+(?:_[a-z]+)?)_(?P<pid>\d+)\.db")
_NAMESPACE: Final = "taskpilot_obs.namespace-"
_POLL_S: Final = 0.005

Entry = tuple[float, float]
"""A value and when it was set (seconds since the epoch; only `mostrecent` gauges tell)."""


def exact_sum(values: Iterable[float]) -> float:
    """The sum, rounded once: the order of the files, which may change, does not move it by the last digit."""
    every = list(values)
    try:
        return math.fsum(every)
    except (OverflowError, ValueError):  # infinities of both signs, in an application's own metric
        return sum(every)


def never_less(values: Iterable[float]) -> float:
    """The sum, rounded up where it cannot be kept exactly: what replaces its parts must not be less than they were."""
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
"""How values of several dead processes become one, by kind of file. Gauges of mode `all` keep a file a process, for
the process is part of what they say; those of `live…` modes go with their process."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody else of this library's reads or compacts the directory during the block.

    Raises:
        SourceError: another process kept the lock for ten seconds, or the lock cannot be opened.
    """
    try:
        # Readable by all: the process that compacts may run as another user than those that scrape.
        file = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise SourceError(f"{VARIABLE}={str(directory)!r} cannot be locked: {error.strerror or error}") from error
    try:
        _take(file, directory)
        _recover(directory)
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # a child that was forked meanwhile holds the file too, and must not the lock
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
    """The files that hold values, by kind (`counter`, `gauge_livesum`, …). The lock is held."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in directory.glob("*.db"):
        if path.stat().st_size:  # one that was opened a moment ago is empty, and cannot be read yet
            found[path.stem.rpartition("_")[0]].append(path)
    return found


def read(path: Path) -> Iterator[tuple[str, float, float]]:
    """Key, value and time of each value in a file."""
    for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]  # it has no types
        yield key, value, timestamp


# --- compaction ------------------------------------------------------------------------------------------------------


def compact(directory: Path, dead: int) -> None:
    """Add up the files of a process that has ended, for whoever has waited for it.

    Raises:
        SourceError: the lock could not be taken.
        OSError: a file could not be written; nothing is lost then.
    """
    with locked(directory):
        _compact(directory, _claim(directory, {dead}))


def sweep(directory: Path) -> None:
    """Add up the files of all processes that are no more. The lock is held.

    Only where every process that wrote into the directory is visible from here: one in another container has a process
    ID that says nothing in this one.
    """
    if namespaces(directory) == [_namespace_name()]:
        gone = dead_processes(directory)
        if gone:
            _compact(directory, [path for path in _claim(directory, gone) if not _unclaim_if_alive(path)])


def mark_namespace(directory: Path) -> None:
    """Note from where the process IDs of this process and its children are seen."""
    (directory / _namespace_name()).touch(mode=0o644)


def namespaces(directory: Path) -> list[str]:
    """From where the processes that wrote into the directory were seen."""
    return sorted(path.name for path in directory.glob(f"{_NAMESPACE}*"))


def dead_processes(directory: Path) -> set[int]:
    """Process IDs in the directory that no process has, as far as can be seen from here."""
    return {pid for _, pid in _owners(directory) if not _lives(pid)}


def _namespace_name() -> str:
    try:
        name = Path("/proc/self/ns/pid").readlink().name
    except OSError:  # no Linux: there is but one
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
    except PermissionError:  # somebody else's
        return True
    return True


def _claim(directory: Path, pids: set[int]) -> list[Path]:
    """Take files out of reach of a new process that may get the same ID; gauges of `live…` modes are removed."""
    claimed = []
    for path, pid in list(_owners(directory)):
        if pid in pids and path.name.startswith("gauge_live"):
            path.unlink()
        elif pid in pids:
            claimed.append(path.rename(path.with_name(path.name + _CLAIMED)))
    return claimed


def _unclaim_if_alive(claimed: Path) -> bool:
    """Give a file back to a process that got the ID of a dead one and opened the file before it was claimed."""
    original = claimed.with_name(claimed.name.removesuffix(_CLAIMED))
    if not _lives(int(original.stem.rpartition("_")[2])):
        return False
    try:
        original.hardlink_to(claimed)
    except FileExistsError:  # it has made one of its own: then nobody uses this one
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
    _finish(directory)


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


def _finish(directory: Path) -> None:
    """Put what is committed in place of what it was made of."""
    for new in directory.glob(f"*.db{_NEW}"):
        new.replace(new.with_name(new.name.removesuffix(_NEW)))
    for claimed in directory.glob(f"*{_CLAIMED}"):
        claimed.unlink()
    (directory / COMMIT_NAME).unlink()


def _recover(directory: Path) -> None:
    """Finish a compaction that was killed after it was committed; do one that was killed before all over again."""
    if (directory / COMMIT_NAME).exists():
        _finish(directory)
        return
    for new in directory.glob(f"*{_NEW}"):
        new.unlink()
    _compact(directory, list(directory.glob(f"*{_CLAIMED}")))
