"""Text from elsewhere, made safe to print: names of tenants, models and files, messages of servers, records."""

from __future__ import annotations

import codecs
from typing import Final

from taskpilot_obs._support.visible import printable

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


def printable_lines(value: object) -> str:
    """Like `printable`, for the program's own messages, which may have several lines."""
    return "\n".join(map(printable, str(value).split("\n")))


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
