"""Attributes of runs as plain, frozen values, and names as text."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from taskpilot_obs.records import NO_ATTRIBUTES, Attributes, AttributeValue

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = (str, bool, int, float)


def clean_attributes(attributes: Mapping[str, object]) -> Attributes:
    """A frozen copy that holds plain values only; anything else is named by its type, never called or kept alive."""
    if not attributes:
        return NO_ATTRIBUTES
    return MappingProxyType(
        {
            key if type(key) is str else _name_of_type(key): cast(AttributeValue, value)
            if type(value) in _PLAIN
            else _name_of_type(value)
            for key, value in attributes.items()
        }
    )


def plain_text(value: object) -> str:
    """An identifier or a name as text: numbers and UUIDs are written out, anything else is named by its type."""
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    from uuid import UUID  # a value of this type exists only if its module was imported

    return str(value) if type(value) in (int, UUID) else _name_of_type(value)


def _name_of_type(value: object) -> str:
    return f"<{type(value).__name__}>"
