"""The audit log in a file: JSON Lines, sealed in a hash chain."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from taskpilot_obs._pipeline.exporter import PartialExportError
from taskpilot_obs._support.fork import renew_in_child
from taskpilot_obs.audit.access import UnfitFileError
from taskpilot_obs.audit.files import log_at
from taskpilot_obs.audit.rows import AuditLines
from taskpilot_obs.audit.writer import AuditOptions, AuditWriter
from taskpilot_obs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.audit.manifest import Anchor
    from taskpilot_obs.records import Record

UNFIT = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Exceptions that formatting a broken record may raise; only that record is lost."""


class AuditLogExporter:
    """Writes one JSON line to the audit log for each record.

    One process owns `path`; any other that writes to the same log, a forked child included, gets a file of its own
    beside it (`audit.<host>.<pid>.jsonl`). If a file cannot be continued, a new chain begins in
    `audit.recovered.1.jsonl`. New files have mode 0600, and missing folders are created with 0700. Symbolic links
    are not followed.

    Args:
        path: the file; its name ends in `.jsonl`.
        options: key, rotation, retention, durability, anchors.
        service: name of the service, in each record.
        counters: where a failing rotation, anchor or `on_anchor` is counted.
        on_anchor: called with each anchor on the writing thread, to store it where the log's writer has no access.

    Raises:
        ConfigurationError: an option is wrong, or the file cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        options: AuditOptions | None = None,
        *,
        service: str = "",
        counters: InternalCounters | None = None,
        on_anchor: Callable[[Anchor], object] | None = None,
    ) -> None:
        self._log = log_at(path)
        self._options = checked(options or AuditOptions())
        self._service = service
        self._lines = AuditLines(service, self._options.max_string)
        self._counters = counters
        self._on_anchor = on_anchor
        self._lock = threading.Lock()
        self._pid = os.getpid()
        try:
            self._writer: AuditWriter | None = self._open()
        except UnfitFileError as error:
            raise self._unfit(error) from error
        except OSError as error:
            raise ConfigurationError(
                f"audit log {str(path)!r} cannot be written ({error.strerror or error}): "
                "choose a path in a folder that this process may write to, with room on its disk, or free it"
            ) from error
        renew_in_child(self)

    def _open(self) -> AuditWriter:
        return AuditWriter(
            self._log, self._options, service=self._service, counters=self._counters, on_anchor=self._on_anchor
        )

    @property
    def path(self) -> str:
        """The path of the file that this process writes."""
        with self._lock:
            return self._log.chain().path.as_posix() if self._writer is None else self._writer.path

    def export(self, batch: Sequence[Record], /) -> None:
        """Write a batch.

        Raises:
            PartialExportError: a record was invalid, or the disk failed; it reports how many records were written.
        """
        texts, unfit, cause = self._texts(batch)
        with self._lock:
            missing, refusal = self._append(texts)
        if cause := refusal or cause:
            raise PartialExportError(len(batch) - unfit - missing) from cause

    def _append(self, texts: list[str]) -> tuple[int, Exception | None]:
        """Append lines; return how many could not be written, and why."""
        before = after = 0
        try:
            writer = self._writer if self._writer is not None and self._pid == os.getpid() else self._reopen()
            before = after = writer.written
            try:
                writer.append(texts)
            finally:
                after = writer.written
        except (OSError, MemoryError, ConfigurationError) as error:
            cause = self._unfit(error) if isinstance(error, UnfitFileError) else error
            return len(texts) - (after - before), cause
        return 0, None

    def _unfit(self, error: UnfitFileError) -> ConfigurationError:
        """The error whose text is logged too, because it quotes no data of the application."""
        return ConfigurationError(
            f"audit log {str(self._log.chain().path)!r} is not written: {error.filename} {error.strerror}. Move it "
            "away, or choose another path in a folder that only this user can write to"
        )

    def _reopen(self) -> AuditWriter:
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        self._writer = self._open()
        self._pid = os.getpid()
        return self._writer

    def _texts(self, batch: Sequence[Record]) -> tuple[list[str], int, Exception | None]:
        """Return the records' lines, how many records were invalid, and the last error."""
        texts: list[str] = []
        lost, cause = 0, None
        text_of = self._lines.text
        for record in batch:
            try:
                text = text_of(record)
            except UNFIT as error:
                lost, cause = lost + 1, error
                continue
            if text is not None:
                texts.append(text)
        return texts, lost, cause

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002  writing does not wait; the disk takes what it takes
        """With `durability="fsync"`, sync the file to disk; otherwise the operating system already has the lines."""
        with self._lock:
            if self._writer is not None and self._options.durability == "fsync":
                self._writer.sync()
        return True

    def shutdown(self, timeout_s: float) -> None:  # noqa: ARG002  the same
        """Write the last anchor and close the file; a later batch reopens it."""
        with self._lock:
            if self._writer is not None and self._pid == os.getpid():
                self._writer.close()
            self._writer = None

    def after_fork(self) -> None:
        """In a forked child, drop the parent's file and lock; the first record opens a new file."""
        self._lock = threading.Lock()
        if self._writer is not None:
            self._writer.abandon()
        self._writer = None


def checked(options: AuditOptions) -> AuditOptions:
    """Validate the options and return them.

    Raises:
        ConfigurationError: an option is wrong; the message names it, what was given and what is allowed.
    """
    rules = {
        "key": (options.key is None or len(options.key) >= _MIN_KEY, f"at least {_MIN_KEY} random bytes, or None"),
        "max_bytes": (options.max_bytes >= _MIN_FILE, f"at least {_MIN_FILE}"),
        "max_age_s": (options.max_age_s > 0, "more than 0 seconds"),
        "keep_segments": (options.keep_segments is None or options.keep_segments >= 0, "0 or more, or None for all"),
        "durability": (options.durability in ("flush", "fsync"), "'flush' or 'fsync'"),
        "anchor_every": (options.anchor_every >= 1, "at least 1"),
        "max_string": (options.max_string >= _MIN_STRING, f"at least {_MIN_STRING}"),
    }
    for name, (is_fine, allowed) in rules.items():
        if not is_fine:
            given = "one that is too short" if name == "key" else repr(getattr(options, name))
            raise ConfigurationError(f"audit log option {name}: {given} was given, allowed is {allowed}")
    return options


_MIN_KEY = 16
_MIN_FILE = 4_096
_MIN_STRING = 64
