"""The files of an audit log, and the meaning of their names.

audit.jsonl                               written now, by the process that holds the log's lock
audit.jsonl.20261121T093000.000001Z       a closed segment of it; the names sort by time
audit.<host>.<pid>.jsonl                  written by any other process: a chain of its own
audit.recovered.1.jsonl                   the chain that follows a file which could not be continued; further writers
                                          of a damaged log write to audit.<host>.<pid>-2.jsonl and so on
audit.anchors, audit.<host>.<pid>.anchors the heads of each chain; the writer locks this file
audit.manifest                            closed segments, and those pruned by retention
audit.torn                                halves of last lines that killed processes left

Only names with the library's time stamp are segments, which retention may remove. Files made by others (`audit.jsonl.1`
of logrotate, a compressed segment, a backup) are read if their records are in no other file, and never removed.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from platform import node
from typing import BinaryIO, NamedTuple

from taskpilot_obs.audit.access import DamagedFileError, is_regular, open_to_read
from taskpilot_obs.audit.chain import GENESIS, ChainTip, head_of, links
from taskpilot_obs.exceptions import AuditLogError, ConfigurationError

SUFFIX = ".jsonl"
MAX_LINE = 64 * 2**20
"""Longer lines are not from this library; the bound keeps memory constant while reading."""
_TAIL_BLOCK = 65_536
_RECOVERED = "recovered.1"
_STAMP = re.compile(r"\d{8}T\d{6}\.\d{6}Z1*")
_NAME = re.compile(r"(?P<stem>.+?)(?P<writer>\.[A-Za-z0-9-]+\.\d+(?:-\d+)?)?(?:\.jsonl(?P<stamp>\..+)?|\.anchors)")


class Log(NamedTuple):
    """One audit log: a folder and the stem of its files' names."""

    folder: Path
    stem: str

    @property
    def manifest(self) -> Path:
        """The file that lists closed and pruned segments."""
        return self.folder / f"{self.stem}.manifest"

    @property
    def torn(self) -> Path:
        """The file that collects incomplete lines."""
        return self.folder / f"{self.stem}.torn"

    def chain(self, writer: str = "") -> Chain:
        """The chain of one writer; the empty name is the process that holds the lock."""
        return Chain(self, writer)

    def owns(self, name: str) -> bool:
        """Whether a file of this name would be one of its chains'."""
        match = _NAME.fullmatch(name)
        return match is not None and match["stem"] == self.stem

    def chains(self) -> list[Chain]:
        """All chains with at least one file, the lock owner's first."""
        writers = set()
        for name in _names(self.folder):
            match = _NAME.fullmatch(name)
            if match is not None and match["stem"] == self.stem:
                writers.add(match["writer"] or "")
        return [Chain(self, writer.removeprefix(".")) for writer in sorted(writers)]


class Chain(NamedTuple):
    """The files of one writer."""

    log: Log
    writer: str

    @property
    def name(self) -> str:
        """Name of the file that is written now."""
        return f"{self._stem}{SUFFIX}"

    @property
    def path(self) -> Path:
        """The file that is written now."""
        return self.log.folder / self.name

    @property
    def anchors(self) -> Path:
        """The heads of this chain; the writer holds a lock on it."""
        return self.log.folder / f"{self._stem}.anchors"

    @property
    def _stem(self) -> str:
        return f"{self.log.stem}.{self.writer}" if self.writer else self.log.stem

    def segments(self) -> list[Path]:
        """The closed segments, by the number of their first record."""
        return [path for _, path in _in_order(self._beside(_is_segment))]

    def is_segment(self, path: Path) -> bool:
        """Whether the file has the name of a closed segment of this chain."""
        return _is_segment(path.name, self)

    def files(self) -> list[Path]:
        """Every file to read, in the order of their first records; the one being written, if there is one, is last.

        These include files that others renamed, copied or compressed, if no other file has their records.
        """
        ours = _in_order(self._beside(_is_segment))
        others = _in_order(self._beside(_is_foreign))
        if others:
            known = [(first, path) for first, path in (*ours, *_in_order([self.path])) if first >= 0]
            ours = sorted(ours + _not_covered(others, [_span(first, path) for first, path in known]))
        return [path for _, path in ours] + ([self.path] if is_regular(self.path) else [])

    def _beside(self, wanted: Callable[[str, Chain], bool]) -> list[Path]:
        return [self.log.folder / name for name in _names(self.log.folder) if wanted(name, self)]


def log_at(path: Path | str) -> Log:
    """The log that is written to this path.

    Raises:
        ConfigurationError: the name does not end in `.jsonl`, by which its segments are recognised.
    """
    path = Path(path)
    if path.suffix != SUFFIX or not path.stem:
        raise ConfigurationError(f"audit log {str(path)!r}: the name must end in {SUFFIX}, for example audit{SUFFIX}")
    match = _NAME.fullmatch(path.name)
    if match is not None and match["writer"]:
        raise ConfigurationError(
            f"audit log {str(path)!r}: names that end in .<word>.<number>{SUFFIX} are for the files of further "
            f"processes; choose another, for example {match['stem']}{SUFFIX}"
        )
    stem = path.name.removesuffix(SUFFIX)
    if match is None or match["stem"] != stem:
        raise ConfigurationError(
            f"audit log {str(path)!r}: a name with {SUFFIX} in its middle, or a line break, looks like one of "
            f"its segments; choose another, for example audit{SUFFIX}"
        )
    return Log(path.absolute().parent, stem)


def find_logs(path: Path | str) -> list[Log]:
    """The logs in a folder, or the log that a file belongs to.

    Raises:
        AuditLogError: there is none.
    """
    path = Path(path).absolute()
    if path.is_dir():
        matches = [_NAME.fullmatch(name) for name in _names(path)]
        logs = [Log(path, stem) for stem in sorted({match["stem"] for match in matches if match})]
    else:
        match = _NAME.fullmatch(path.name)
        logs = [Log(path.parent, match["stem"])] if match else []
    logs = [log for log in logs if log.chains()]
    if not logs:
        raise AuditLogError(f"no audit log at {str(path)!r}: give the path of its {SUFFIX} file, or its folder")
    return logs


def writer_name(number: int, *, is_recovery: bool) -> str:
    """The writer of the chain to try next: the log's own, the one that follows if it is damaged, then this process'.

    Args:
        number: how many were tried.
        is_recovery: whether one of these cannot be continued.
    """
    if number == 0:
        return ""
    if number == 1 and is_recovery:  # one for all processes, so that the next start goes on with it
        return _RECOVERED
    host = re.sub(r"[^A-Za-z0-9]+", "-", node()).strip("-") or "host"
    own = f"{host}.{os.getpid()}"
    return own if number == 1 else f"{own}-{number}"


def segment_stamp(now: datetime, chain: Chain) -> str:
    """The suffix of a new segment's name, later than all existing ones even if the clock stepped back."""
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    last = max(
        (name[len(chain.name) + 1 :] for name in _names(chain.log.folder) if _is_segment(name, chain)), default=""
    )
    while stamp <= last:
        stamp = f"{last}1"
    return stamp


def _is_segment(name: str, chain: Chain) -> bool:
    return name.startswith(f"{chain.name}.") and _STAMP.fullmatch(name, len(chain.name) + 1) is not None


def _is_foreign(name: str, chain: Chain) -> bool:
    return name.startswith(f"{chain.name}.") and not _is_segment(name, chain)


def _in_order(paths: list[Path]) -> list[tuple[int, Path]]:
    """The regular files with the number of their first record, sorted by it."""
    return sorted((_first_seq(path), path) for path in paths if is_regular(path))


def _span(first: int, path: Path) -> tuple[int, int]:
    """How many records precede a file's first one, and the number of its last one."""
    tip = last_head(path)
    return first, first + 1 if tip is None else tip.seq


def _not_covered(found: list[tuple[int, Path]], spans: list[tuple[int, int]]) -> list[tuple[int, Path]]:
    """The files of sealed records that start outside of these spans, one for each start."""
    chosen: dict[int, Path] = {}
    for first, path in found:
        if first >= 0 and not any(start <= first < end for start, end in spans):
            chosen.setdefault(first, path)
    return list(chosen.items())


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _first_seq(path: Path) -> int:
    """How many records precede a file's first one; -1 if its first line is not a record: it is verified first."""
    try:
        with open_to_read(path) as file:
            found = links(file.readline(MAX_LINE))
    except (OSError, EOFError, zlib.error):
        return -1
    return -1 if found is None else found[0].seq


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, ended by a line feed and nothing else; the last may lack it.

    Raises:
        DamagedFileError: the file is compressed, and cannot be decompressed to its end.
    """
    try:
        while line := file.readline(MAX_LINE):
            yield line
    except (EOFError, zlib.error) as error:
        raise DamagedFileError(errno.EIO, "the compressed file is damaged", file.name) from error


def last_line(file: BinaryIO, end: int) -> tuple[bytes, int]:
    """The last whole line before `end`, and where it ends; (empty, 0) where there is none.

    What stands between there and `end` is half a line. Takes time linear in the length of both, and constant memory:
    a power cut may leave megabytes of NULs. Of a line longer than `MAX_LINE` only the beginning is returned.
    """
    stop = _behind_line_feed(file, end)
    if stop == 0:
        return b"", 0
    start = _behind_line_feed(file, stop - 1)
    file.seek(start)
    return file.read(min(stop - start, MAX_LINE)), stop


def _behind_line_feed(file: BinaryIO, end: int) -> int:
    """Return the start of the line that contains `end`."""
    while end > 0:
        start = max(0, end - _TAIL_BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def last_head(path: Path) -> ChainTip | None:
    """The head at the end of a file; None if the file is empty or missing, or its last line is not a sealed record."""
    if not is_regular(path):
        return None
    try:
        with open_to_read(path) as file:
            return head_of(last_line(file, file.seek(0, os.SEEK_END))[0])
    except (FileNotFoundError, EOFError, zlib.error):
        return None


def head_before(chain: Chain) -> ChainTip:
    """The head of the newest closed file (also one that others closed), which the current file follows."""
    for path in reversed([path for path in chain.files() if path != chain.path]):
        head = last_head(path)
        if head is not None:
            return head
    return GENESIS
