"""Which calls a question is about, by the names of the columns."""

from __future__ import annotations

from typing import Final, NamedTuple

from taskpilot_obs.providers.names import canonical, canonical_model

_COLUMNS: Final = {"tenant": "organization_id", "user": "user_id", "model": "model_name", "prompt": "prompt_name"}


def column_of(dimension: str) -> str:
    """The column of a dimension by which calls are grouped: most have its name."""
    return _COLUMNS.get(dimension, dimension)


class Filters(NamedTuple):
    """The values that calls must have; None for any, the empty text for those that have none."""

    organization_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    agent: str | None = None
    workflow: str | None = None
    model_name: str | None = None
    provider: str | None = None
    prompt_name: str | None = None
    service: str | None = None
    environment: str | None = None
    request_id: str | None = None
    step_id: str | None = None
    task_id: str | None = None
    workflow_run_id: str | None = None
    thought_id: str | None = None
    experiment: str | None = None
    variant: str | None = None

    @property
    def asked(self) -> dict[str, str]:
        """The values that are asked for, by column: models and providers under their one name, as rows have them."""
        asked = {name: value for name, value in self._asdict().items() if value is not None}
        if self.model_name:
            asked["model_name"] = canonical_model(self.model_name)
        if self.provider:
            asked["provider"] = canonical(self.provider)
        return asked
