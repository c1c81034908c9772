"""The hash chain, which reveals changes to written records.

A line is the record's JSON, then `,"seq":N,"prev_hash":"…","hash":"…"}`. The hash is SHA-256, or HMAC-SHA-256 under
the user's key, over the previous record's hash and every byte of the line before `,"hash":"`. Lines are
compared byte for byte and not parsed, so that even a differently spelt escape is found.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from taskpilot_obs.semconv import Field

HASH_LENGTH = 64
_SEAL_LENGTH = len(f',"{Field.HASH}":""}}') + HASH_LENGTH
_LONGEST_LINKS = 128
"""Bytes of a line before its hash that hold its number and the previous hash."""
_LINKS = re.compile(
    rb'.*,"%b":(\d{1,19}),"%b":"([0-9a-f]{64})"' % (Field.SEQ.encode(), Field.PREV_HASH.encode()), re.DOTALL
)


class Hashed(Protocol):
    """The result of a hash function."""

    def hexdigest(self) -> str:
        """The hash in hexadecimal digits."""


Digest = Callable[[bytes], Hashed]


class ChainTip(NamedTuple):
    """The last record of a chain, by number and hash."""

    seq: int
    hash: str


GENESIS = ChainTip(0, "0" * HASH_LENGTH)
"""The tip before the first record of a chain."""


def digest_with(key: bytes | None) -> Digest:
    """Return the hash function of a chain: SHA-256, or HMAC-SHA-256 with a key."""
    if key is None:
        return hashlib.sha256
    keyed = hmac.new(key, digestmod="sha256")

    def digest(message: bytes) -> Hashed:
        each = keyed.copy()  # copying saves hashing the key's two blocks, a third of the time
        each.update(message)
        return each

    return digest


def seal(text: str, seq: int, previous: str, digest: Digest) -> tuple[str, str]:
    """Seal a record.

    Args:
        text: the record's JSON in ASCII, without the closing brace.
        seq: its number.
        previous: hash of the record before it.
        digest: the hash function of the chain.

    Returns:
        The whole line, and the record's hash.
    """
    body = f'{text},"seq":{seq},"prev_hash":"{previous}"'
    sealed = digest((previous + body).encode("ascii")).hexdigest()
    return f'{body},"hash":"{sealed}"}}\n', sealed


def check_line(line: bytes, head: ChainTip, digest: Digest) -> tuple[str | None, ChainTip]:
    """Check the line after `head`; return what is wrong with it (None: nothing) and the head after it."""
    body, suffix = line[: -_SEAL_LENGTH - 1], line[-_SEAL_LENGTH - 1 :]
    sealed = digest(head.hash.encode("ascii") + body).hexdigest()
    seq = head.seq + 1
    after = ChainTip(seq, sealed)
    if suffix == b',"hash":"%b"}\n' % sealed.encode("ascii") and body.endswith(
        b',"seq":%d,"prev_hash":"%b"' % (seq, head.hash.encode("ascii"))
    ):
        return None, after
    return _explain(line, head, digest), after


def _explain(line: bytes, head: ChainTip, digest: Digest) -> str:
    found = links(line)
    if found is None:
        return "not a sealed record"
    previous, sealed = found
    if digest(previous.hash.encode("ascii") + line[: -_SEAL_LENGTH - 1]).hexdigest() != sealed:
        return "its content does not match its hash (changed, or written with another key)"
    if previous.seq != head.seq:
        return f"record {head.seq + 1} is expected here, this is record {previous.seq + 1}"
    return f"it follows another record {head.seq} than the one before it"


def links(line: bytes) -> tuple[ChainTip, str] | None:
    """Parse the head that a line follows and the line's own hash; None if the line is not a sealed record."""
    body, suffix = line[-_SEAL_LENGTH - 1 - _LONGEST_LINKS : -_SEAL_LENGTH - 1], line[-_SEAL_LENGTH - 1 :]
    match = _LINKS.fullmatch(body)
    if match is None or not suffix.startswith(b',"hash":"') or not suffix.endswith(b'"}\n'):
        return None
    return ChainTip(int(match[1]) - 1, match[2].decode("ascii")), suffix[9:-3].decode("ascii", "replace")


def head_of(line: bytes) -> ChainTip | None:
    """Return the head that a line states, without verifying it; None if it is not a sealed record."""
    found = links(line)
    return None if found is None else ChainTip(found[0].seq + 1, found[1])
