"""The writer of a chain: holds its lock, seals, writes, rotates, and repairs what a killed process left.

A chain that cannot be continued (its file does not end with a record under the key) is left unchanged, so that `verify`
can report the line. Records then go to a new chain, whose first record states which file it follows and why.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from taskpilot_obs._support.guarded import guarded, logger
from taskpilot_obs._support.hooks import settled
from taskpilot_obs._support.timestamps import rfc3339
from taskpilot_obs.audit import manifest
from taskpilot_obs.audit.access import UnfitFileError, open_own
from taskpilot_obs.audit.chain import GENESIS, ChainTip, check_line, digest_with, head_of, links, seal
from taskpilot_obs.audit.encoding import MAX_STRING
from taskpilot_obs.audit.files import Chain, Log, head_before, last_head, last_line, segment_stamp, writer_name
from taskpilot_obs.audit.lock import same_file, take_lock
from taskpilot_obs.audit.prune import first_time, note, retain
from taskpilot_obs.audit.rows import audit_text
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Attributes, AuditEvent, Origin
from taskpilot_obs.semconv import Event, WarningCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskpilot_obs._support.counters import InternalCounters

FOLDER_MODE = 0o700
_MAX_WRITERS = 100
_CHUNK = 98_304
"""Bytes written at a time: each write releases the interpreter lock, and larger buffers need new memory each time."""


class AuditOptions(NamedTuple):
    """The options of an audit log."""

    key: bytes | None = None
    """Key of the hash chain (HMAC-SHA-256). Without it anyone who can write the file can recompute the chain."""
    max_bytes: int = 64 * 2**20
    """A file that would exceed this size is closed, and a new one begun."""
    max_age_s: float = 86_400.0
    """A file whose first record is older than this, in seconds, is closed before the next record."""
    keep_segments: int | None = None
    """How many closed files to keep for each writer; None keeps all (`taskpilot-obs audit prune` removes by age)."""
    durability: Literal["flush", "fsync"] = "flush"
    """`flush`: passed to the operating system, safe if the process is killed. `fsync`: on disk after each batch."""
    anchor_every: int = 1_000
    """Records between two writes of the chain's head to the anchor file."""
    max_string: int = MAX_STRING
    """How many characters of one string are kept."""


class _Attempt(NamedTuple):
    """How an attempt to take a chain ended."""

    is_taken: bool
    refusal: str | None = None
    """Why the chain cannot be continued; None if it was taken, or if another writer has it."""


_TAKEN = _Attempt(is_taken=True)
_LOCKED = _Attempt(is_taken=False)


class AuditWriter:
    """Appends to the log's main file, or to a separate file if another process has the lock.

    Args:
        log: the log.
        options: its options.
        service: name of the service, for the first record of another process' chain.
        counters: where a failing rotation, anchor or callable is counted.
        on_anchor: called with each anchor, for example to send it elsewhere.

    Raises:
        OSError: the folder or a file cannot be created or written.
        UnfitFileError: a file at the log's path is a link, belongs to another user, or others may write or read it.
        ConfigurationError: no file is left for this process: too many have writers, or cannot be continued.
    """

    def __init__(
        self,
        log: Log,
        options: AuditOptions,
        *,
        service: str,
        counters: InternalCounters | None,
        on_anchor: Callable[[manifest.Anchor], object] | None,
    ) -> None:
        self._log = log
        self._options = options
        self._service = service
        self._counters = counters
        self._on_anchor = on_anchor
        self._digest = digest_with(options.key)
        self._note_digest = None if options.key is None else self._digest
        self._chain: Chain = log.chain()
        self._file = self._lock = -1
        self._size, self._born = 0, 0.0
        self._head = self._anchored = GENESIS
        self._was_open = False
        self.written = 0
        """Total number of callers' records written."""
        self._open()

    @property
    def path(self) -> str:
        """The file that is written now."""
        return str(self._chain.path)

    def append(self, texts: Sequence[str]) -> None:
        """Seal and write records.

        Raises:
            OSError: some were not written; `written` counts those that were. No incomplete line is left.
            ConfigurationError: the file had to be reopened, and no file is left for this process.
        """
        self._renew()
        lines: list[str] = []
        max_bytes, digest = self._options.max_bytes, self._digest
        seq, previous = self._head
        waiting, room = 0, min(_CHUNK, max_bytes - self._size)
        for text in texts:
            seq += 1
            line, previous = seal(text, seq, previous, digest)
            waiting += len(line)
            if waiting > room:
                self._write(lines)
                lines, waiting = [], len(line)
                if self._size + waiting > max_bytes and self._size:
                    with guarded("audit_log.rotate", self._counters):
                        self._rotate()
                    max_bytes += self._size  # if that failed, do not retry for every line
                room = min(_CHUNK, max_bytes - self._size)
            lines.append(line)
        self._write(lines)
        if self._options.durability == "fsync":
            self.sync()
        if self._head.seq - self._anchored.seq >= self._options.anchor_every:
            self._anchor()

    def _write(self, lines: list[str]) -> None:
        data = memoryview("".join(lines).encode("ascii"))
        done, size = 0, len(data)
        try:
            while done < size:
                done += os.write(self._file, data[done:])
        finally:  # whatever was raised, also for want of memory, the head is that of the last line in the file
            if done < size:
                lines = self._keep_whole(lines, done)
                size = sum(map(len, lines))
            if lines:
                self._size += size
                self._head = head_of(lines[-1].encode("ascii")) or self._head
                self.written += len(lines)

    def _keep_whole(self, lines: list[str], done: int) -> list[str]:
        """Count the completely written lines, and cut off an incomplete one."""
        whole, count = 0, 0
        while whole + len(lines[count]) <= done:
            whole, count = whole + len(lines[count]), count + 1
        if whole < done:
            try:
                os.ftruncate(self._file, self._size + whole)
            except OSError:
                self._close_file()  # reopening moves the incomplete line away
        return lines[:count]

    def _renew(self) -> None:
        """Detect that the file was rotated, cut or removed by others; rotate it if it is old."""
        if self._is_stale():
            self._open()
        elif self._size and time.time() - self._born >= self._options.max_age_s:
            with guarded("audit_log.rotate", self._counters):
                self._rotate()

    def _is_stale(self) -> bool:
        return (
            self._file < 0
            or not same_file(self._file, self._chain.path)
            or not same_file(self._lock, self._chain.anchors)
            or os.fstat(self._file).st_size != self._size
        )

    def _open(self) -> None:
        """Take a chain that can be continued, or begin one; move an incomplete last line away, and find the head."""
        self._close_file()
        self._log.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if self._lock >= 0 and same_file(self._lock, self._chain.anchors):
            problem = self._continue_chain(self._head)
            if problem is None:
                return
        else:
            self._release()
            problem = None
        self._take_chain(problem)
        self._was_open = True

    def _take_chain(self, problem: str | None) -> None:
        """Take the first unlocked, intact chain: the log's own, or one that follows it.

        Args:
            problem: why this writer's previous chain cannot be continued.
        """
        refused: list[tuple[Chain, str]] = []
        for number in range(_MAX_WRITERS):
            chain = self._log.chain(writer_name(number, is_recovery=problem is not None))
            attempt = self._try(chain, problem)
            if attempt.is_taken:
                _report(refused)
                return
            if attempt.refusal is not None:
                refused.append((chain, attempt.refusal))
                problem = problem or attempt.refusal
        raise ConfigurationError(
            f"audit log {str(self._log.chain().path)!r}: no file is left for this process: "
            f"{_MAX_WRITERS - len(refused)} have a writer already, {len(refused)} cannot be continued; shut down "
            "exporters that are not needed, and move away files that `taskpilot-obs audit verify` reports"
        )

    def _try(self, chain: Chain, problem: str | None) -> _Attempt:
        """Take this chain, unless another writer has it or it cannot be continued."""
        try:
            lock = take_lock(chain.anchors)
            if lock is None:
                return _LOCKED
            self._chain, self._lock = chain, lock
            refusal = self._continue_chain(None, problem)
        except UnfitFileError as error:
            if not self._was_open or error.filename == str(self._log.manifest):  # which every other chain needs too
                raise
            refusal = f"{error.filename} {error.strerror}"
        if refusal is None:
            return _TAKEN
        self.abandon()
        return _Attempt(is_taken=False, refusal=refusal)

    def _continue_chain(self, known: ChainTip | None, problem: str | None = None) -> str | None:
        """Open the file of the chain and find its head; return why it cannot be continued, or None.

        Args:
            known: the head, if this writer has held the chain before.
            problem: why this chain follows another; stated in its first record.
        """
        try:
            self._open_file(os.O_CREAT)
            tip = known or self._find_head(self._mend())
            if tip is None:
                return "it ends with a line that is not a record under the key given"
            if known is not None:
                self._mend()
            self._head = tip
            self._anchored = self._last_anchor()
            if not self._head.seq and not self._size:
                self._begin(problem)
        except UnfitFileError as error:
            self.abandon()
            if known is None:
                raise
            return f"{error.filename} {error.strerror}"
        except BaseException:  # its head may be that of another chain
            self.abandon()
            raise
        return None

    def _open_file(self, how: int) -> None:
        self._file = open_own(self._chain.path, os.O_RDWR | os.O_APPEND | how)
        self._size = os.fstat(self._file).st_size
        self._born = first_time(self._chain.path) if self._size else time.time()

    def _mend(self) -> bytes:
        """Move an incomplete last line to the `.torn` file; return the last whole line."""
        with open(self._file, "rb", closefd=False) as file:  # not `os.fdopen`: eventlet's version would close it
            line, end = last_line(file, self._size)
            if end < self._size:
                manifest.append_rest(self._log.torn, file, end)
                self._size = end
                os.ftruncate(self._file, end)
        return line

    def _find_head(self, line: bytes) -> ChainTip | None:
        """The head that the next record follows; None if the line is not a record under this key."""
        if not line:
            pruned = [
                ChainTip(entry.seq, entry.hash)
                for entry in manifest.read_notes(self._log.manifest)
                if entry.chain == self._chain.name and manifest.is_genuine(entry, self._note_digest)
            ]
            return max(*pruned, head_before(self._chain), GENESIS, key=lambda head: head.seq)
        found = links(line)
        if found is None or check_line(line, found[0], self._digest)[0] is not None:
            return None
        return ChainTip(found[0].seq + 1, found[1])

    def _last_anchor(self) -> ChainTip:
        """Return the last anchored record; log a warning if anchors go beyond the records."""
        last = deque(manifest.read_anchors(self._chain.anchors), maxlen=1)
        if last and last[0].seq > self._head.seq:
            logger.warning(
                "taskpilot_obs: audit log %s ends with record %d, but record %d was written: it has been cut [%s]",
                self._chain.path,
                self._head.seq,
                last[0].seq,
                WarningCode.AUDIT_LOG_CUT,
            )
        return min(last[0].head, self._head) if last else GENESIS

    def _begin(self, problem: str | None) -> None:
        """Record that the chain exists; a separate chain begins with a record that links it to the log."""
        note(self._chain, manifest.START, self._chain.path, GENESIS, self._note_digest)
        if not self._chain.writer:
            return
        owner = self._log.chain()
        known = last_head(owner.path) or head_before(owner)
        attributes: Attributes = {"chain": owner.name, "head_seq": known.seq, "head_hash": known.hash}
        if problem is not None:
            attributes = {**attributes, "reason": problem}
        text = audit_text(AuditEvent(Event.CHAIN_START, Origin(), time.time_ns(), attributes), self._service)
        line, _ = seal(text or "", 1, GENESIS.hash, self._digest)
        self._write([line])
        self.written -= 1

    def _rotate(self) -> None:
        """Close the file under a segment name and begin a new one; the chain continues."""
        path = self._chain.path
        closed = path.with_name(f"{path.name}.{segment_stamp(datetime.now(UTC), self._chain)}")
        path.rename(closed)
        old = self._file
        self._open_file(os.O_CREAT | os.O_EXCL)
        os.close(old)
        note(self._chain, manifest.CLOSE, closed, self._head, self._note_digest)
        self._anchor()
        if self._options.keep_segments is not None:
            retain(self._chain, self._options.keep_segments, self._note_digest)

    def _anchor(self, *, closed: bool = False) -> None:
        if self._lock < 0:  # the chain may be another process's by now
            return
        if self._head == self._anchored or not self._head.seq:
            return
        anchor = manifest.Anchor(self._chain.name, self._head.seq, self._head.hash, rfc3339(time.time_ns()), closed)
        with guarded("audit_log.anchor", self._counters):
            manifest.append(self._chain.anchors, anchor, sync=self._options.durability == "fsync")
            self._anchored = self._head
        if self._on_anchor is not None:
            with guarded("audit_log.on_anchor", self._counters):
                settled(self._on_anchor(anchor))

    def sync(self) -> None:
        """Sync written lines to the disk.

        Raises:
            OSError: the disk failed.
        """
        if self._file >= 0:
            os.fsync(self._file)

    def close(self) -> None:
        """Write the last anchor, if this writer has the chain, and release it."""
        self._anchor(closed=True)
        self.abandon()

    def abandon(self) -> None:
        """Only close the files, as a forked child does with those of its parent."""
        self._close_file()
        self._release()

    def _close_file(self) -> None:
        file, self._file = self._file, -1  # in this order, because a fork in between must not close a descriptor twice
        if file >= 0:
            os.close(file)

    def _release(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def _report(refused: list[tuple[Chain, str]]) -> None:
    """Log which chains could not be continued, once another is written instead."""
    for chain, refusal in refused:
        logger.error(
            "taskpilot_obs: audit log %s: %s. It is left as it is (`taskpilot-obs audit verify` names the line), "
            "and a new chain begins beside it [%s]",
            chain.path,
            refusal,
            WarningCode.AUDIT_LOG_BROKEN,
        )
