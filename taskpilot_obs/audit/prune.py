"""Retention: whole old segments go, and the manifest records it, so that the chain still verifies."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from taskpilot_obs._support.timestamps import unix_seconds, utc_text
from taskpilot_obs.audit.access import open_to_read
from taskpilot_obs.audit.chain import ChainTip, Digest, digest_with
from taskpilot_obs.audit.files import MAX_LINE, Chain, Log, find_logs, last_head, last_line
from taskpilot_obs.audit.lock import is_locked
from taskpilot_obs.audit.manifest import PRUNE, Note, append, parse_line, read_notes, sealed_note
from taskpilot_obs.exceptions import AuditLogError
from taskpilot_obs.semconv import Field


def prune(path: Path | str, keep: timedelta, *, key: bytes | None = None) -> list[Path]:
    """Remove whole closed segments whose last record is older than `keep`, oldest first.

    The file that is being written stays. The chain of a process that is gone goes as a whole once all of it is old.

    Args:
        path: the log's `.jsonl` file, or a folder of logs.
        keep: how long records must stay.
        key: the key that the log is written with, if it has one.

    Returns:
        The files that were removed.

    Raises:
        AuditLogError: there is no log, it has a key that was not given, or an old segment does not end with a record.
        OSError: a file could not be removed.
    """
    if keep < timedelta(0):
        raise AuditLogError(f"keep {keep}: it must not be negative")
    cutoff = utc_text(datetime.now(UTC) - keep)
    digest = None if key is None else digest_with(key)
    removed: list[Path] = []
    for log in find_logs(path):
        _check_key(log, digest)
        for chain in log.chains():
            removed += _prune_chain(chain, cutoff, digest)
    return removed


def _check_key(log: Log, digest: Digest | None) -> None:
    if digest is None and any(note.mac for note in read_notes(log.manifest)):
        raise AuditLogError(f"{log.manifest}: this log has a key; without it the pruning would look like a theft")


def _prune_chain(chain: Chain, cutoff: str, digest: Digest | None) -> list[Path]:
    removed: list[Path] = []
    for segment in chain.segments():
        if _last_time(segment) >= cutoff:
            return removed
        prune_segment(chain, segment, digest)
        removed.append(segment)
    if chain.writer and chain.path.exists() and not is_locked(chain.anchors) and _last_time(chain.path) < cutoff:
        prune_segment(chain, chain.path, digest)
        chain.anchors.unlink(missing_ok=True)
        removed.append(chain.path)
    return removed


def first_time(path: Path) -> float:
    """When a file's first record was written, in Unix seconds; now if it is unknown."""
    try:
        with open_to_read(path) as file:
            record = parse_line(file.readline(MAX_LINE)) or {}
        return unix_seconds(record[Field.TIMESTAMP])
    except (OSError, ValueError, LookupError, TypeError):
        return time.time()


def _last_time(path: Path) -> str:
    """The time of a file's last record; of an empty file, the end of time, so that it stays."""
    with open_to_read(path) as file:
        line, _ = last_line(file, file.seek(0, os.SEEK_END))
    if not line:
        return "~"
    record = parse_line(line)
    if record is None or Field.TIMESTAMP not in record:
        raise AuditLogError(f"{path}: its last line is not an audit record; verify the log before it is pruned")
    return str(record[Field.TIMESTAMP])


def prune_segment(chain: Chain, segment: Path, digest: Digest | None) -> None:
    """Note in the manifest that a segment goes, then remove it.

    Raises:
        AuditLogError: it does not end with a sealed record.
        OSError: it could not be noted or removed.
    """
    head = last_head(segment)
    if head is None:
        raise AuditLogError(f"{segment}: its last line is not an audit record; verify the log before it is pruned")
    note(chain, PRUNE, segment, head, digest)
    segment.unlink()


def retain(chain: Chain, keep_segments: int, digest: Digest | None) -> None:
    """Prune the oldest closed segments beyond this number."""
    segments = chain.segments()
    for segment in segments[: max(0, len(segments) - keep_segments)]:
        prune_segment(chain, segment, digest)


def note(chain: Chain, event: str, segment: Path, head: ChainTip, digest: Digest | None) -> None:
    """Write a line into the manifest, down to the disk: what it says must not be lost when the segment is."""
    now = utc_text(datetime.now(UTC))
    entry = Note(event, chain.name, segment.name, head.seq, head.hash, now)
    append(chain.log.manifest, sealed_note(entry, digest), sync=True)
