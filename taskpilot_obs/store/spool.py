"""Where rows wait on disk while a PostgreSQL server is away: JSON lines, one a batch, in order, up to a size.

Each process appends to a file of its own and holds its lock. What a process left behind when it died is taken over by
the next one that replays. Written rows carry their identifiers, so a file that is replayed twice changes nothing.
A line survives the end of the process as soon as `append` returns; a loss of power may cost the last seconds.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from taskpilot_obs._support.guarded import logger
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreUnavailableError
from taskpilot_obs.semconv import WarningCode
from taskpilot_obs.store.rows import FEEDBACK_COLUMNS, LLM_COLUMNS, RUN_COLUMNS, VIOLATION_COLUMNS, Row, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Settled = Callable[[int, bool, bool], None]
    """Called with the number of records of a batch, whether it was written (else refused), and whether this process
    recorded it (else an earlier one)."""

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
_UNFIT: Final = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError)
"""What a writer raises for a value of another type than its column's, which no second try makes fit."""
_COLUMNS: Final = (LLM_COLUMNS, RUN_COLUMNS, FEEDBACK_COLUMNS, VIOLATION_COLUMNS)


def default_directory(store: str) -> Path:
    """A folder of its own for each store, under `$XDG_STATE_HOME` or `~/.local/state`.

    Raises:
        ConfigurationError: this user has no home directory.
    """
    try:
        state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    except RuntimeError as error:  # neither $HOME nor an entry of this user in the password database
        raise ConfigurationError(
            "this user has no home directory to keep waiting records in while the database is away: "
            "give StoreExporter spool_dir=, or set XDG_STATE_HOME"
        ) from error
    return Path(state) / "taskpilot-obs" / "spool" / sha256(store.encode()).hexdigest()[:16]


class Spool:
    """The rows of this process that wait.

    Args:
        directory: shared by all processes that write to the same store on this machine; made when it is needed.
        max_bytes: how much may wait there, over all processes.
    """

    def __init__(self, directory: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self.torn = 0
        """Lines that a crash left unfinished; they are skipped."""
        self._path = directory / f"{os.getpid()}-{token_hex(4)}.jsonl"
        self._file: BinaryIO | None = None
        self._read = 0
        self._written = 0

    @property
    def pending(self) -> bool:
        """Whether rows of this process wait."""
        return self._read < self._written

    def append(self, rows: Rows, records: int = 0) -> None:
        """Let the rows of one batch wait, all or none.

        Args:
            rows: of the batch.
            records: how many records they were made of, for the accounts.

        Raises:
            StoreError: the spool is full, or the disk refuses.
        """
        line = _encode(rows, records)
        try:
            if self._used() + len(line) > self.max_bytes:
                raise StoreError(f"the spool {self.directory} is full ({self.max_bytes} bytes)")
            if self._file is None:
                self._file = self._create()
            self._write(self._file, line)
        except OSError as error:
            raise StoreError(f"the spool {self.directory} cannot be written: {error.strerror}") from error

    def _write(self, file: BinaryIO, line: bytes) -> None:
        """Write a line whole or not at all: a nearly full disk takes a part of what it is given, without an error."""
        file.seek(self._written)
        left = memoryview(line)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(self._written)
            raise
        self._written += len(line)

    def check(self) -> None:
        """Log a warning where this process cannot write to the spool: it loses records while the server is away."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            is_fit = os.access(self.directory, os.W_OK | os.X_OK)
            reason = "" if is_fit else os.strerror(errno.EACCES)
        except OSError as error:
            is_fit, reason = False, error.strerror or str(error)
        if not is_fit:
            logger.warning(
                "taskpilot_obs: the spool %s cannot be written (%s): records are lost while the database is away; give "
                "StoreExporter another spool_dir= [%s]",
                self.directory,
                reason,
                WarningCode.SPOOL_UNWRITABLE,
            )

    def left_behind(self) -> bool:
        """Whether processes that have ended left rows, or it cannot be known, because the disk refuses to list them."""
        try:
            return any(self._is_abandoned(path) for path in self._orphans())
        except OSError:
            return True

    def _is_abandoned(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return os.fstat(file.fileno()).st_size > 0
        except OSError:  # its process lives, or it is gone
            return False

    def _create(self) -> BinaryIO:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return open(descriptor, "r+b", buffering=0)  # noqa: PTH123  a descriptor
        except (OSError, MemoryError):
            os.close(descriptor)
            with suppress(OSError):
                self._path.unlink()  # else the next batch would find it, and could not begin either
            raise

    def _used(self) -> int:
        """Bytes that wait in all files; one that is taken away meanwhile counts nothing."""
        total = 0
        for path in self.directory.glob("*.jsonl"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def replay(
        self,
        write: Callable[[Rows], None],
        *,
        lost: Callable[[StoreError], None],
        settled: Settled = lambda *_: None,
    ) -> None:
        """Write what waits: first what dead processes left, oldest first, then the lines of this one, in order.

        Args:
            write: writes one batch.
            lost: called with the error of a batch that the database refuses for good, which is skipped.
            settled: called when a batch waits no more.

        Raises:
            StoreUnavailableError: the database is still away; what was not written goes on waiting.
            StoreError: the disk refuses; what was not read goes on waiting.
        """
        try:
            for path in self._orphans():
                self._adopt(path, _Delivery(write, lost, settled, is_own=False))
            if self._file is not None:
                self._replay_own(self._file, _Delivery(write, lost, settled, is_own=True))
        except OSError as error:
            raise StoreError(f"the spool {self.directory} cannot be read: {error.strerror}") from error

    def _replay_own(self, file: BinaryIO, deliver: _Delivery) -> None:
        for line in self._lines(file, self._read):
            deliver(line)
            self._read += len(line)
        file.truncate(0)
        self._read = self._written = 0

    def _orphans(self) -> list[Path]:
        found = []
        for path in self.directory.glob("*.jsonl"):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found) if path != self._path]

    def _adopt(self, path: Path, deliver: _Delivery) -> None:
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # its process lives
            if os.fstat(file.fileno()).st_nlink:
                for line in self._lines(file, 0):
                    deliver(line)
                path.unlink()

    def _lines(self, file: BinaryIO, start: int) -> Iterator[bytes]:
        with open(file.fileno(), "rb", closefd=False) as reader:
            reader.seek(start)
            for line in reader:
                if not line.endswith(b"\n"):
                    self.torn += 1
                    return
                yield line

    def close(self, *, forked: bool = False) -> None:
        """Let go; an empty file is removed, one with rows waits for the next process.

        Args:
            forked: the file belongs to the parent process, which goes on using it.
        """
        if self._file is None:
            return
        if not self.pending and not forked:
            with suppress(OSError):  # the file is empty, or its rows are known by their identifiers
                self._path.unlink()
        self._file.close()
        self._file = None
        self._read = self._written = 0


class _Delivery(NamedTuple):
    """How the lines of one file are written."""

    write: Callable[[Rows], None]
    lost: Callable[[StoreError], None]
    settled: Settled
    is_own: bool

    def __call__(self, line: bytes) -> None:
        records, is_written = 1, True  # a damaged line counts as one
        try:
            parts = parsed_line(line)
            records = parts.get("records", 1)
            self.write(_decode(parts))
        except StoreUnavailableError:
            raise
        except StoreError as error:
            is_written = False
            self.lost(error)
        except _UNFIT as error:
            is_written = False
            self.lost(_refused(error))
        self.settled(records, is_written, self.is_own)


def _refused(error: Exception) -> StoreError:
    refused = StoreError(f"a line of the spool cannot be written: {type(error).__name__}")
    refused.__cause__ = error
    return refused


def _encode(rows: Rows, records: int = 0) -> bytes:
    parts = [{"columns": columns, "rows": part} for columns, part in zip(_COLUMNS, rows, strict=True)]
    line = {"records": records, **dict(zip(Rows._fields, parts, strict=True))}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def parsed_line(line: bytes) -> dict[str, Any]:
    """The fields of a line: the columns and rows of each table, and the number of records.

    Raises:
        StoreError: the line is damaged.
    """
    try:
        parts = dict(json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError("a line of the spool is damaged") from error
    for name in Rows._fields:
        part = parts.get(name)
        if not isinstance(part, dict) or not all(isinstance(part.get(each), list) for each in ("columns", "rows")):
            raise StoreError(f"a line of the spool is damaged: it lacks {name}")
    return parts


def _decode(parts: dict[str, Any]) -> Rows:
    """The rows of a line, also of one that a version with other columns wrote.

    Raises:
        StoreError: the line is damaged.
    """
    try:
        return Rows(*(_fit(parts[name], columns) for name, columns in zip(Rows._fields, _COLUMNS, strict=True)))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError("a line of the spool is damaged") from error


def _fit(part: dict[str, Any], columns: tuple[str, ...]) -> list[Row]:
    theirs = tuple(part["columns"])
    if theirs == columns:
        return [tuple(row) for row in part["rows"]]
    named = (dict(zip(theirs, row, strict=True)) for row in part["rows"])
    return [tuple(row.get(column) for column in columns) for row in named]
