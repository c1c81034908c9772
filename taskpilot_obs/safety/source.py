"""One text, seen four ways, so that looking for secrets in it costs a few scans in C instead of a regex per secret.

Every view has one byte per character, so offsets found in a view are offsets into the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGITS = b"0123456789"


def _table(default: bytes, **classes: bytes) -> bytes:
    """A table for `bytes.translate`: each class of bytes becomes the letter that names it, the rest `default`."""
    table = bytearray(default * 256)
    for name, members in classes.items():
        for member in members:
            table[member] = ord(name[0])
    return bytes(table)


_SHAPE = _table(b" ", a=_LETTERS, d=_DIGITS)
_TOKENS = _table(b" ", t=_LETTERS + _DIGITS + b"_-")

LONG_TOKEN = 16
"""Characters. No provider's key is shorter."""
_LONG = b"t" * LONG_TOKEN


class Span(NamedTuple):
    """Where something lies that must not be shown, and what it is."""

    start: int
    end: int
    kind: str


class Source(NamedTuple):
    """A text and its views."""

    text: str
    ascii: bytes
    """Characters beyond ASCII are `?`."""
    lower: bytes
    shape: bytes
    """`a` for a letter, `d` for a digit, a space for all else."""

    @classmethod
    def of(cls, text: str) -> Source:
        """The text with its views."""
        data = text.encode("ascii", "replace")
        return cls(text, data, data.lower(), data.translate(_SHAPE))

    def occurrences(self, needle: bytes) -> Iterator[int]:
        """Where the needle (in lower case) begins, whatever its case in the text."""
        at = self.lower.find(needle)
        while at >= 0:
            yield at
            at = self.lower.find(needle, at + len(needle))

    def long_tokens(self) -> Iterator[tuple[int, int]]:
        """Each run of at least 16 letters, digits, `_` and `-`."""
        tokens = self.ascii.translate(_TOKENS)
        start = tokens.find(_LONG)
        while start >= 0:
            end = tokens.find(b" ", start)
            end = len(tokens) if end < 0 else end
            yield start, end
            start = tokens.find(_LONG, end)
