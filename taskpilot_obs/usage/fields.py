"""Reads fields of SDK results: dicts, pydantic models, dataclasses, protobuf wrappers. No SDK is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol


class Fields(Protocol):
    """Named values; absent ones are None."""

    def get(self, key: str, /) -> Any:
        """Return the value under `key`."""
        ...


class Attributes:
    """An object's attributes, as `Fields`."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def get(self, key: str, /) -> Any:
        """Return the attribute `key`, or None."""
        return getattr(self._value, key, None)


NOTHING: Final[Mapping[str, Any]] = {}
_SCALARS: Final = (str, bytes, bytearray, int, float, list)
_TELLING: Final = frozenset(
    {
        "amazon-bedrock-invocationMetrics",
        "billed_units",
        "cache_creation",
        "cache_read_input_tokens",
        "candidates",
        "candidates_token_count",
        "choices",
        "completion_tokens",
        "content",
        "delta",
        "embedding",
        "generations",
        "input_token_count",
        "input_tokens",
        "message",
        "metadata",
        "modality",
        "output",
        "output_tokens",
        "prompt_token_count",
        "prompt_tokens",
        "response",
        "token_count",
        "tokens",
        "total_tokens",
        "type",
        "usage",
        "usage_metadata",
    }
)
"""If an object has one of these in its `__dict__`, it has the others there too; other objects use properties."""


def fields(value: object) -> Fields | None:
    """The named values of an object; None for values without fields (text, numbers, lists)."""
    if type(value) is dict:
        return value
    if value is None or isinstance(value, _SCALARS):
        return None
    if isinstance(value, Mapping):
        return value
    stored = getattr(value, "__dict__", None)
    if not isinstance(stored, dict) or _TELLING.isdisjoint(stored):
        return Attributes(value)
    extra = getattr(value, "__pydantic_extra__", None)
    return {**stored, **extra} if isinstance(extra, dict) and extra else stored


def answers_anything(layer: Fields) -> bool:
    """Whether an object has every attribute, as mocks and lazy proxies do, which would nest without end."""
    return type(layer) is Attributes and layer.get("_taskpilot_obs_asks_for_a_name_that_nobody_has") is not None


def inner(outer: Fields, *keys: str) -> Fields:
    """Return the fields of the first named value that has any; otherwise no fields."""
    for key in keys:
        value = outer.get(key)
        if value is not None:
            found = fields(value)
            if found is not None:
                return found
    return NOTHING


def first(outer: Fields, *keys: str) -> Any:
    """Return the first of the named values that is not None."""
    for key in keys:
        value = outer.get(key)
        if value is not None:
            return value
    return None


def text(value: object) -> str | None:
    """Return a non-empty text or the value of a string enum, else None."""
    if type(value) is str:
        return value or None
    if value is None or isinstance(value, (int, float, list, dict)):
        return None
    content = getattr(value, "value", value)
    return str(content) if isinstance(content, str) and content else None


def wrapped(value: object) -> Fields | None:
    """The content of a wrapper; of LangChain's generations the first, because the others of a call repeat its usage."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return fields(value)


def items(value: object) -> list[Fields]:
    """Return the elements of a list that have fields."""
    if not isinstance(value, (list, tuple)):
        return []
    return [found for element in value if (found := fields(element)) is not None]
