"""Which calls a question is about, in the words of the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import or_

from taskpilot_obs.exceptions import StoreVersionError
from taskpilot_obs.providers.names import canonical, canonical_model
from taskpilot_obs.store.rollups import Rollup, rollup_for
from taskpilot_obs.store.tables import LLM_CALLS, columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement


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

    def rollup(self, dimensions: Iterable[str], version: str) -> Rollup | None:
        """The roll-up that answers, grouped by these dimensions; None: rows alone.

        Raises:
            StoreVersionError: the tables have no column for a filter.
        """
        missing = self.asked.keys() - set(columns_of(LLM_CALLS, version))
        if missing:
            raise StoreVersionError(
                f"the telemetry store has version {version!r}, which does not keep {', '.join(sorted(missing))}: "
                "run `taskpilot-obs db upgrade --store URL` once"
            )
        return rollup_for({*self.asked, *dimensions}, version)


def rows_where(asked: dict[str, str]) -> list[ColumnElement[bool]]:
    """The filters as conditions on rows, where NULL and the empty text both stand for no value."""
    columns: Any = LLM_CALLS.c
    return [
        columns[name] == value if value else or_(columns[name].is_(None), columns[name] == "")
        for name, value in asked.items()
    ]
