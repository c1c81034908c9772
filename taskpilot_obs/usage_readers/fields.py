"""Looking into whatever an SDK returns: dicts, pydantic models, dataclasses, protobuf wrappers. No SDK is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol


class Fields(Protocol):
    """Named values, absent ones None."""

    def get(self, key: str, /) -> Any:
        """The value under `key`."""
        ...


class _Attributes:
    """An object's attributes, as `Fields`."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def get(self, key: str, /) -> Any:
        return getattr(self._value, key, None)


NOTHING: Final[Mapping[str, Any]] = {}
_SCALARS: Final = (str, bytes, bytearray, int, float, list, type(None))
_TELLING: Final = frozenset(
    """amazon-bedrock-invocationMetrics billed_units cache_creation cache_read_input_tokens candidates candidates_token_count
    choices completion_tokens content delta generations input_token_count input_tokens message metadata output output_tokens
    prompt_token_count prompt_tokens response token_count tokens total_tokens type usage usage_metadata""".split()
)
"""An object that keeps one of these in its `__dict__` keeps the others there too; the rest have properties."""


def fields(value: object) -> Fields | None:
    """The named values of an object; None for what has none (text, numbers, lists)."""
    if isinstance(value, (dict, Mapping)):
        return value
    if isinstance(value, _SCALARS):
        return None
    stored = getattr(value, "__dict__", None)
    if not isinstance(stored, dict) or _TELLING.isdisjoint(stored):
        return _Attributes(value)
    extra = getattr(value, "__pydantic_extra__", None)
    return {**stored, **extra} if isinstance(extra, dict) and extra else stored


def inner(outer: Fields, *keys: str) -> Fields:
    """The first of the named values that has fields itself; no fields where there is none."""
    for key in keys:
        value = outer.get(key)
        found = fields(value) if value is not None else None
        if found is not None:
            return found
    return NOTHING


def first(*values: object) -> object:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


def text(value: object) -> str | None:
    """`value` where it is a text that is not empty; the value of an enum of texts."""
    if isinstance(value, str) and value:
        return str(getattr(value, "value", value))
    inner_value = getattr(value, "value", None) if value is not None else None
    return inner_value if isinstance(inner_value, str) and inner_value else None


def items(value: object) -> list[Fields]:
    """The elements of a list that have fields."""
    if not isinstance(value, (list, tuple)):
        return []
    return [found for element in value if (found := fields(element)) is not None]
