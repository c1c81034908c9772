"""Computes golden signals from evidence, with one definition for every source."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Final, TypedDict

from taskpilot_obs.golden_signals.evidence import Evidence, OverallEvidence, TaskEvidence
from taskpilot_obs.golden_signals.model import (
    GoldenSignals,
    Interval,
    Ratio,
    Runs,
    Scope,
    SignalEvidence,
    SignalStatus,
    WorkflowSignals,
)
from taskpilot_obs.golden_signals.thresholds import HIGHER_IS_BETTER, Limits, Thresholds

PERCENT: Final = 100.0
MILLISECONDS: Final = 1_000.0
_Z: Final = 1.959963984540054
"""Of the normal distribution, for 95 %."""
_GRAVITY: Final = (SignalStatus.HEALTHY, SignalStatus.WARNING, SignalStatus.CRITICAL)

Figures = dict[str, tuple[float | None, Ratio]]


class JudgeOptions(TypedDict, total=False):
    """How evidence is judged, whatever its source."""

    workflow: str | None
    """Report only this workflow; signals that cannot be attributed to one are then None."""
    thresholds: Thresholds | None
    """Bounds of healthy and warning; None for the defaults."""


def assess(
    evidence: Evidence,
    *,
    scope: Scope,
    window_s: float | None = None,
    workflow: str | None = None,
    thresholds: Thresholds | None = None,
) -> GoldenSignals:
    """The golden signals that this evidence supports.

    Args:
        evidence: counts of one surface.
        scope: the processes that the counts cover.
        window_s: seconds that they cover; None since the start.
        workflow: report only this workflow; signals that cannot be attributed to one are then None.
        thresholds: bounds of healthy and warning; None for the defaults.
    """
    limits = thresholds or Thresholds()
    if workflow is None:
        tasks, overall, workflows = evidence.tasks, evidence.overall, evidence.workflows
    else:
        tasks, overall = evidence.workflows.get(workflow, TaskEvidence()), None
        workflows = {name: task for name, task in evidence.workflows.items() if name == workflow}
    figures = _task_figures(tasks, overall) | _overall_figures(tasks, overall)
    rated = {name: _rated(name, *figure, limits) for name, figure in figures.items()}
    violated = proportion(tasks.runs_with_violations, tasks.total)
    return GoldenSignals(
        **{name: figure for name, (figure, _) in figures.items()},
        status=_overall_status(tasks, rated),
        scope=scope,
        window_s=window_s,
        workflow=workflow,
        runs=_runs(tasks),
        evidence=rated,
        cost_usd=tasks.cost_usd,
        cost_coverage=None if overall is None else overall.calls.coverage,
        llm_calls=None if overall is None else overall.calls.total,
        unpriced_llm_calls=None if overall is None else overall.calls.unpriced,
        runs_with_violations_percent=_percent(violated),
        runs_with_violations=violated,
        p95_is_interpolated=tasks.p95_is_interpolated,
        workflows={name: _workflow_signals(workflows[name], limits) for name in sorted(workflows)},
        notes=tuple(_notes(tasks, overall, workflow)),
    )


def wilson(successes: float, total: float) -> Interval:
    """The Wilson score interval of a proportion, in percent (Wilson, JASA 22, 1927); `total` above 0.

    Unlike the textbook interval it neither leaves 0 to 100 nor shrinks to nothing at the ends.
    """
    share = successes / total
    shrink = 1 + _Z**2 / total
    middle = (share + _Z**2 / (2 * total)) / shrink
    half = _Z * sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2)) / shrink
    return Interval(max(0.0, middle - half) * PERCENT, min(1.0, middle + half) * PERCENT)


def proportion(part: float, whole: float) -> Ratio:
    """A part of a whole, with its interval where there is a whole."""
    # Two counts that a server extrapolated may leave a part slightly above its whole.
    return Ratio(numerator=part, denominator=whole, interval=wilson(min(part, whole), whole) if whole >= 1 else None)


def rate(name: str, figure: float | None, limits: Thresholds) -> SignalStatus:
    """Rate a figure of this signal by the thresholds."""
    if figure is None:
        return SignalStatus.INSUFFICIENT_DATA
    bounds: Limits = getattr(limits, name)
    sign = -1 if name in HIGHER_IS_BETTER else 1
    if sign * figure <= sign * bounds.healthy:
        return SignalStatus.HEALTHY
    return SignalStatus.WARNING if sign * figure <= sign * bounds.warning else SignalStatus.CRITICAL


def _task_figures(tasks: TaskEvidence, overall: OverallEvidence | None) -> Figures:
    success = proportion(tasks.succeeded, tasks.counted)
    latency = None if tasks.p95_s is None else tasks.p95_s * MILLISECONDS
    paid = tasks.succeeded if tasks.paid_successes is None else tasks.paid_successes
    cost = Ratio(numerator=tasks.cost_usd, denominator=paid)
    return {
        "success_rate": (_percent(success), success),
        "p95_latency_ms": (latency, Ratio(numerator=None, denominator=tasks.durations)),
        "cost_per_successful_task_usd": (_divide(cost) if _cost_is_known(tasks, overall) else None, cost),
    }


def _overall_figures(tasks: TaskEvidence, overall: OverallEvidence | None) -> Figures:
    if overall is None:
        nothing = Ratio(numerator=0, denominator=0)
        return dict.fromkeys(("user_confirmed_correctness_percent", "policy_violation_rate_percent"), (None, nothing))
    correctness = proportion(overall.correct, overall.correct + overall.incorrect)
    checked = tasks.counted if overall.checked_runs is None else overall.checked_runs
    violations = Ratio(numerator=overall.violations, denominator=checked)
    return {
        "user_confirmed_correctness_percent": (_percent(correctness), correctness),
        "policy_violation_rate_percent": (_percent(violations), violations),
    }


def _cost_is_known(tasks: TaskEvidence, overall: OverallEvidence | None) -> bool:
    """Whether a cost of 0 means free: only where there were LLM calls, and each has a known price."""
    return tasks.cost_usd > 0 or (overall is not None and overall.calls.total > 0 and overall.calls.unpriced <= 0)


def _divide(ratio: Ratio) -> float | None:
    if ratio.numerator is None or ratio.denominator <= 0:
        return None
    return ratio.numerator / ratio.denominator


def _percent(ratio: Ratio) -> float | None:
    share = _divide(ratio)
    return None if share is None else share * PERCENT


def _rated(name: str, figure: float | None, ratio: Ratio, limits: Thresholds) -> SignalEvidence:
    return SignalEvidence(**ratio.__dict__, status=rate(name, figure, limits))


def _worst(statuses: Iterator[SignalStatus]) -> SignalStatus:
    with_evidence = (status for status in statuses if status in _GRAVITY)
    return max(with_evidence, key=_GRAVITY.index, default=SignalStatus.INSUFFICIENT_DATA)


def _overall_status(tasks: TaskEvidence, rated: dict[str, SignalEvidence]) -> SignalStatus:
    if tasks.total <= 0:
        return SignalStatus.INSUFFICIENT_DATA
    return _worst(signal.status for signal in rated.values())


def _runs(tasks: TaskEvidence) -> Runs:
    return Runs(**{status.value: count for status, count in tasks.runs.items()})


def _workflow_signals(tasks: TaskEvidence, limits: Thresholds) -> WorkflowSignals:
    figures = _task_figures(tasks, None)
    return WorkflowSignals(
        **{name: figure for name, (figure, _) in figures.items()},
        status=_worst(rate(name, figure, limits) for name, (figure, _) in figures.items()),
        runs=_runs(tasks),
        cost_usd=tasks.cost_usd,
        runs_with_violations_percent=_percent(proportion(tasks.runs_with_violations, tasks.total)),
        p95_is_interpolated=tasks.p95_is_interpolated,
    )


def _notes(tasks: TaskEvidence, overall: OverallEvidence | None, workflow: str | None) -> Iterator[str]:
    if workflow is not None:
        yield "correctness, the violation rate and cost coverage are known overall only, not per workflow"
    if tasks.total <= 0:
        yield "no run" if workflow is None else f"no run of workflow {workflow!r}"
    elif tasks.counted <= 0:
        yield "every run was cancelled, abandoned or interrupted, which says nothing about success"
    elif tasks.succeeded <= 0:
        yield f"no run succeeded, so a cost per successful task does not exist ({tasks.cost_usd:.6g} USD were spent)"
    elif not _cost_is_known(tasks, overall):
        yield "no LLM call with a known price, so the cost is unknown"
    if overall is None:
        return
    if tasks.counted <= 0 and overall.violations > 0:
        yield f"{overall.violations:g} policy violations, but no counted run to relate them to"
    coverage = overall.calls.coverage
    if coverage is not None and coverage < 1:
        yield f"the cost covers {coverage:.1%} of LLM calls; the others have no price, or an incomplete one"
