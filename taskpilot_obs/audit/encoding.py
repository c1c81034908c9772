"""Encodes the fields of an audit record as one line of JSON, fast.

A record has two parts. Fields that repeat from call to call (names, status, …) form a key, whose JSON text is cached.
Fields that vary (identifiers, durations, …) fill a template, which is cached per *shape*, that is per combination
of types: which fields are None, which are text. The text is ASCII: control characters, U+2028 and everything else that
a reader might take for the end of a line are escaped. One C call over all strings of a record decides whether any of
them needs escaping.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from json.encoder import encode_basestring_ascii as quoted
from operator import itemgetter
from typing import Any, NamedTuple

from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs.semconv import Field

Value = str | int | float | bool | Decimal | Mapping[str, "Value"] | None
Fields = dict[str, Value]
Key = tuple[Any, ...]

MAX_STRING = 8_192
"""How many characters of one string an audit record keeps by default."""
_MAX_CACHED = 4_096
_MAX_KEPT = 2_048
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_SAFE = 1e308
_INT_BITS = 64
_WHOLE = frozenset(
    (Field.INPUT_LENGTH, Field.OUTPUT_LENGTH, Field.INPUT_TOKENS, Field.OUTPUT_TOKENS, Field.TOTAL_TOKENS)
)
"""Fields that are whole numbers: with a NaN or text in one of them, the record is lost but no line is broken."""


MORE = "*"
"""Placeholder in the varying fields of a layout for a mapping of fields that only few records have."""


class _Plan(NamedTuple):
    """The template for the varying fields of one shape."""

    template: str
    strings: Callable[[tuple[Value, ...]], tuple[str, ...]]
    numbers: Callable[[tuple[Value, ...]], tuple[float | Decimal, ...]]
    others: tuple[int, ...]


class Layout:
    """Writes one kind of record.

    Args:
        repeating: builds the fields that repeat from call to call, from a record's key.
        varying: names of the fields that differ from call to call, in the order of a record's values: text, finite
            numbers, None, and last (`MORE`) a mapping of fields that only few records have.
        max_string: how many characters of one string are kept.
    """

    def __init__(
        self, repeating: Callable[[Key], Fields], varying: tuple[str, ...], max_string: int = MAX_STRING
    ) -> None:
        self._repeating = repeating
        self._varying = varying
        self._max_string = max_string
        self._texts: BoundedDict[Key, str] = BoundedDict(_MAX_CACHED)
        self._plans: BoundedDict[tuple[type, ...], _Plan] = BoundedDict(_MAX_CACHED)

    def text(self, key: Key, time_unix_ns: int, values: tuple[Value, ...]) -> str:
        """The record as JSON without its closing brace, so that the chain can add its own fields."""
        max_string = self._max_string
        repeating = self._texts.get(key)
        if repeating is None:
            repeating = self._keep_text(key)
        shape = tuple(map(type, values))
        plan = self._plans.get(shape)
        if plan is None:
            plan = self._keep_plan(shape)
        template, strings_of, numbers_of, indexes = plan
        strings = strings_of(values)
        joined = "".join(strings)
        if len(joined) > max_string or len(quoted(joined)) != len(joined) + 2:
            strings = tuple(quoted(clean_text(text, max_string))[1:-1] for text in strings)
        head = (rfc3339(time_unix_ns), repeating)
        if indexes:
            others = tuple([members(values[index], max_string) for index in indexes])
            return template % (head + strings + numbers_of(values) + others)
        return template % (head + strings + numbers_of(values))

    def _keep_text(self, key: Key) -> str:
        text = members(self._repeating(key), self._max_string)
        if len(text) <= _MAX_KEPT:  # huge names are not cached, to save memory
            self._texts[key] = text
        return text

    def _keep_plan(self, shape: tuple[type, ...]) -> _Plan:
        plan = self._plans[shape] = _plan(self._varying, shape)
        return plan


def _plan(names: tuple[str, ...], shape: tuple[type, ...]) -> _Plan:
    strings = [index for index, kind in enumerate(shape) if issubclass(kind, str)]
    numbers = [index for index, kind in enumerate(shape) if kind in (int, float, Decimal)]
    others = [index for index, kind in enumerate(shape) if issubclass(kind, Mapping)]
    known = {*strings, *numbers, *others}
    for index, (name, kind) in enumerate(zip(names, shape, strict=True)):
        if kind is not type(None) and (index not in known or (name in _WHOLE and kind is not int)):
            expected = "a whole number" if name in _WHOLE else "text, a number or a mapping"
            raise TypeError(f"{name}: expected {expected}, got {kind.__name__}")
    parts = [f'{{"{Field.TIMESTAMP}":"%s",%s']
    parts += [f'"{names[index]}":"%s"' for index in strings]
    parts += [f'"{names[index]}":%s' for index in numbers]
    parts += ["%s" for _ in others]
    return _Plan(",".join(parts), _picker(strings), _picker(numbers), tuple(others))


def _picker(indexes: list[int]) -> Callable[[tuple[Value, ...]], tuple[Any, ...]]:
    """Return a function that picks the values at these indexes, always as a tuple."""
    if len(indexes) > 1:
        return itemgetter(*indexes)
    if indexes:
        only = indexes[0]
        return lambda values: (values[only],)
    return lambda _: ()


def members(fields: Value, max_string: int) -> str:
    """Encode the members of a JSON object without its braces; fields that are None are left out."""
    cleaned = clean_fields(fields, max_string) if isinstance(fields, Mapping) else {}
    return ",".join([f"{quoted(name)}:{_json(value)}" for name, value in cleaned.items()])


def to_json(fields: Mapping[str, Value], max_string: int = MAX_STRING) -> str:
    """Encode a JSON object on one line of ASCII."""
    return "{" + members(fields, max_string) + "}"


def _json(value: Value) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ",".join([f"{quoted(name)}:{_json(member)}" for name, member in value.items()]) + "}"
    return str(value)


def clean_fields(fields: Mapping[str, Value], max_string: int) -> Fields:
    """Convert fields to plain JSON values without None, without calling code of the values' classes."""
    return {
        clean_text(name, max_string): clean_value(value, max_string)
        for name, value in fields.items()
        if value is not None
    }


def clean_value(value: object, max_string: int) -> Value:
    """Convert a value to JSON: NaN and infinities become text, other objects the name of their class."""
    if isinstance(value, str):
        return clean_text(value, max_string)
    if isinstance(value, int):
        if isinstance(value, bool):
            return value
        return int(value) if value.bit_length() <= _INT_BITS else clean_text(hex(value), max_string)
    if isinstance(value, float):
        return float(value) if -_MAX_SAFE < value < _MAX_SAFE else float.__repr__(value)
    if isinstance(value, Decimal):
        return value if value.is_finite() else str(value)
    return clean_fields(value, max_string) if isinstance(value, Mapping) else f"<{type(value).__qualname__}>"


def clean_text(text: object, max_string: int) -> str:
    """Cut long text, with a mark at the cut, and replace lone surrogates, which many readers reject."""
    if not isinstance(text, str):
        return f"<{type(text).__qualname__}>"
    if len(text) > max_string:
        mark = f"[cut: {len(text)} characters]"
        text = text[: max_string - len(mark)] + mark
    return str(text) if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


_second: tuple[int, str] = (-1, "")


def rfc3339(unix_ns: int) -> str:
    """Format a time as RFC 3339 in UTC with microseconds: `2026-11-21T09:30:00.000001Z`."""
    global _second  # noqa: PLW0603  the last second's text, which most lines share
    if type(unix_ns) is not int:
        raise TypeError(f"a time: expected whole nanoseconds, got {type(unix_ns).__name__}")
    second, rest = divmod(unix_ns, 1_000_000_000)
    known, text = _second
    if known != second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _second = (second, text)
    return text + str(1_000_000 + rest // 1000)[1:] + "Z"  # a format specification takes twice as long
