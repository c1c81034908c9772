"""A text in four views, so that finding secrets takes a few scans in C instead of a regex per kind of secret.

Rare strings are searched with `rfind` if the order does not matter, because CPython needs a third of the time of
`find`.
Every view has one byte per character, so offsets found in a view are offsets into the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DIGITS: Final = b"0123456789"


def table(default: bytes, **classes: bytes) -> bytes:
    """A table for `bytes.translate`: each class of bytes becomes the letter that names it, the rest `default`."""
    table = bytearray(default * 256)
    for name, members in classes.items():
        for member in members:
            table[member] = ord(name[0])
    return bytes(table)


_SHAPE = table(b" ", a=LETTERS, d=DIGITS)


Span = tuple[int, int, str]
"""Start, end and kind of text to hide. A plain tuple, because many are made."""


class SearchedText(NamedTuple):
    """A text and its views."""

    text: str
    ascii: bytes
    """Characters beyond ASCII are `?`."""
    lower: bytes
    shape: bytes
    """`a` for a letter, `d` for a digit, a space for all else."""

    @classmethod
    def of(cls, text: str) -> SearchedText:
        """The text with its views."""
        data = text.encode("ascii", "replace")
        return cls(text, data, data.lower(), data.translate(_SHAPE))

    def occurrences(self, needle: bytes) -> Iterator[int]:
        """Yield where the lower-case needle begins, ignoring case, the last occurrence first."""
        at = self.lower.rfind(needle)
        while at >= 0:
            yield at
            at = self.lower.rfind(needle, 0, at)


def end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Return the end of the match at `start`, or `start` if there is none."""
    match = pattern.match(text, start)
    return match.end() if match is not None else start
