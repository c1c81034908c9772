"""Golden signals of everything that writes to a telemetry store, for as long as its rows are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from taskpilot_obs.golden_signals.assess import assess
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.golden_signals.evidence import QUANTILE, Evidence, OverallEvidence, TaskEvidence, Verdicts
from taskpilot_obs.golden_signals.model import GoldenSignals
from taskpilot_obs.golden_signals.thresholds import Thresholds
from taskpilot_obs.records import Status
from taskpilot_obs.store import Store
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.queries import Counts, Filters, totals
from taskpilot_obs.store.rows import stored_text
from taskpilot_obs.store.segments import plan
from taskpilot_obs.store.sketch import quantiles
from taskpilot_obs.store.tasks import Tasks, Told, tasks, told

if TYPE_CHECKING:
    from collections.abc import Mapping

_MS_PER_S: Final = 1_000.0
_FIRST: Final = datetime(1, 1, 2, tzinfo=UTC)
"""Before anything that a store holds; an hour less still is a time."""


def signals_from_store(
    window: timedelta | str | None,
    *,
    store: str | Store | None = None,
    workflow: str | None = None,
    tenant: str | None = None,
    thresholds: Thresholds | None = None,
    now: datetime | None = None,
) -> GoldenSignals:
    """The golden signals of the newest part of a telemetry store; flush before, to see what just ended.

    The 95th percentiles are within 1 % of the exact ones, overall and of each workflow.

    Args:
        window: how far back to look, as in "15m" or "30d"; None: everything that the store holds.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        workflow: speak of this workflow alone.
        tenant: only tasks, calls, verdicts and denials of this tenant; None for all.
        thresholds: bounds of healthy and warning; None for the defaults.
        now: the present; for tests.

    Raises:
        ConfigurationError: the window cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    end = now or datetime.now(UTC)
    length = None if window is None else parse_window(window)
    evidence = evidence_from_store(_FIRST if length is None else end - length, end, store=store, tenant=tenant)
    window_s = None if length is None else length.total_seconds()
    return assess(evidence, scope="store", window_s=window_s, workflow=workflow, thresholds=thresholds)


def evidence_from_store(
    start: datetime, end: datetime, *, store: str | Store | None = None, tenant: str | None = None
) -> Evidence:
    """What a telemetry store knows of [start, end), in one snapshot; of one tenant, or of all."""
    owner = stored_text(tenant)
    with opened(store) as opened_store, opened_store.reading() as connection:
        found = tasks(connection, start, end, owner)
        said = told(connection, start, end, owner)
        segments = plan(connection, start, end).segments
        calls = totals(connection, segments, Filters(organization_id=owner)).get((), Counts())
    return Evidence(_all_tasks(found.values(), calls), _overall(calls, said), _by_name(found))


def _by_name(found: Mapping[str, Tasks]) -> dict[str, TaskEvidence]:
    return {
        name: TaskEvidence(
            runs=held.runs,
            p95_s=_p95_s(held.durations),
            durations=held.durations.total(),
            cost_usd=float(held.cost),
            runs_with_violations=held.runs_with_violations,
        )
        for name, held in found.items()
    }


def _all_tasks(found: Iterable[Tasks], calls: Counts) -> TaskEvidence:
    runs: Counter[Status] = Counter()
    durations: Counter[int] = Counter()
    violated = 0
    for held in found:
        runs.update(held.runs)
        durations.update(held.durations)
        violated += held.runs_with_violations
    return TaskEvidence(
        runs=runs,
        p95_s=_p95_s(durations),
        durations=durations.total(),
        cost_usd=float(calls.cost),
        runs_with_violations=violated,
    )


def _overall(calls: Counts, said: Told) -> OverallEvidence:
    verdicts = Verdicts(
        first_correct=said.feedback.get((True, False), 0),
        first_incorrect=said.feedback.get((False, False), 0),
        revised_to_correct=said.feedback.get((True, True), 0),
        revised_to_incorrect=said.feedback.get((False, True), 0),
    )
    return OverallEvidence(
        calls.requests - calls.cache_hits, calls.unpriced, said.violations, verdicts.correct, verdicts.incorrect
    )


def _p95_s(durations: Counter[int]) -> float | None:
    (p95_ms,) = quantiles(durations, QUANTILE)
    return None if p95_ms is None else p95_ms / _MS_PER_S
