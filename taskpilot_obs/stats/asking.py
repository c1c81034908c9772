"""Which calls a question is about."""

from __future__ import annotations

from typing import TypedDict

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.semconv import NONE
from taskpilot_obs.store.filters import Filters
from taskpilot_obs.store.rows import stored_text


class Asked(TypedDict, total=False):
    """The values that a question can be narrowed to: None for any, `__none__` for calls that have none."""

    tenant: str | None
    user: str | None
    agent: str | None
    workflow: str | None
    model: str | None
    provider: str | None
    prompt_name: str | None
    service: str | None
    environment: str | None
    session: str | None
    request_id: str | None
    step_id: str | None
    task_id: str | None
    workflow_run_id: str | None
    thought_id: str | None
    experiment: str | None
    variant: str | None


_COLUMNS = {"tenant": "organization_id", "user": "user_id", "session": "session_id", "model": "model_name"}


def filters_of(asked: Asked) -> Filters:
    """The filters in the words of the tables.

    Raises:
        ConfigurationError: something else is asked, or by an empty name: that would not mean everything.
    """
    values: dict[str, str | None] = {}
    for name, value in asked.items():
        if name not in Asked.__annotations__:
            raise ConfigurationError(f"given {name}=; allowed are {', '.join(Asked.__annotations__)}")
        if value == "":
            raise ConfigurationError(f"{name}: given nothing; give a name, {NONE} for calls without, or None for all")
        values[_COLUMNS.get(name, name)] = "" if value == NONE else stored_text(value)
    return Filters(**values)
