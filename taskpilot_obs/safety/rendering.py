"""Any value as text like JSON, within a bound of length, depth and time; secrets under their keys left out."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

HIDDEN: Final = "[REDACTED:secret]"
_MAX_DEPTH = 12
_BIG = 10**100
"""Python refuses to write out integers of more than 4,300 digits."""
_MAX_COUNT = 10_000_000
"""A longer number under `token` is one, not a count of them."""
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_SECRET_ANYWHERE = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "apikey",
    "credential",
    "authorization",
    "privatekey",
)
_SECRET_ENDING = (
    "secret",
    "secrets",
    "token",
    "accesskey",
    "accountkey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "authkey",
    "cookie",
    "cookies",
    "pwd",
)
_SECRET_EXACTLY = frozenset({"cvv", "cvc", "pass", "pin", "sig", "ssn"})
_PASS_AT_THE_END = re.compile(r"[_-](?i:pass)|[a-z0-9]Pass")


@functools.lru_cache(maxsize=2_048)
def is_secret_key(key: str) -> bool:
    """Whether what stands under this key is secret by its name: `password`, `client_secret`, `X-API-Key`, …"""
    plain = _SEPARATORS.sub("", key[:200].lower())
    if plain in _SECRET_EXACTLY or plain.endswith(_SECRET_ENDING) or any(word in plain for word in _SECRET_ANYWHERE):
        return True
    return plain.endswith("pass") and _PASS_AT_THE_END.fullmatch(key[-5:]) is not None


def hides(key: str, value: object) -> bool:
    """Whether a value may not be shown for its key: it may where it is nothing, or a number or price of tokens."""
    if value is None or isinstance(value, bool) or not is_secret_key(key):
        return False
    return not (isinstance(value, int | float) and key.lower().endswith("token") and abs(value) < _MAX_COUNT)


def render(value: object, limit: int) -> str:
    """The value as text, the first `limit` characters or a few more. Raises what the value's own methods raise."""
    parts: list[str] = []
    room = limit
    for part in _parts(value, limit, set(), 0):
        parts.append(part)
        room -= len(part)
        if room <= 0:
            break
    return "".join(parts)


def _parts(value: object, limit: int, above: set[int], depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield json.dumps(str.__str__(value)[:limit], ensure_ascii=False) if depth else str.__str__(value)[:limit]
    elif value is None or isinstance(value, bool):
        yield {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, float):
        yield float.__repr__(value)
    elif isinstance(value, int):
        yield int.__repr__(value) if abs(value) < _BIG else '"[NUMBER]"'
    elif isinstance(value, bytes | bytearray | memoryview):
        yield json.dumps(bytes(value[:limit]).decode("utf-8", "backslashreplace"), ensure_ascii=False)
    elif id(value) in above:
        yield '"[CYCLE]"'
    elif depth >= _MAX_DEPTH:
        yield '"[DEEP]"'
    else:
        above.add(id(value))
        yield from _compound(value, limit, above, depth + 1)
        above.discard(id(value))


def _compound(value: object, limit: int, above: set[int], depth: int) -> Iterator[str]:
    fields = _fields(value)
    if fields is not None:
        yield "{"
        for index, (key, item) in enumerate(fields):
            name = str(key)[:limit]
            yield f"{', ' if index else ''}{json.dumps(name, ensure_ascii=False)}: "
            if hides(name, item):
                yield f'"{HIDDEN}"'
            else:
                yield from _parts(item, limit, above, depth)
        yield "}"
    elif isinstance(value, list | tuple | set | frozenset):
        yield "["
        for index, item in enumerate(value):
            if index:
                yield ", "
            yield from _parts(item, limit, above, depth)
        yield "]"
    else:
        said = str(value)[:limit]
        yield said if depth == 1 else json.dumps(said, ensure_ascii=False)


def _fields(value: object) -> Iterable[tuple[object, object]] | None:
    """Names and values of a mapping, a dataclass, a named tuple or a pydantic model; None for all else."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value) if field.repr)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return zip(value._fields, value, strict=False)
    if hasattr(type(value), "model_fields"):
        return vars(value).items()
    return None
