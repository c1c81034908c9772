"""Golden signals from an exposition: since the start from one, of a stretch of time from two.

An exposition is the content of `/metrics`: the samples of a registry, of all workers of a multi-process deployment, or
the text that a URL answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Final, Unpack

from taskpilot_obs.exceptions import SourceError
from taskpilot_obs.golden_signals.assess import JudgeOptions, assess
from taskpilot_obs.golden_signals.evidence import (
    QUANTILE,
    BilledCalls,
    Evidence,
    OverallEvidence,
    TaskEvidence,
    VerdictCounts,
    histogram_quantile,
)
from taskpilot_obs.golden_signals.model import GoldenSignals
from taskpilot_obs.records import Status
from taskpilot_obs.semconv import (
    FEEDBACK,
    FEEDBACK_REVISIONS,
    LLM_BILLABLE,
    LLM_COST,
    LLM_PARTIALLY_PRICED,
    LLM_UNPRICED,
    POLICY_VIOLATIONS,
    VERDICTS,
    WORKFLOW_COST,
    WORKFLOW_DURATION,
    WORKFLOW_RUNS,
    WORKFLOW_VIOLATION_RUNS,
    Label,
)

if TYPE_CHECKING:
    from taskpilot_obs.exporters.prometheus.reading import Registry, Sample

BUCKETS: Final = f"{WORKFLOW_DURATION.name}_bucket"
BOUND: Final = "le"
"""The label of a histogram's bucket that holds its upper bound."""
_SERIES: Final = frozenset(
    {
        BUCKETS,
        FEEDBACK.name,
        FEEDBACK_REVISIONS.name,
        LLM_BILLABLE.name,
        LLM_COST.name,
        LLM_PARTIALLY_PRICED.name,
        LLM_UNPRICED.name,
        POLICY_VIOLATIONS.name,
        WORKFLOW_COST.name,
        WORKFLOW_RUNS.name,
        WORKFLOW_VIOLATION_RUNS.name,
    }
)
_PROCESS_START: Final = "process_start_time_seconds"
"""Exposed by prometheus_client itself where the platform tells."""

Exposition = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""Value by series: the name and the labels."""


def exposition(samples: Iterable[Sample]) -> Exposition:
    """Return the series that the signals need; repeated series are summed."""
    series: defaultdict[tuple[str, frozenset[tuple[str, str]]], float] = defaultdict(float)
    for sample in samples:
        if sample.name in _SERIES or sample.name == _PROCESS_START:
            series[sample.name, frozenset(sample.labels.items())] += sample.value
    return series


def increase(before: Exposition, after: Exposition) -> Exposition:
    """Compute the growth between two expositions of one process or deployment.

    Counters never go down. If one fell or vanished, or the process start changed, the process was restarted in between,
    so everything in the second exposition is new.
    """
    if any(_restarted(series, value, after) for series, value in before.items()):
        return after
    return {series: value - before.get(series, 0.0) for series, value in after.items()}


def signals_from_samples(samples: Iterable[Sample], **judged: Unpack[JudgeOptions]) -> GoldenSignals:
    """Compute the golden signals since the start of the processes that these samples come from."""
    evidence = evidence_from_exposition(exposition(samples))
    return assess(evidence, scope="workers", **judged)


def signals_from_registry(registry: Registry | None = None, **judged: Unpack[JudgeOptions]) -> GoldenSignals:
    """The golden signals since the start; in multi-process mode over all workers. Drain the pipeline before.

    The 95th percentile is interpolated within its histogram bucket.
    Without a registry, prometheus_client's own is read.
    """
    from taskpilot_obs.exporters.prometheus.reading import samples

    return signals_from_samples(samples(registry), **judged)


def signals_from_exposition(text: str, content_type: str = "", **judged: Unpack[JudgeOptions]) -> GoldenSignals:
    """The golden signals since the start, from the text of a `/metrics` answer.

    Raises:
        SourceError: the text is not an exposition.
    """
    from taskpilot_obs.exporters.prometheus.reading import parse_text

    return signals_from_samples(parse_text(text, content_type), **judged)


def evidence_from_exposition(series: Exposition) -> Evidence:
    """Read the evidence in the series of an exposition.

    Raises:
        SourceError: families have the library's names but other labels.
    """
    try:
        return _evidence(series)
    except (KeyError, ValueError) as error:
        raise SourceError(
            f"the exposition has metrics named as those of taskpilot-obs with other labels ({error}): "
            "ask the endpoint of a service that this library observes"
        ) from error


def _evidence(series: Exposition) -> Evidence:
    sums: defaultdict[str, float] = defaultdict(float)
    by_workflow: defaultdict[str, _Tally] = defaultdict(_Tally)
    verdicts: defaultdict[tuple[str, str], float] = defaultdict(float)
    for (name, labels), value in series.items():
        label = dict(labels)
        sums[name] += value
        if Label.VERDICT in label:
            verdicts[name, label[Label.VERDICT]] += value
        elif Label.WORKFLOW in label:
            by_workflow[label[Label.WORKFLOW]].add(name, label, value)
    workflows = {name: tally.evidence() for name, tally in by_workflow.items() if tally.runs}
    correct, incorrect = VERDICTS
    latest = VerdictCounts(
        verdicts[FEEDBACK.name, correct],
        verdicts[FEEDBACK.name, incorrect],
        verdicts[FEEDBACK_REVISIONS.name, correct],
        verdicts[FEEDBACK_REVISIONS.name, incorrect],
    )
    overall = OverallEvidence(
        BilledCalls(sums[LLM_BILLABLE.name], sums[LLM_UNPRICED.name], sums[LLM_PARTIALLY_PRICED.name]),
        violations=sums[POLICY_VIOLATIONS.name],
        correct=latest.correct,
        incorrect=latest.incorrect,
    )
    everything = _Tally()
    for tally in by_workflow.values():
        everything.merge(tally)
    return Evidence(everything.evidence()._replace(cost_usd=sums[LLM_COST.name]), overall, workflows)


class _Tally:
    """Sums over the series of one workflow, or of all."""

    def __init__(self) -> None:
        self.runs: defaultdict[Status, float] = defaultdict(float)
        self.buckets: defaultdict[float, float] = defaultdict(float)
        self.cost = 0.0
        self.runs_with_violations = 0.0

    def add(self, name: str, label: Mapping[str, str], value: float) -> None:
        if name == WORKFLOW_RUNS.name:
            self.runs[Status(label[Label.STATUS])] += value
        elif name == BUCKETS:
            self.buckets[float(label[BOUND])] += value
        elif name == WORKFLOW_COST.name:
            self.cost += value
        elif name == WORKFLOW_VIOLATION_RUNS.name:
            self.runs_with_violations += value

    def merge(self, other: _Tally) -> None:
        for status, count in other.runs.items():
            self.runs[status] += count
        for bound, count in other.buckets.items():
            self.buckets[bound] += count
        self.cost += other.cost
        self.runs_with_violations += other.runs_with_violations

    def evidence(self) -> TaskEvidence:
        return TaskEvidence(
            runs=dict(self.runs),
            p95_s=histogram_quantile(QUANTILE, self.buckets.items()),
            durations=self.buckets.get(inf, 0.0),
            cost_usd=self.cost,
            runs_with_violations=self.runs_with_violations,
            p95_is_interpolated=True,
        )


def _restarted(series: tuple[str, frozenset[tuple[str, str]]], value: float, after: Exposition) -> bool:
    later = after.get(series)
    if series[0] == _PROCESS_START:
        return later is not None and later != value
    return later is None or later < value
