"""Which calls a question is about."""

from __future__ import annotations

from typing import TypedDict

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store.queries import Filters
from taskpilot_obs.store.rows import stored_text


class Asked(TypedDict, total=False):
    """The values that a question can be narrowed to."""

    tenant: str | None
    user: str | None
    agent: str | None
    workflow: str | None
    model: str | None
    provider: str | None
    prompt_name: str | None


_COLUMNS = {"tenant": "organization_id", "user": "user_id", "model": "model_name"}


def filters_of(asked: Asked) -> Filters:
    """The same in the words of the tables.

    Raises:
        ConfigurationError: something else is asked, or by an empty name: that would not mean everything.
    """
    values: dict[str, str | None] = {}
    for name, value in asked.items():
        if name not in Asked.__annotations__:
            raise ConfigurationError(f"given {name}=; allowed are {', '.join(Asked.__annotations__)}")
        if value == "":
            raise ConfigurationError(f"{name}: given nothing; give a name, or None for all")
        values[_COLUMNS.get(name, name)] = stored_text(value)
    return Filters(**values)
