"""Identifiers: an invocation carries one integer, which is formatted as text only when it is read.

`uuid4` would cost more than the rest of a call. Here the low bits are a counter, and the high bits select a random
prefix. A forked child gets its own prefix; invocations begun before the fork keep the old one.
"""

from __future__ import annotations

import re
import secrets
from itertools import count

from taskpilot_obs._support.fork_hooks import around_forks

_COUNTER_BITS = 40
_DIGITS = _COUNTER_BITS // 4
_prefixes = [""]
"""Keys start at 1, so that `hex` never drops the leading zeros of the counter."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
"""Full-match pattern of inbound request IDs: unreserved URL characters (RFC 3986), which are safe in any log."""


numbers = count()
"""Numbers unique in this process and its forks. Take one by `next(ids.numbers)`, which is faster than a bound method; a
fork replaces it."""


first_number = 0
"""The lowest number of this process; invocations below it were begun before the fork."""


def _renew() -> None:
    global numbers, first_number  # noqa: PLW0603  process-wide by nature; a function would triple its cost
    _prefixes.append(secrets.token_hex(8))
    first_number = (len(_prefixes) - 1) << _COUNTER_BITS
    numbers = count(first_number)


_renew()
around_forks(in_child=_renew)


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
