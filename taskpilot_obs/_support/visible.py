"""Text from elsewhere, made visible and harmless for a terminal, a page and a spreadsheet."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Without width and without effect on their surroundings; several scripts, and emoji, cannot be written without."""
_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""Beginnings that make a spreadsheet compute a cell, the full-width forms included."""


def printable(value: object) -> str:
    """One line of text in which every character is seen and none commands the terminal.

    Control characters, bidirectional overrides, invisible characters, line breaks and lone surrogates become the
    replacement character; unusual spaces become a space.
    """
    text = str(value)
    return text if text.isprintable() else "".join(map(_seen, text))


def _seen(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() and character not in _BREAKS else "\N{REPLACEMENT CHARACTER}"


_BREAKS: Final = "\n\r\t\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"


def csv_cell(value: object) -> str:
    """A cell that a spreadsheet shows and does not compute: text that looks like a formula begins with an apostrophe.

    Args:
        value: text is made printable, None is empty, and a number is written exactly, a `Decimal` without exponent.
    """
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if not isinstance(value, str):
        return printable(value)
    text = printable(value)
    return f"'{text}" if value.startswith(_FORMULA) or value.lstrip().startswith(_FORMULA) else text
