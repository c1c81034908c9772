"""Verifies the chains of an audit log and reports the first record that is not as written."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from taskpilot_obs.audit.access import DamagedFileError, is_regular, open_to_read
from taskpilot_obs.audit.chain import GENESIS, ChainTip, Digest, check_line, digest_with, links
from taskpilot_obs.audit.files import Chain, Log, find_logs, lines
from taskpilot_obs.audit.lock import is_locked
from taskpilot_obs.audit.manifest import CLOSE, PRUNE, START, Anchor, is_genuine, parse_line, read_anchors, read_notes
from taskpilot_obs.semconv import Event, Field


class ChainFault(NamedTuple):
    """The first thing wrong with a chain."""

    file: str
    line: int | None
    """Line in the file, from 1; None if the problem concerns the whole file."""
    seq: int | None
    """Number of the expected record."""
    reason: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}" if self.seq is None else f"{place}: record {self.seq}: {self.reason}"


class ChainReport(NamedTuple):
    """The result of verifying one chain."""

    chain: str
    """The file that its writer writes to."""
    records: int
    """Number of consecutive valid records, up to the end or the first problem."""
    first_seq: int | None
    last_seq: int
    last_hash: str
    anchors: int
    """How many anchors match."""
    problem: ChainFault | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it has no problem."""
        return self.problem is None


def verify(path: Path | str, *, key: bytes | None = None, anchors: Iterable[Anchor] = ()) -> list[ChainReport]:
    """Check every chain of an audit log, in constant memory.

    It finds changed, deleted, swapped, duplicated and forged records, segments that are missing without having been
    pruned, and a tail that was cut off before the last anchor. A person who can write the log and the files beside it
    can cut the tail together with anchors and manifest, and without a key forge all of it. Only `anchors` stored
    elsewhere reveal that.

    Args:
        path: the log's `.jsonl` file, or a folder of logs.
        key: the key that the log is written with, if it has one.
        anchors: anchors stored elsewhere, oldest first for each chain.

    Returns:
        A report for each chain; the log is whole when all of them are.

    Raises:
        AuditLogError: there is no log.
        OSError: a file cannot be read.
    """
    digest = digest_with(key)
    kept = list(anchors)
    reports = []
    for log in find_logs(path):
        manifest = _Manifest(log, digest if key is not None else None)
        expected = kept + manifest.closed + _heads_that_others_saw(log)
        for chain in log.chains():
            own = sorted((anchor for anchor in expected if anchor.chain == chain.name), key=lambda each: each.seq)
            reports.append(_ChainWalk(chain, digest, manifest, own).report())
        present = {chain.name for chain in log.chains()}
        begun = manifest.started | {anchor.chain for anchor in kept if log.owns(anchor.chain)}
        reports += [_missing(log, name) for name in sorted(begun - present - manifest.gone)]
    return reports


class _Manifest:
    """The manifest of a log: closed segments, and pruned ones, which may be missing."""

    def __init__(self, log: Log, digest: Digest | None) -> None:
        self.started: set[str] = set()
        self.gone: set[str] = set()
        self.closed: list[Anchor] = []
        """The heads at which segments were closed."""
        self.ends: dict[str, ChainTip] = {}
        """The head at which each segment was closed, by its name."""
        self._pruned: dict[str, dict[ChainTip, None]] = {}
        for note in read_notes(log.manifest):
            if note.event == START:
                self.started.add(note.chain)
            elif note.event == CLOSE:
                self.closed.append(Anchor(note.chain, note.seq, note.hash, note.time))
                self.ends[note.segment] = ChainTip(note.seq, note.hash)
            elif note.event == PRUNE and is_genuine(note, digest):
                self._pruned.setdefault(note.chain, {})[ChainTip(note.seq, note.hash)] = None
                if note.segment == note.chain:
                    self.gone.add(note.chain)

    def may_follow(self, chain: str, head: ChainTip) -> bool:
        """Whether a segment that ended with this head was removed by retention."""
        return head in self._pruned.get(chain, ())

    def last_pruned(self, chain: str) -> ChainTip:
        """The newest record that retention removed."""
        return max(self._pruned.get(chain, ()), default=GENESIS, key=lambda head: head.seq)


def _missing(log: Log, name: str) -> ChainReport:
    problem = ChainFault(
        str(log.folder / name), None, None, "the chain was begun, but its files are gone and not pruned"
    )
    return ChainReport(name, 0, None, 0, GENESIS.hash, 0, problem)


def _heads_that_others_saw(log: Log) -> list[Anchor]:
    """Heads named in the first records of other processes' chains, which serve as anchors."""
    seen = []
    for chain in log.chains():
        if not chain.writer:
            continue
        first = next(iter(chain.files()), None)
        if first is not None:
            with open_to_read(first) as file:
                seen += _head_seen(next(lines(file), b""))
    return seen


def _head_seen(line: bytes) -> list[Anchor]:
    record = parse_line(line) or {}
    try:
        if record[Field.EVENT] != Event.CHAIN_START:
            return []
        said = record[Field.ATTRIBUTES]
        return [Anchor(str(said["chain"]), int(said["head_seq"]), str(said["head_hash"]), record[Field.TIMESTAMP])]
    except (ValueError, LookupError, TypeError):
        return []  # the walk over that chain reports its problem


class _ChainWalk:
    """One pass over a chain."""

    def __init__(self, chain: Chain, digest: Digest, manifest: _Manifest, expected: list[Anchor]) -> None:
        self._chain = chain
        self._digest = digest
        self._manifest = manifest
        size = chain.anchors.stat().st_size if chain.anchors.exists() else 0
        self._anchors = _in_order(read_anchors(chain.anchors, limit=size), expected)
        self._next = next(self._anchors, None)
        self._agreed = 0
        self._head = GENESIS
        self._first: int | None = None
        self._records = 0
        self._name_before = ""

    def report(self) -> ChainReport:
        problem = self._problem()
        return ChainReport(
            self._chain.name, self._records, self._first, self._head.seq, self._head.hash, self._agreed, problem
        )

    def _problem(self) -> ChainFault | None:
        with closing(_open_all(self._chain)) as files:
            for file in files:
                problem = self._file(file) or self._name(Path(file.name))
                if problem is not None:
                    return problem
        return self._end()

    def _name(self, path: Path) -> ChainFault | None:
        """Whether a segment has the name under which it was closed."""
        if not self._chain.is_segment(path):
            return None
        is_in_order, self._name_before = self._name_before < path.name, path.name
        if is_in_order and self._manifest.ends.get(path.name, self._head) == self._head:
            return None
        reason = "its name belongs to the segment that ends with another record: files were renamed or swapped"
        return ChainFault(str(path), None, None, reason)

    def _file(self, file: BinaryIO) -> ChainFault | None:
        try:
            return self._lines(file)
        except DamagedFileError as error:
            return ChainFault(file.name, None, self._head.seq + 1, str(error.strerror))

    def _lines(self, file: BinaryIO) -> ChainFault | None:
        head, digest = self._head, self._digest
        for number, line in enumerate(lines(file), 1):
            if self._first is None:
                head = self._start(line)
            elif number == 1:
                head = self._continue(line)
            reason, after = check_line(line, head, digest)
            if reason is not None and not line.endswith(b"\n"):
                if is_locked(self._chain.anchors) or self._is_copy(Path(file.name)):
                    return None  # a writer is at work, or was when the copy was made
                reason = "half a line: a writer was killed here, or the end was cut"
            if reason is None and not head.seq and self._chain.writer and not _head_seen(line):
                reason = "a further process' chain begins with chain.start: this was copied here from another"
            if reason is not None:
                self._head = head
                return ChainFault(file.name, number, head.seq + 1, reason)
            head = self._head = after
            self._records += 1
            if self._next is not None and self._next.seq <= head.seq and (reason := self._compare(head)):
                return ChainFault(file.name, number, head.seq, reason)
        return None

    def _start(self, line: bytes) -> ChainTip:
        """Determine what the first record must follow: nothing, or a pruned segment."""
        found = links(line)
        lawful = found is not None and self._manifest.may_follow(self._chain.name, found[0])
        head = found[0] if found is not None and lawful else GENESIS
        self._first = head.seq + 1
        self._skip_anchors(head)
        return head

    def _continue(self, line: bytes) -> ChainTip:
        """Determine what the first record of another file must follow: the previous record, or a pruned segment."""
        found = links(line)
        if found is None or found[0] == self._head or not self._manifest.may_follow(self._chain.name, found[0]):
            return self._head
        self._skip_anchors(found[0])
        return found[0]

    def _is_copy(self, path: Path) -> bool:
        """Whether a file is a copy, made by others, of a file of the chain."""
        return path != self._chain.path and not self._chain.is_segment(path)

    def _skip_anchors(self, head: ChainTip) -> None:
        while self._next is not None and self._next.seq <= head.seq:
            self._next = next(self._anchors, None)

    def _compare(self, head: ChainTip) -> str | None:
        while self._next is not None and self._next.seq <= head.seq:
            if self._next.head != head:
                return f"an anchor of {self._next.time} knows another record {self._next.seq}"
            self._agreed += 1
            self._next = next(self._anchors, None)
        return None

    def _end(self) -> ChainFault | None:
        if self._first is None:
            self._head = self._manifest.last_pruned(self._chain.name)
            self._skip_anchors(self._head)
        if self._next is None:
            return None
        reason = f"the log ends here, but an anchor of {self._next.time} knows record {self._next.seq}"
        return ChainFault(str(self._chain.path), None, self._head.seq + 1, reason)


def _in_order(stored: Iterator[Anchor], expected: list[Anchor]) -> Iterator[Anchor]:
    """Both kinds of anchors by number; the stored ones are read as they are needed."""
    waiting = iter(expected)
    other = next(waiting, None)
    for anchor in stored:
        while other is not None and other.seq <= anchor.seq:
            yield other
            other = next(waiting, None)
        yield anchor
    while other is not None:
        yield other
        other = next(waiting, None)


def _open_all(chain: Chain) -> Generator[BinaryIO, None, None]:
    """The chain's files in order; the one being written is opened first, so that it cannot be rotated away."""
    current = open_to_read(chain.path) if is_regular(chain.path) else None
    try:
        for path in chain.files():
            if current is None or not os.path.samestat(path.stat(), os.fstat(current.fileno())):
                with open_to_read(path) as file:
                    yield file
        if current is not None:
            yield current
    finally:
        if current is not None:
            current.close()
