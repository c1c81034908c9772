"""Text from elsewhere, made safe to print: names of tenants, models and files, messages of servers, records."""

from __future__ import annotations

import codecs
from decimal import Decimal
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Without width and without effect on their surroundings; several scripts, and emoji, cannot be written without."""
_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""Beginnings that make a spreadsheet compute a cell, the full-width forms included."""


ASCII_SIGNS: Final = "taskpilot_obs.ascii_signs"
"""The name of an error handler of streams, which writes what their encoding lacks."""
_SIGNS: Final = str.maketrans({"≥": ">=", "±": "+-", "…": "...", "→": "->", "█": "#", "\N{REPLACEMENT CHARACTER}": "?"})
"""Signs that commands print by themselves."""


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write our own signs in ASCII, and any other character as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(_SIGNS)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(ASCII_SIGNS, _in_ascii)


def encodable(text: str, encoding: str) -> str:
    """Text as a stream of that encoding shows it, so that its width can be measured."""
    return text if text.isascii() else text.encode(encoding, ASCII_SIGNS).decode(encoding)


def printable(value: object) -> str:
    """One line of text in which every character is seen and none commands the terminal.

    Control characters, bidirectional overrides, invisible characters, line breaks and lone surrogates become the
    replacement character; unusual spaces become a space.
    """
    text = str(value)
    return text if text.isprintable() else "".join(map(_seen, text))


def printable_lines(value: object) -> str:
    """Like `printable`, for the program's own messages, which may have several lines."""
    return "\n".join(map(printable, str(value).split("\n")))


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


def escaped_json(text: str) -> str:
    r"""JSON text whose strings hold nothing that a terminal would obey: such characters become `\uXXXX`."""
    if text.isascii() and "\x7f" not in text:
        return text  # JSON itself escapes the control characters of ASCII
    return "".join(character if _harmless(character) else _escape(character) for character in text)


def _harmless(character: str) -> bool:
    return character == "\n" or character.isprintable()


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
