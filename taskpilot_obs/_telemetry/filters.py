"""Which calls a question is about, by the names of the columns."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

Filters = Mapping[str, str]
"""The values that calls must have, by column: the empty text for those that have none. Other columns may have any."""
EVERYTHING: Final[Filters] = MappingProxyType({})
_COLUMNS: Final = {"tenant": "organization_id", "user": "user_id", "model": "model_name", "prompt": "prompt_name"}


def column_of(dimension: str) -> str:
    """The column of a dimension by which calls are grouped: most have its name."""
    return _COLUMNS.get(dimension, dimension)
