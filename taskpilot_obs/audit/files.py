"""The files of an audit log, and what their names say.

audit.jsonl                               written now, by the process that holds the log's lock
audit.jsonl.20261121T093000.000001Z       a closed segment of it; the names sort by time
audit.<host>.<pid>.jsonl                  written by any other process: a chain of its own
audit.anchors, audit.<host>.<pid>.anchors the heads of each chain; the writer locks this file
audit.manifest                            segments that were closed, and those that were lawfully pruned
audit.torn                                halves of last lines that killed processes left
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from taskpilot_obs.audit.chain import GENESIS, ChainTip, head_of, links
from taskpilot_obs.exceptions import AuditLogError, ConfigurationError

SUFFIX = ".jsonl"
MAX_LINE = 64 * 2**20
"""A longer line is none of ours; a bound keeps reading in constant memory."""
_TAIL_BLOCK = 65_536
_NAME = re.compile(r"(?P<stem>.+?)(?P<writer>\.[A-Za-z0-9-]+\.\d+(?:-\d+)?)?(?:\.jsonl(?P<stamp>\..+)?|\.anchors)")


class Log(NamedTuple):
    """One audit log: a folder and the stem of its files' names."""

    folder: Path
    stem: str

    @property
    def manifest(self) -> Path:
        """Where closed and pruned segments are noted."""
        return self.folder / f"{self.stem}.manifest"

    @property
    def torn(self) -> Path:
        """Where halves of lines go."""
        return self.folder / f"{self.stem}.torn"

    def chain(self, writer: str = "") -> Chain:
        """The chain of one writer; the empty name is the process that holds the lock."""
        return Chain(self, writer)

    def owns(self, name: str) -> bool:
        """Whether a file of this name would be one of its chains'."""
        match = _NAME.fullmatch(name)
        return match is not None and match["stem"] == self.stem

    def chains(self) -> list[Chain]:
        """Every chain of which a file is there, the lock owner's first."""
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
        """The closed segments, by the number of their first record, whoever rotated them."""
        named = [self.log.folder / name for name in _names(self.log.folder) if name.startswith(f"{self.name}.")]
        found = [path for path in named if path.is_file()]
        return sorted(found, key=lambda path: (_first_seq(path), path.name))


def log_at(path: Path | str) -> Log:
    """The log that is written to this path.

    Raises:
        ConfigurationError: the name does not end in `.jsonl`, which is how its segments are told from all else.
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
            f"audit log {str(path)!r}: a name with {SUFFIX} in its middle, or a line break, cannot be told from those "
            f"of its segments; choose another, for example audit{SUFFIX}"
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


def segment_stamp(now: datetime, chain: Chain) -> str:
    """The end of a new segment's name; later than every one before it, even when the clock stepped back."""
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    last = max(
        (name[len(chain.name) + 1 :] for name in _names(chain.log.folder) if _is_segment(name, chain)), default=""
    )
    while stamp <= last:
        stamp = f"{last}1"
    return stamp


def _is_segment(name: str, chain: Chain) -> bool:
    return name.startswith(f"{chain.name}.2")


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _first_seq(path: Path) -> int:
    """Number of a segment's first record; -1 if its first line is none, so that verification begins with it."""
    with path.open("rb") as file:
        found = links(file.readline(MAX_LINE))
    return -1 if found is None else found[0].seq


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, ended by a line feed and nothing else; the last may lack it."""
    while line := file.readline(MAX_LINE):
        yield line


def last_lines(file: BinaryIO, end: int) -> tuple[bytes, bytes]:
    """The last whole line before `end`, and what stands after it (a torn line); empty where there is none."""
    tail, start = b"", end
    while start > 0 and tail.count(b"\n") < 2:  # noqa: PLR2004  two line feeds enclose one line
        block = min(_TAIL_BLOCK, start)
        start -= block
        file.seek(start)
        tail = file.read(block) + tail
    whole, newline, torn = tail.rpartition(b"\n")
    return (whole.rpartition(b"\n")[2] + newline, torn)


def last_head(path: Path) -> ChainTip | None:
    """The head that a file ends with; None if it is empty, missing, or ends with what is not a sealed record."""
    try:
        with path.open("rb") as file:
            return head_of(last_lines(file, file.seek(0, os.SEEK_END))[0])
    except FileNotFoundError:
        return None


def head_before(chain: Chain) -> ChainTip:
    """The head of the newest closed segment, which the file written now follows."""
    for path in reversed(chain.segments()):
        head = last_head(path)
        if head is not None:
            return head
    return GENESIS
