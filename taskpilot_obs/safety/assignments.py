"""Finds values assigned to secret names: in code, JSON, YAML, XML, query strings, options, transcripts.

The table `secret_keys` decides which names are secret, as for mappings. The time is linear in the text: `bytes.find`
finds names, a bounded window is examined around each, and patterns read a bounded stretch or text that no other
occurrence reads again. In doubt too much is hidden instead of too little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskpilot_obs.safety.secret_keys import HINTS, NAME_LENGTH, is_secret_key
from taskpilot_obs.safety.source import SearchedText, Span, end_of
from taskpilot_obs.safety.spoken import may_speak, spoken_value

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET: Final = "secret"  # noqa: S105  names a kind

_ASSIGNS = re.compile(rb"""(?:\\{0,8}+["'`])?+[ \t]{0,8}+(?:=>|:=|[:=])[ \t]{0,8}+""")
_SPACE = re.compile(rb"[ \t]{1,8}+")
_GAP = rb"(?:[ \t\r\n]|\\{1,8}[nrt]){0,80}+"
"""White space, also as escaped by JSON within JSON."""
_NEXT_ITEM = re.compile(rb"""\\{0,8}+["']%b,%b(?=\\{0,8}+["'])""" % (_GAP, _GAP))
_VALUE_KEYS = rb"(?:value|val|content|data|default)"
_ITS_VALUE = re.compile(
    rb"""\\{0,8}+["']%b,?%b(?:\\{0,8}+["'])?%b(?:\\{0,8}+["'])?[ \t]{0,8}+[:=][ \t]{0,8}+""" % (_GAP, _GAP, _VALUE_KEYS)
)
_VALUE_BEFORE = re.compile(
    rb"""%b(?:\\{0,8}["'])?[ \t]{0,8}[:=][ \t]{0,8}\\{0,8}["']([^"'\r\n\\]{1,400})\\{0,8}["']%b,?%b"""
    rb"""\\{0,8}["']?(?:name|key|field|header|param|id)\\{0,8}["']?[ \t]{0,8}[:=][ \t]{0,8}\\{0,8}["']$"""
    % (_VALUE_KEYS, _GAP, _GAP)
)
_ELEMENT = re.compile(rb"""(?:\\{0,8}+["'])?[^<>]{0,200}+>\s{0,80}+(?:<!\[cdata\[)?""")
_NAME_CHARS = b"abcdefghijklmnopqrstuvwxyz0123456789_-."
_NAME_REST = re.compile(rb"[a-z0-9_.-]{0,%d}+" % NAME_LENGTH)
_MAY_FOLLOW = frozenset(b"=:\"'\\`>, \t<")
_NUMBERS_ARE_SECRET = ("pass", "pwd", "pin", "cvv", "cvc", "ssn", "passcode", "password", "passwd", "passphrase")
_LONG_ENOUGH = {"sig": 16}
"""Minimum length of a value if its name is short and common (`?design=blue&sig=2`)."""
_FIRST_OF_A_PAIR = re.compile(rb"""[(\[][ \t\r\n]{0,80}\\{0,8}["']$""")
_QUOTED_OPTION = re.compile(rb"""\\{0,8}["']$""")
_TAG = re.compile(rb"(?:<(?:[a-z0-9_.-]{1,40}:)?|<[^<>]{1,160}(?:name|key|id)\s{0,8}=\s{0,8}\\{0,8}[\"'])$")
_BEFORE = 160
_MAX_BEFORE = 560
_ESCAPE = re.compile(rb"[nrt]|u[0-9a-f]{4}")
_WORDS_BEFORE_KEY = re.compile(
    rb"(?:api|access|account|auth|encryption|master|private|secret|service|shared|signing|subscription) $"
)

_SIGNS = ("=", ":", "--", "<", '",', "',")
"""One of these stands in every notation."""

_OPENING = re.compile(r"""\\{0,8}+["'`]""")
_PARAMETER = re.compile(r"""[^\s"'`&#]*+""")
_WORD = re.compile(r"""[^\s"'`]*+""")
_UNCLOSED = {mark: re.compile(rf"(?:\\.|[^\s{mark}])*+") for mark in "\"'`"}
"""A word whose opening quote is not closed, with the escaped quotes in it."""
_CLOSING = {mark: re.compile(rf"(?<!\\)\\*+{mark}") for mark in "\"'`"}
"""A quote and its escapes."""
_VALUES = {
    b"authoriz": re.compile(r"""(?:[A-Za-z]{1,20}+[ \t]{1,8}+)?[^\s"'`]*+"""),  # scheme and credentials
    b"cookie": re.compile(r"""[^\r\n"'`]*+"""),
}
_MAX_VALUE = 4_096
"""Characters searched for the end of a quoted or bracketed value."""
_OPTION = 30
"""Characters searched for a command line's `--…password`."""
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
"""Characters searched for the beginning of a key's line."""


def assignments(source: SearchedText) -> Iterator[Span]:
    """Find the values under secret names, in any common notation, and of options with such names."""
    text, lower = source.text, source.lower
    if not any(sign in text for sign in _SIGNS) and not may_speak(lower):
        return
    for hint in HINTS:
        at = lower.find(hint) if lower.rfind(hint) >= 0 else -1
        done = 0
        while at >= 0:
            end = end_of_name(lower, at + len(hint))
            if end < len(lower) and lower[end] in _MAY_FOLLOW:
                start = _start_of_name(lower, at, done, hint)
                for begin, stop in _values(source, start, end):
                    yield begin, stop, SECRET
                    end = max(end, stop)  # hidden text is skipped, so each character is examined once
            done = end
            at = lower.find(hint, end)


def end_of_name(lower: bytes, start: int) -> int:
    """Return the end of the name around `start`, without a trailing dot or dash."""
    found = _NAME_REST.match(lower, start)
    end = found.end() if found is not None else start
    while end > start and lower[end - 1] in b".-":
        end -= 1
    return end


def _start_of_name(lower: bytes, at: int, done: int, hint: bytes) -> int:
    window = lower[max(done, at - NAME_LENGTH) : at]
    start = at - len(window) + len(window.rstrip(_NAME_CHARS))
    if hint == b"key" and start == at and (words := _WORDS_BEFORE_KEY.search(lower, max(done, at - 16), at)):
        return words.start()  # `api key: …` in a transcript
    if lower[start - 1 : start] == b"\\":  # an escape before the name, as JSON within JSON spells it
        start += len(escape[0]) if (escape := _ESCAPE.match(lower, start, at)) else 0
    return start


def _values(source: SearchedText, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The values of the name from `start` to `end`, if it is secret."""
    text, lower = source.text, source.lower
    name = text[start:end]
    if not is_secret_key(name):
        return
    places = list(_places(lower, start, end))
    spoken = None if places else spoken_value(text, lower, start, end)
    if spoken is not None:
        yield spoken
    for found in places:
        value = _value_after(text, start, found, lower[start:end])
        if value[0] < value[1] and not _is_harmless(text, *value, name.lower()):
            yield value
    quoted = lower[start - 1 : start] in (b'"', b"'")
    before = _VALUE_BEFORE.search(lower, max(0, start - _MAX_BEFORE), start) if quoted else None
    if before is not None:
        yield before.span(1)


def _places(lower: bytes, start: int, end: int) -> Iterator[re.Match[bytes]]:
    """The one separator behind the name that a value follows, whatever the notation."""
    before = lower[max(0, start - _BEFORE) : start]
    found = _ASSIGNS.match(lower, end)
    if found is None and _is_option(before, lower[start:end]):
        found = _SPACE.match(lower, end) or (_NEXT_ITEM.match(lower, end) if _QUOTED_OPTION.search(before) else None)
    if found is None and _FIRST_OF_A_PAIR.search(before):
        found = _NEXT_ITEM.match(lower, end)
    if found is None:
        found = _ITS_VALUE.match(lower, end)
    if found is None and _TAG.search(before):
        found = _ELEMENT.match(lower, end)
    if found is not None:
        yield found


def _is_option(before: bytes, name: bytes) -> bool:
    return name.startswith(b"-") or before.endswith(b"--")


def _is_harmless(text: str, start: int, end: int, name: str) -> bool:
    """Whether a value is empty, a redaction marker, or a number that is not secret (`token: 5`)."""
    if _NO_VALUE.fullmatch(text, start, end) or end - start < _LONG_ENOUGH.get(name, 0):
        return True
    return not name.endswith(_NUMBERS_ARE_SECRET) and _NUMBER.fullmatch(text, start, end) is not None


def _value_after(text: str, key: int, found: re.Match[bytes], name: bytes) -> tuple[int, int]:
    """The span of the value without its quotes; an empty span if there is none."""
    start = found.end()
    if found.re is _ELEMENT:
        stop = text.find("]]>" if found[0].endswith(b"<![cdata[") else "<", start, start + _MAX_VALUE)
        return start, stop if stop >= 0 else min(len(text), start + _MAX_VALUE)
    line = _NEXT_LINE.match(text, start) if found.re is _ASSIGNS else None
    if line is not None:
        return _on_the_next_line(text, key, line)
    in_query = text[key - 1 : key] in ("?", "&") and key > 0
    return _enclosed(text, start) or (start, end_of(_PARAMETER if in_query else _plain_value(name), text, start))


def _plain_value(name: bytes) -> re.Pattern[str]:
    """The pattern of a value without quotes, which in a header spans several words."""
    return next((pattern for word, pattern in _VALUES.items() if word in name), _WORD)


def _enclosed(text: str, start: int) -> tuple[int, int] | None:
    """The span of a quoted or bracketed value, or None."""
    opening = _OPENING.match(text, start)
    if opening is not None:
        closing = _closing_quote(text, opening.end(), opening[0])
        return opening.end(), closing if closing >= 0 else end_of(_UNCLOSED[opening[0][-1]], text, opening.end())
    if text[start : start + 1] in ("{", "[") and not text.startswith("[REDACTED:", start):
        return start, _closing_bracket(text, start)
    return None


def _on_the_next_line(text: str, key: int, line: re.Match[str]) -> tuple[int, int]:
    """The span of a value on the line below its key: indented below a key alone on its line, or a single word."""
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
    """The index of the closing quote with its escapes; -1 if there is none.

    In JSON within JSON the closing quote has as many escapes as the opening one; the value's own backslashes before it
    are doubled in each layer, and a quote within the value has one escape more in its innermost layer.
    """
    escapes = len(quote) - 1
    for found in _CLOSING[quote[-1]].finditer(text, start, start + _MAX_VALUE):
        if (len(found[0]) - 1) % (2 * escapes + 2) == escapes:
            return found.end() - len(quote)
    return -1


def _closing_bracket(text: str, start: int) -> int:
    """The index after the closing bracket; the end of the searched stretch if there is none."""
    depth = 0
    for bracket in _BRACKETS.finditer(text, start, start + _MAX_VALUE):
        depth += 1 if bracket[0] in "{[" else -1
        if depth == 0:
            return bracket.end()
    return min(len(text), start + _MAX_VALUE)
