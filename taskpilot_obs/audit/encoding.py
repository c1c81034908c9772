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
Row = tuple[Key, int, Ids, tuple[Value, ...]]
"""An audit record that is not yet a line: what repeats, time in ns since the epoch, identifiers, what else varies."""
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


class IdsText:
    """Writes the identifiers of records, and keeps the last text, because an end mostly follows its start at once.

    Args:
        max_string: how many characters of one string are kept.
    """

    def __init__(self, max_string: int = MAX_STRING) -> None:
        self.max_string = max_string
        self._last: tuple[Ids | None, str] = (None, "")
        """One value, because threads may share it."""

    def of(self, ids: Ids) -> str:
        """The identifiers that the record has, as members of its JSON object."""
        known, text = self._last
        if known != ids:
            text = _ids_text(ids, self.max_string)
            self._last = ids, text
        return text


class RecordLayout:
    """Writes one kind of record.

    Args:
        row: takes a record apart; None if the log has no line for it.
        repeating: builds the fields that repeat from call to call, from a record's key.
        varying: names of the fields that differ from call to call, besides the identifiers, in the order of a record's
            values: text, finite numbers, None, and (`MORE`) a mapping of fields that only few records have. A record
            may leave out the last ones.
        ids: writes the identifiers; layouts that share it reuse its text.
    """

    def __init__(
        self,
        row: Callable[[Any], Row | None],
        repeating: Callable[[Key], Fields],
        varying: tuple[str, ...],
        ids: IdsText,
    ) -> None:
        self._row = row
        self._repeating = repeating
        self._leads = tuple("," if name == MORE else f',"{name}":' for name in varying)
        self._ids = ids
        self._max_string = ids.max_string
        self._texts: BoundedDict[Key, str] = BoundedDict(_MAX_CACHED)

    def text(self, record: object) -> str | None:
        """The record as JSON without its closing brace, so that the chain can add its own fields."""
        row = self._row(record)
        if row is None:
            return None
        key, time_unix_ns, ids, values = row
        repeating = self._texts.get(key)
        if repeating is None:
            repeating = self._keep_text(key)
        text = f'{_START}{rfc3339(time_unix_ns)}",{repeating}{self._ids.of(ids)}'
        for lead, value in zip(self._leads, values):  # noqa: B905  a record may leave out the last values
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
    if kind is int:
        return str(value)
    if lead in _WHOLE:
        raise TypeError(f"{lead[2:-2]}: expected a whole number, got {kind.__name__}")
    if kind is float or kind is Decimal:
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
