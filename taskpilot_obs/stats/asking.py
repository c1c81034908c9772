"""Which calls a question is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from taskpilot_obs._telemetry.filters import Filters
from taskpilot_obs._telemetry.values import stored_text
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.providers.names import canonical, canonical_model
from taskpilot_obs.semconv import NONE


class Asked(TypedDict, total=False):
    """The values that a question can be narrowed to: None for any, `__none__` for calls that have none."""

    tenant_id: str | None
    user_id: str | None
    session_id: str | None
    agent: str | None
    workflow: str | None
    model: str | None
    provider: str | None
    prompt_name: str | None
    service: str | None
    environment: str | None
    request_id: str | None
    step_id: str | None
    task_id: str | None
    workflow_run_id: str | None
    thought_id: str | None
    experiment: str | None
    variant: str | None
    tenant: str | None
    """The name of `tenant_id` in version 0.1, which is still accepted."""
    user: str | None
    """The name of `user_id` in version 0.1, which is still accepted."""
    session: str | None
    """Another name of `session_id`."""


_COLUMNS = {"tenant_id": "organization_id", "model": "model_name"}
_ONE_NAME: dict[str, Callable[[str], str]] = {"model_name": canonical_model, "provider": canonical}
_RENAMED = {"tenant": "tenant_id", "user": "user_id", "session": "session_id"}


def filters_of(asked: Asked) -> Filters:
    """The filters in the words of the tables.

    Raises:
        ConfigurationError: A filter is unknown, given twice, or empty, which would not mean everything.
    """
    values: dict[str, str] = {}
    for name, value in asked.items():
        if name not in Asked.__annotations__:
            allowed = (each for each in Asked.__annotations__ if each not in _RENAMED)
            raise ConfigurationError(f"given {name}=; allowed are {', '.join(allowed)}")
        if value == "":
            raise ConfigurationError(f"{name}: given nothing; give a name, {NONE} for calls without, or None for all")
        present = _RENAMED.get(name, name)
        column = _COLUMNS.get(present, present)
        if value is not None and column in values:
            raise ConfigurationError(f"given {present}= and its former name {name}=; give {present}= only")
        if value is not None:
            values[column] = "" if value == NONE else _as_stored(column, value)
    return values


def _as_stored(column: str, value: object) -> str:
    """A value as rows have it: models and providers under their one name."""
    text = stored_text(value) or ""
    one_name = _ONE_NAME.get(column)
    return text if one_name is None else one_name(text)
