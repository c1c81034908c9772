"""From the fields of an audit record to one line of JSON, fast.

A record comes in two parts. What repeats from call to call (names, status, …) is a key: its JSON text is built once and
kept. What varies (identifiers, durations, …) is written field by field. The text is ASCII: control characters, U+2028
and everything else that a reader might take for the end of a line are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from taskpilot_obs._support.bounded import BoundedDict
from taskpilot_obs._support.timestamps import rfc3339
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
Ids = tuple[str | None, ...]
"""Request, invocation, parent, trace, span, tenant, user and session ID of a record."""
ID_FIELDS = (
    Field.REQUEST_ID,
    Field.INVOCATION_ID,
    Field.PARENT_ID,
    Field.TRACE_ID,
    Field.SPAN_ID,
    Field.TENANT_ID,
    Field.USER_ID,
    Field.SESSION_ID,
)
_ID_LEADS = tuple(f',"{name}":' for name in ID_FIELDS)
_REQUEST, _INVOCATION, _PARENT, _TRACE, _SPAN, _TENANT, _USER, _SESSION = _ID_LEADS
_START = f'{{"{Field.TIMESTAMP}":"'
_WHOLE = frozenset(
    f',"{name}":'
    for name in (Field.INPUT_LENGTH, Field.OUTPUT_LENGTH, Field.INPUT_TOKENS, Field.OUTPUT_TOKENS, Field.TOTAL_TOKENS)
)
"""Fields that are whole numbers: a NaN, or text, in one of them costs the record and never breaks a line."""


MORE = "*"
"""Stands, in the varying fields of a layout, for a mapping of fields that only few records have."""


class Layout:
    """Writes one kind of record.

    Args:
        repeating: builds the fields that repeat from call to call, from a record's key.
        varying: names of the fields that differ from call to call, besides the identifiers, in the order of a record's
            values: text, finite numbers, None, and last (`MORE`) a mapping of fields that only few records have.
        max_string: how many characters of one string are kept.
    """

    def __init__(
        self, repeating: Callable[[Key], Fields], varying: tuple[str, ...], max_string: int = MAX_STRING
    ) -> None:
        self._repeating = repeating
        self._leads = tuple("," if name == MORE else f',"{name}":' for name in varying)
        self._max_string = max_string
        self._texts: BoundedDict[Key, str] = BoundedDict(_MAX_CACHED)

    def text(self, key: Key, time_unix_ns: int, ids: Ids, values: tuple[Value, ...]) -> str:
        """The record as JSON without its closing brace, so that the chain can add its own fields."""
        repeating = self._texts.get(key)
        if repeating is None:
            repeating = self._keep_text(key)
        text = f'{_START}{rfc3339(time_unix_ns)}",{repeating}{_ids_text(ids, self._max_string)}'
        for lead, value in zip(self._leads, values):  # noqa: B905  a `strict` costs as much as the loop
            if value is not None:
                text += lead + _varying(lead, value, self._max_string)
        return text

    def _keep_text(self, key: Key) -> str:
        text = members(self._repeating(key), self._max_string)
        if len(text) <= _MAX_KEPT:  # a name of megabytes is not worth the memory
            self._texts[key] = text
        return text


def _ids_text(ids: Ids, max_string: int) -> str:
    """The identifiers that a record has: written out, because a loop over eight fields costs as much as the rest."""
    request_id, invocation_id, parent_id, trace_id, span_id, tenant, user, session = ids
    text = ""
    if request_id is not None:
        text = f"{_REQUEST}{quoted(request_id)}"
    if invocation_id is not None:
        text += f"{_INVOCATION}{quoted(invocation_id)}"
    if parent_id is not None:
        text += f"{_PARENT}{quoted(parent_id)}"
    if trace_id is not None:
        text += f"{_TRACE}{quoted(trace_id)}"
    if span_id is not None:
        text += f"{_SPAN}{quoted(span_id)}"
    if tenant is not None:
        text += f"{_TENANT}{quoted(tenant)}"
    if user is not None:
        text += f"{_USER}{quoted(user)}"
    if session is not None:
        text += f"{_SESSION}{quoted(session)}"
    if len(text) <= max_string and "\\u" not in text:
        return text
    stated = zip(_ID_LEADS, ids, strict=True)  # something is too long, or may be half a character
    return "".join([lead + quoted(clean_text(value, max_string)) for lead, value in stated if value is not None])


def _varying(lead: str, value: Value, max_string: int) -> str:
    """A value as JSON; of a mapping, its members.

    Raises:
        TypeError: it is neither text, a number nor a mapping, or no whole number where one is expected.
    """
    kind = type(value)
    if lead in _WHOLE:
        if kind is not int:
            raise TypeError(f"{lead[2:-2]}: expected a whole number, got {kind.__name__}")
        return str(value)
    if kind is float or kind is int or kind is Decimal:
        return str(value)
    if isinstance(value, str):
        return quoted(clean_text(value, max_string))
    if isinstance(value, Mapping):
        return members(value, max_string)
    raise TypeError(f"{lead[2:-2]}: expected text, a number or a mapping, got {kind.__name__}")


def members(fields: Value, max_string: int) -> str:
    """The members of a JSON object as text, without its braces; fields that are None are left out."""
    cleaned = clean_fields(fields, max_string) if isinstance(fields, Mapping) else {}
    return ",".join([f"{quoted(name)}:{_json(value)}" for name, value in cleaned.items()])


def to_json(fields: Mapping[str, Value], max_string: int = MAX_STRING) -> str:
    """A whole JSON object on one line of ASCII."""
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
    """Plain JSON values only, without None; calls no code of the values' own classes."""
    return {
        clean_text(name, max_string): clean_value(value, max_string)
        for name, value in fields.items()
        if value is not None
    }


def clean_value(value: object, max_string: int) -> Value:
    """What JSON can say of a value: NaN and infinities become text, a foreign object the name of its class."""
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
    """Cut what is too long, with a mark, and replace lone surrogates, which many readers refuse."""
    if not isinstance(text, str):
        return f"<{type(text).__qualname__}>"
    if len(text) > max_string:
        mark = f"[cut: {len(text)} characters]"
        text = text[: max_string - len(mark)] + mark
    return str(text) if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)
