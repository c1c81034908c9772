"""Renders any value as text like JSON, with bounded length, depth and time, without values under secret keys.

A key and its value may stand in a mapping, in a pair (`("password", "x")`, a list of headers), in an object that names
both (`{"name": "password", "value": "x"}`) or in a list of options (`["--password", "x"]`).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from taskpilot_obs.safety.secret_keys import hides, is_secret_key

HIDDEN: Final = "[REDACTED:secret]"
_MAX_DEPTH = 12
_BIG = 10**100
"""Python refuses to write out integers of more than 4,300 digits."""


def render(value: object, limit: int) -> str:
    """Render the first `limit` characters of a value, or slightly more. Exceptions of the value's methods pass."""
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
    fields = fields_of(value)
    if fields is not None:
        yield from _members(_named(value), fields, limit, above, depth)
    elif isinstance(value, list | tuple | set | frozenset):
        yield from _items(value, limit, above, depth)
    else:
        said = name_of(value)[:limit]
        yield said if depth == 1 else json.dumps(said, ensure_ascii=False)


def _members(
    named: str | None, fields: Iterable[tuple[object, object]], limit: int, above: set[int], depth: int
) -> Iterator[str]:
    """Render the members of an object.

    Args:
        named: the secret name that the object's own `value` belongs to.
        fields: names and values.
        limit: as for `render`.
        above: the objects that contain this one.
        depth: how deep.
    """
    yield "{"
    for index, (key, item) in enumerate(fields):
        name = _as_key(key)[:limit]
        yield f"{', ' if index else ''}{json.dumps(name, ensure_ascii=False)}: "
        if hides(name, item) or (named is not None and name.lower() in _VALUES and hides(named, item)):
            yield f'"{HIDDEN}"'
        else:
            yield from _parts(item, limit, above, depth)
    yield "}"


def _items(value: Iterable[object], limit: int, above: set[int], depth: int) -> Iterator[str]:
    """Render the items of a list; an item after an option like `--password`, or after a secret name, is hidden."""
    is_pair = isinstance(value, Sequence) and len(value) == 2  # noqa: PLR2004  a pair
    secret: str | None = None
    yield "["
    for index, item in enumerate(value):
        if index:
            yield ", "
        if secret is not None and hides(secret, item):
            yield f'"{HIDDEN}"'
            secret = None
            continue
        yield from _parts(item, limit, above, depth)
        name = _as_key(item) if isinstance(item, str | bytes) else ""
        secret = name if (name.startswith("-") or (is_pair and not index)) and is_secret_key(name) else None
    yield "]"


def _as_key(key: object) -> str:
    return key[:_LONGEST_KEY].decode("latin-1") if isinstance(key, bytes) else str(key)


def _named(value: object) -> str | None:
    """The secret name in an object like `{"name": "password", "value": "x"}`; None where there is none."""
    if not isinstance(value, Mapping):
        return None
    for key in _NAMES:
        name = value.get(key)
        if isinstance(name, str) and is_secret_key(name):
            return name
    return None


_NAMES: Final = ("name", "key", "field", "header", "param", "id", "Name", "Key")
_VALUES: Final = frozenset({"value", "val", "content", "data", "default", "values"})
_LONGEST_KEY: Final = 1_000


def name_of(value: object) -> str:
    """The text of an exception or of a value of the standard library; for other objects only the type.

    The `repr` of application objects is not called, because it may contain customer data or query a database.
    """
    kind = type(value)
    if isinstance(value, BaseException | type) or kind.__module__.partition(".")[0] in sys.stdlib_module_names:
        return str(value) if kind is not object else "<object>"
    return f"<{kind.__qualname__}>"


def fields_of(value: object) -> Iterable[tuple[object, object]] | None:
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
