"""Which experiments the store has tasks of; `taskpilot_obs.compare` says how they went."""

from __future__ import annotations

from datetime import datetime

from taskpilot_obs.stats.asking import filters_of
from taskpilot_obs.stats.model import Frozen
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.store import Store
from taskpilot_obs.store.experiments import experiments_seen
from taskpilot_obs.store.questions import asked_of
from taskpilot_obs.store.tables import AGENT_RUNS


class ExperimentSeen(Frozen):
    """An experiment that the store has tasks of."""

    experiment: str
    variants: int
    units: int
    """Users, sessions, tenants or requests that were assigned."""
    tasks: int
    first_seen: datetime
    """The end of its first task in the period."""
    last_seen: datetime


def get_experiments(
    period: Period = "30d",
    *,
    tenant_id: str | None = None,
    store: str | Store | None = None,
    now: datetime | None = None,
) -> tuple[ExperimentSeen, ...]:
    """The experiments with tasks in a period, the one with the most recent task first.

    Args:
        period: as in `get_stats`.
        tenant_id: only tasks of this tenant; None for all.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.

    Raises:
        ConfigurationError: an argument cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    start, end = bounds(period, now)
    filters = filters_of({"tenant_id": tenant_id})
    with asked_of(store, start, end, filters) as question:
        question.needs(AGENT_RUNS, "experiment_unit")
        rows = experiments_seen(question.connection, start, end, filters.get("organization_id"))
    return tuple(ExperimentSeen(**row) for row in rows)
