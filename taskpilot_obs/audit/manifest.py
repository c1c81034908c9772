"""The files beside an audit log: anchors (earlier heads of a chain) and the manifest (closed and pruned segments)."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from taskpilot_obs.audit.access import open_own, open_to_read
from taskpilot_obs.audit.chain import ChainTip, Digest
from taskpilot_obs.audit.files import MAX_LINE


class Anchor(NamedTuple):
    """An earlier head of a chain. Stored elsewhere, it proves that no record up to it was removed or rewritten."""

    chain: str
    """Name of the chain's file, without a folder."""
    seq: int
    hash: str
    time: str
    """When it was taken: RFC 3339, UTC."""
    closed: bool = False
    """Whether the writer shut down in order here."""

    @property
    def head(self) -> ChainTip:
        """The record that it names."""
        return ChainTip(self.seq, self.hash)


class Note(NamedTuple):
    """One line of the manifest."""

    event: str
    """`start` of a chain, `close` of a segment, `prune` of a segment or of a whole chain."""
    chain: str
    segment: str
    """Name of the file, without a folder."""
    seq: int
    """Number of its last record."""
    hash: str
    """Hash of its last record."""
    time: str
    mac: str = ""
    """HMAC-SHA-256 over the rest of the note, where the log has a key."""


_COPY = 1_048_576
START = "start"
CLOSE = "close"
PRUNE = "prune"


def append(path: Path, entry: NamedTuple, *, sync: bool = False) -> None:
    """Add a line of JSON to a file.

    Args:
        path: the file, which is made if it is missing.
        entry: what the line holds; its fields are the keys.
        sync: whether the line is on the disk when this returns.

    Raises:
        OSError: it could not be written.
    """
    append_line(path, (json.dumps(entry._asdict(), separators=(",", ":")) + "\n").encode("ascii"), sync=sync)


def append_line(path: Path, line: bytes, *, sync: bool = False) -> None:
    """Add a line, after ending an incomplete one that a killed writer left, which readers skip.

    Args:
        path: the file, which is made if it is missing.
        line: with its newline.
        sync: whether the line is on the disk when this returns.

    Raises:
        OSError: it could not be written, or the file is not fit to be written to.
    """
    file = open_own(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        end = os.lseek(file, 0, os.SEEK_END)
        is_torn = end > 0 and os.pread(file, 1, end - 1) != b"\n"
        if is_torn:
            line = b"\n" + line
        if os.write(file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if sync:
            os.fsync(file)
    finally:
        os.close(file)


def append_rest(path: Path, source: BinaryIO, start: int) -> None:
    """Append another file's content from `start` on as one line, synced to disk, in constant memory.

    Args:
        path: the file to append to.
        source: the other file.
        start: the first byte of it to append.

    Raises:
        OSError: it could not be written, or the file is not fit to be written to.
    """
    source.seek(start)
    file = open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with open(file, "wb") as target:  # noqa: PTH123  a descriptor
        shutil.copyfileobj(source, target, _COPY)
        target.write(b"\n")
        target.flush()
        os.fsync(file)


def read_anchors(path: Path, limit: int | None = None) -> Iterator[Anchor]:
    """The anchors in a file, in order.

    Args:
        path: the file.
        limit: how many bytes of it to read; None for all.
    """
    for entry in _entries(path, limit):
        chain, seq, sealed, time = (entry.get(name) for name in ("chain", "seq", "hash", "time"))
        if isinstance(chain, str) and isinstance(seq, int) and isinstance(sealed, str) and isinstance(time, str):
            yield Anchor(chain, seq, sealed, time, entry.get("closed") is True)


def read_notes(path: Path) -> Iterator[Note]:
    """The notes in a manifest, in order."""
    for entry in _entries(path, None):
        seq = entry.get("seq")
        texts = {name: value for name in Note._fields if isinstance(value := entry.get(name), str)}
        if isinstance(seq, int) and len(texts) == len(Note._fields) - 1:
            yield Note(seq=seq, **texts)


def _entries(path: Path, limit: int | None) -> Iterator[dict[str, object]]:
    """The JSON objects of a file, one per line. Incomplete lines are skipped, because they prove nothing."""
    left = limit
    try:
        file = open_to_read(path)
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(MAX_LINE):
            if left is not None:
                left -= len(line)
                if left < 0:
                    return
            entry = parse_line(line)
            if entry is not None:
                yield entry


def parse_line(line: bytes, parse_float: Callable[[str], object] = float) -> dict[str, Any] | None:
    """The JSON object on a line; None for anything else, nesting too deep to parse included.

    Args:
        line: with or without its newline.
        parse_float: makes the value of a number with a fraction or an exponent from its text.
    """
    try:
        entry = json.loads(line, parse_float=parse_float)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def sealed_note(note: Note, digest: Digest | None) -> Note:
    """The note with its `mac`; unchanged where the log has no key.

    Args:
        note: the note as it is written, whatever its `mac`.
        digest: the keyed digest of the log; None if it has no key.
    """
    return note if digest is None else note._replace(mac=_mac(note, digest))


def is_genuine(note: Note, digest: Digest | None) -> bool:
    """Whether a note was written with the key; always true if the log has no key.

    Args:
        note: a note as it was read.
        digest: the keyed digest of the log; None if it has no key.
    """
    return digest is None or note.mac == _mac(note, digest)


def _mac(note: Note, digest: Digest) -> str:
    return digest(json.dumps(note._replace(mac=""), separators=(",", ":")).encode("ascii")).hexdigest()
