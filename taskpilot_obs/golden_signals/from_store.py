"""Golden signals of everything that writes to a telemetry store, for as long as its rows are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Unpack

from taskpilot_obs._support.timestamps import aware
from taskpilot_obs._telemetry.counts import NO_CALLS, Counts
from taskpilot_obs._telemetry.sketch import quantiles
from taskpilot_obs._telemetry.values import stored_text
from taskpilot_obs.golden_signals.assess import JudgeOptions, assess
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.golden_signals.evidence import QUANTILE, BilledCalls, Evidence, OverallEvidence, TaskEvidence
from taskpilot_obs.golden_signals.model import GoldenSignals
from taskpilot_obs.records import Status
from taskpilot_obs.store import Store
from taskpilot_obs.store.marks import deleted_from
from taskpilot_obs.store.queries import totals
from taskpilot_obs.store.questions import Question, asked_of
from taskpilot_obs.store.tables import AGENT_RUNS, FEEDBACK, VIOLATIONS
from taskpilot_obs.store.tasks import Tasks, denials, statuses, tasks, verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping

_MS_PER_S: Final = 1_000.0
_FIRST: Final = datetime(1, 1, 2, tzinfo=UTC)
"""Before anything that a store holds; an hour less still is a time."""


def signals_from_store(
    window: timedelta | str | None,
    *,
    store: str | Store | None = None,
    tenant: str | None = None,
    now: datetime | None = None,
    **judged: Unpack[JudgeOptions],
) -> GoldenSignals:
    """The golden signals of the newest part of a telemetry store; flush before, to see what just ended.

    The 95th percentiles are within 1 % of the exact ones, overall and of each workflow.

    Args:
        window: how far back to look, as in "15m" or "30d"; None: everything that the store holds.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        tenant: only tasks, calls, verdicts and denials of this tenant; None for all.
        now: the present; for tests.
        judged: see `JudgeOptions`.

    Raises:
        ConfigurationError: the window cannot be read, or no store is named.
        StoreError: the store is missing or cannot be used.
    """
    end = aware(now)
    length = None if window is None else parse_window(window)
    try:
        start = _FIRST if length is None else max(_FIRST, end - length)
    except OverflowError:
        start = _FIRST
    found = evidence_from_store(start, end, store=store, tenant=tenant)
    window_s = None if length is None else length.total_seconds()
    signals = assess(found.evidence, scope="store", window_s=window_s, **judged)
    notes = tuple(f"{what} before {since:%Y-%m-%d %H:%M} UTC were deleted by age" for what, since in found.missing)
    since = max((since for _, since in found.missing), default=None)
    return signals.model_copy(update={"incomplete_before": since, "notes": (*signals.notes, *notes)})


class StoredSums(NamedTuple):
    """What a store knows, and what it does not know any more."""

    evidence: Evidence
    missing: tuple[tuple[str, datetime], ...]
    """What was deleted, and from when on it is there."""


def evidence_from_store(
    start: datetime, end: datetime, *, store: str | Store | None = None, tenant: str | None = None
) -> StoredSums:
    """What a telemetry store knows of [start, end), in one snapshot; of one tenant, or of all.

    Figures that are divided by one another come from one stretch of time: costs and violations are counted from when on
    the runs are there that they are divided by.
    """
    owner = stored_text(tenant)
    with asked_of(store, start, end, {} if owner is None else {"organization_id": owner}) as question:
        connection = question.connection
        runs = deleted_from(connection, AGENT_RUNS.name).missing_in(start, end)
        of_runs = question.since(runs or start)
        denied = deleted_from(connection, VIOLATIONS.name).missing_in(of_runs.start, end)
        rated = deleted_from(connection, FEEDBACK.name).missing_in(start, end)
        found = tasks(connection, of_runs.start, end, owner)
        paid, calls = _paid(of_runs)
        whole = _all_tasks(found.values(), calls)._replace(paid_successes=paid.succeeded)
        overall = _overall(of_runs.since(denied or of_runs.start), calls)
        ratings = verdicts(connection, rated or start, end, owner)
        overall = overall._replace(correct=ratings.get(True, 0), incorrect=ratings.get(False, 0))
        missing = {"runs": runs, "calls": question.plan().incomplete_before, "violations": denied, "ratings": rated}
    return StoredSums(
        Evidence(whole, overall, _by_name(found)),
        tuple((what, since) for what, since in missing.items() if since is not None),
    )


def _paid(question: Question) -> tuple[TaskEvidence, Counts]:
    """The calls of a stretch of time, as far as they are there, and the runs since then."""
    planned = question.plan()
    if planned.incomplete_before is not None:
        question = question.since(planned.incomplete_before)
        planned = question.plan()
    calls = totals(question.connection, planned, question.filters).get((), NO_CALLS)
    return _runs(question), calls


def _runs(question: Question) -> TaskEvidence:
    tenant = question.filters.get("organization_id")
    return TaskEvidence(runs=statuses(question.connection, question.start, question.end, tenant))


def _overall(question: Question, calls: Counts) -> OverallEvidence:
    return OverallEvidence(
        BilledCalls(calls.billable, calls.unpriced, calls.partly_priced),
        denials(question.connection, question.start, question.end, question.filters.get("organization_id")),
        checked_runs=_runs(question).counted,
    )


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


def _p95_s(durations: Counter[int]) -> float | None:
    (p95_ms,) = quantiles(durations, QUANTILE)
    return None if p95_ms is None else p95_ms / _MS_PER_S
