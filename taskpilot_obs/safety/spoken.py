"""Finds secrets that are spoken of instead of assigned: `the password is hunter2`, `reset my password to hunter2`.

Only the shape of a word tells a secret from the rest of a sentence (`the password is required`), so a word is hidden if
it mixes letters and digits, or holds a symbol or a capital within; a quoted password is hidden whatever it is.
"""

from __future__ import annotations

import re
from typing import Final

_STATED = re.compile(
    r"""["'`]?+(?:[ ](?:for|of|to|on|at|in)[ ][^\n=:;.]{1,60}?)?[ ](?:is|was|are|equals)"""
    r"""(?:[ ](?:now|still|just|set[ ]to|changed[ ]to|reset[ ]to|updated[ ]to|basic|bearer)){0,2}+"""
    r"""[ ]{1,4}(["'`]?)([^\s"'`]{1,200}+)""",
    re.IGNORECASE,
)
_CHANGED = re.compile(r"""["'`]?+[ ]to[ ](["'`]?)([^\s"'`]{1,200}+)""", re.IGNORECASE)
_CHANGES = re.compile(rb"(?:chang|set|reset|updat|rotat)(?:e|ed|es|ing|ting)?[ ](?:[a-z']{1,20}[ ]){0,4}$")
_GIVEN = re.compile(r"""["'`]?+[ ](["'`]?)([^\s"'`]{6,200}+)""")
_CHANGES_WITHIN: Final = 100
_VERBS: Final = (b" is ", b" was ", b" are ", b" equals ")
_PASSWORDS: Final = ("password", "passwd", "passphrase", "passcode", "pwd")
_NUMBERS: Final = ("pin", "otp", "totp", "cvv", "cvc", "ssn")
"""Names of secrets that consist of digits alone, as passwords may."""
_DIGITS = re.compile(r"[0-9-]{3,19}")
_MEASURE = re.compile(
    r"[ ](?:[a-z]+[ ])?(?:char|digit|letter|symbol|word|day|hour|min|sec|byte|bit|time|year|month|week|or|to)"
)
_MIXED = re.compile(r"(?=[^0-9]*+[0-9])(?=[^A-Za-z]*+[A-Za-z])")
_SYMBOL = re.compile(r"\w[^\s]*[!@#$%^&*+=~?]")
_CAPITAL_WITHIN = re.compile(r"(?=.{8})\w*?[a-z][A-Z]")
_ORDINARY = re.compile(
    r"(?:base|md|sha-?|oauth|utf-?|argon|bcrypt|scrypt|pbkdf|ipv|http|x|v|s|[erhp]s|aes-?|rsa-?|gpt-?|py\w{0,5})[0-9][\w.-]*+"
    r"|[0-9][0-9.,:/-]*(?:[a-z]{1,3}|%)?|\$\{?[A-Za-z_]+\}?|[<{\[(].*|https?:.*|.*/.*",
    re.IGNORECASE,
)
"""Harmless words with digits or symbols: algorithms, versions, measures, placeholders, links, paths."""


def may_speak(lower: bytes) -> bool:
    """Whether a text may hold such a sentence; fast, because most texts hold none."""
    return any(word in lower for word in (*_VERBS, b"passw", b"passp", b"passc", b"pwd"))


def spoken_value(text: str, lower: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Return the span of the value that a sentence states of the secret name from `start` to `end`, or None."""
    name = lower[start:end].decode()
    is_password = name.endswith(_PASSWORDS)
    found = _STATED.match(text, end)
    if found is None and is_password:
        changes = _CHANGES.search(lower, max(0, start - _CHANGES_WITHIN), start)
        found = _CHANGED.match(text, end) if changes is not None else _GIVEN.match(text, end)
    if found is None:
        return None
    begin, stop = found.span(2)
    stop -= len(found[2]) - len(found[2].rstrip(".,;:!?)]}"))
    if begin == stop:
        return None
    is_quoted = bool(found[1]) and is_password and found.re is not _GIVEN
    return (begin, stop) if is_quoted or _is_secret(text, begin, stop, name) else None


def _is_secret(text: str, start: int, end: int, name: str) -> bool:
    if name.endswith((*_PASSWORDS, *_NUMBERS)) and _DIGITS.fullmatch(text, start, end):
        return _MEASURE.match(text, end) is None
    return not name.endswith(_NUMBERS) and looks_secret(text[start:end])


def looks_secret(word: str) -> bool:
    """Whether a word is shaped like a password instead of ordinary text, a number or a path."""
    if _ORDINARY.fullmatch(word):
        return False
    return any(pattern.match(word) is not None for pattern in (_MIXED, _SYMBOL, _CAPITAL_WITHIN))
