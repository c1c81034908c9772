"""Where a text assigns something to a word like `password`: in code, JSON, YAML, query strings, options, transcripts.

Linear in the text: words are found by `bytes.find`, patterns are applied only there, and each looks at a bounded window
or at what no other occurrence looks at again. In doubt too much is hidden, not too little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.safety.source import Source, Span, end_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET: Final = "secret"  # noqa: S105  names a kind

_SEPARATOR = rb"""(?:\\*["'])?+(?:[ \t]{0,8}+(?:=>|:=|[:=])[ \t]{0,8}+|[ \t]{1,8}+)"""
_PASS = b"pass"
_SECRET_WORDS = tuple(
    (hint, re.compile(word + _SEPARATOR))
    for hint, word in (
        (_PASS, rb"pass(?:(?:word|wd|phrase|code)s?+)?+"),
        (b"pwd", rb"pwd"),
        (b"secret", rb"secrets?+"),
        (b"token", rb"token"),
        (b"key", rb"key"),
        (b"credential", rb"credentials?+"),
        (b"authoriz", rb"authorization"),
        (b"cookie", rb"cookies?+"),
    )
)
_LONGER_THAN_PASS = (b"passw", b"passp", b"passc")
_MAY_BE_NUMBERS = frozenset({_PASS, b"pwd"})
_KEY_BEFORE = (
    *(b"api", b"access", b"account", b"auth", b"encryption", b"master"),
    *(b"private", b"secret", b"service", b"shared", b"signing", b"subscription"),
)
_OPENING = re.compile(r"""\\{0,8}+["'`]""")
_WORD = re.compile(r"""[^\s"'`]*+""")
_VALUES = {
    b"authoriz": re.compile(r"""(?:[A-Za-z]{1,20}+[ \t]{1,8}+)?[^\s"'`]*+"""),  # scheme and credentials
    b"cookie": re.compile(r"""[^\r\n"'`]*+"""),
}
_MAX_VALUE = 4_096
"""Characters in which the end of a quoted or bracketed value is looked for."""
_OPTION = 30
"""Characters in which a command line's `--…password` is looked for."""
_BRACKETS = re.compile(r"[][{}]")
_NO_VALUE = re.compile(r"(?:null|none|true|false|nil|undefined|\[redacted:[^\n]*+)?+[.,;)\]}\\]*+", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,7}(?:\.\d{1,20})?+(?:e[+-]?\d{1,3})?+[.,;)\]}\\]*+", re.IGNORECASE)

_NEXT_LINE = re.compile(r"(?:[|>][+-]?[ \t]{0,8})?+(?:\r?\n|(?:\\{1,8}r)?+\\{1,8}n)([ \t]{0,64}+)(?:-[ \t]{1,8}+)?+")
_LINE = re.compile(r"[^\r\n]*+")
_ESCAPED_LINE = re.compile(r'(?:[^\r\n"\\]++|\\\\)*+')
_LINE_STARTS = re.compile(r"""[\r\n"']|\\n""")
_ANOTHER_KEY = re.compile(r"""["']?[\w.-]{1,80}+["']?[ \t]{0,8}+[:=](?:\s|\\|$)""")
_STATEMENT = re.compile(r"[ \t]*+(?:if|elif|while|for|with|def|class|match|case|except|lambda)\b")
_LINE_BEFORE = 200
"""Characters in which the beginning of a key's line is looked for."""


def assignments(source: Source) -> Iterator[Span]:
    """What is assigned to a word like `password`, in any of the usual notations, or given to an option like it."""
    text, lower = source.text, source.lower
    if "=" not in text and ":" not in text and text.rfind("--") < 0:
        return
    for hint, pattern in _SECRET_WORDS:
        at = lower.find(hint) if lower.rfind(hint) >= 0 else -1
        while at >= 0:
            found = pattern.match(lower, at)
            end = at + len(hint)
            if found is not None and _assigns(source, found, hint):
                start, end = _value_after(text, found, hint)
                if not _is_harmless(text, start, end, hint):
                    yield start, end, SECRET
            at = lower.find(hint, end)


def _is_harmless(text: str, start: int, end: int, hint: bytes) -> bool:
    """Whether what is assigned is nothing, a marker of ours, or a number that is none of a secret (`token: 5`)."""
    if _NO_VALUE.fullmatch(text, start, end):
        return True
    return hint not in _MAY_BE_NUMBERS and _NUMBER.fullmatch(text, start, end) is not None


def _assigns(source: Source, found: re.Match[bytes], hint: bytes) -> bool:
    """Whether a value follows: after `=` or `:`, or after a space behind a command line's option."""
    start = found.start()
    before = source.lower[max(0, start - _OPTION) : start]
    words = found[0].rstrip()
    if hint == b"key" and not before.rstrip(b"_- ").endswith(_KEY_BEFORE):
        return False
    if hint == _PASS and not words.startswith(_LONGER_THAN_PASS) and not _names_a_password(source, start, words):
        return False
    if words.endswith((b"=", b":", b">")):
        return True
    return not words.endswith((b'"', b"'")) and (before.split() or [b""])[-1].startswith(b"--")


def _names_a_password(source: Source, start: int, words: bytes) -> bool:
    """Whether `pass` alone does: as the last part of a name (`DB_PASS`, `dbPass`), or before `=`; not in `bypass`."""
    before = source.text[start - 1 : start]
    if before in ("_", "-"):
        return True
    if before.isalnum():
        return source.text.startswith("Pass", start) and before.islower()
    return words.endswith(b"=")


def _value_after(text: str, found: re.Match[bytes], hint: bytes) -> tuple[int, int]:
    """Where the value begins and ends, without its quotes; an empty stretch where there is none."""
    line = _NEXT_LINE.match(text, found.end())
    if line is not None:
        return _on_the_next_line(text, found.start(), line)
    return _enclosed(text, found.end()) or (found.end(), end_of(_VALUES.get(hint, _WORD), text, found.end()))


def _enclosed(text: str, start: int) -> tuple[int, int] | None:
    """The value from its opening quote or bracket on; None where there is none."""
    opening = _OPENING.match(text, start)
    if opening is not None:
        closing = _closing_quote(text, opening.end(), opening[0])
        return opening.end(), closing if closing >= 0 else end_of(_WORD, text, opening.end())
    if text[start : start + 1] in ("{", "[") and not text.startswith("[REDACTED:", start):
        return start, _closing_bracket(text, start)
    return None


def _on_the_next_line(text: str, key: int, line: re.Match[str]) -> tuple[int, int]:
    """The value that stands on the line below its key: indented beneath a key alone on its line, or a single word."""
    start = line.end()
    enclosed = _enclosed(text, start)
    if enclosed is not None:
        return enclosed
    end = end_of(_ESCAPED_LINE if "\\" in line[0] else _LINE, text, start)
    before = _LINE_STARTS.split(text[max(0, key - _LINE_BEFORE) : key])[-1]
    if _ANOTHER_KEY.match(text, start, end) or _STATEMENT.match(before):
        return start, start
    said = text[start:end]
    name = before.lstrip(" \t-")
    stands_alone = not any(char.isspace() for char in name)
    if not (stands_alone and line[1]) and len(said.split(None, 1)) != 1:
        return start, start
    return start, start + len(said.rstrip())


def _closing_quote(text: str, start: int, quote: str) -> int:
    """Where the quote comes again, not counting those that a backslash escapes; -1 if it does not."""
    limit = start + _MAX_VALUE
    closing = text.find(quote, start, limit)
    while closing > start and text[closing - 1] == "\\" and not quote.startswith("\\"):
        closing = text.find(quote, closing + 1, limit)
    return closing


def _closing_bracket(text: str, start: int) -> int:
    """Behind the bracket that closes the one at `start`; the end of what is looked at if there is none."""
    depth = 0
    for bracket in _BRACKETS.finditer(text, start, start + _MAX_VALUE):
        depth += 1 if bracket[0] in "{[" else -1
        if depth == 0:
            return bracket.end()
    return min(len(text), start + _MAX_VALUE)
