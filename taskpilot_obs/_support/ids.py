"""Identifiers: an invocation carries one small integer, which becomes text only where somebody reads it.

`uuid4` costs more than all the rest of a call. Here the low bits count, the high bits say which random prefix belongs
to them; a forked child gets a prefix of its own, and what was begun before the fork keeps the old one.
"""

from __future__ import annotations

import os
import re
import secrets
from itertools import count

_COUNTER_BITS = 40
_DIGITS = _COUNTER_BITS // 4
_prefixes = [""]
"""From 1 on, so that every number is longer than its counter, and `hex` pads that with zeros."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
"""What an inbound request ID must match whole: unreserved URL characters (RFC 3986), so that it is safe in any log."""


numbers = count()
"""Numbers that no other invocation of this process, or of its forks, has. Take one by `next(ids.numbers)`, which is
faster than a bound method; a fork renews it."""


first_number = 0
"""The least that this process gives; what is below was begun before the fork."""


def _renew() -> None:
    global numbers, first_number  # noqa: PLW0603  process-wide by nature; a function would triple its cost
    _prefixes.append(secrets.token_hex(8))
    first_number = (len(_prefixes) - 1) << _COUNTER_BITS
    numbers = count(first_number)


_renew()
os.register_at_fork(after_in_child=_renew)


def text_of(number: int) -> str:
    """The identifier of a number, 26 hex digits, unique across processes."""
    return _prefixes[number >> _COUNTER_BITS] + hex(number)[-_DIGITS:]


def new_request_id() -> str:
    """A fresh request ID: 32 hex digits."""
    return secrets.token_hex(16)


def accepted_request_id(candidate: object) -> str:
    """The caller's request ID if it is well-formed (`^[A-Za-z0-9._~-]{1,128}$`), otherwise a fresh one."""
    if isinstance(candidate, str) and REQUEST_ID.fullmatch(candidate):
        return candidate
    return new_request_id()
