"""Counts the runs and verdicts of an experiment by the variant assigned to the request, and its broken guardrails.

A run knows its experiment by two attributes, which `Experiment.assign` puts into the request's context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskpilot_obs import semconv
from taskpilot_obs.records import LLM_OPERATIONS

if TYPE_CHECKING:
    from taskpilot_obs.exporters.prometheus.pending import PendingIncrements
    from taskpilot_obs.records import Attributes, AuditEvent, Feedback, Invocation

EXPERIMENT: Final = "experiment"
VARIANT: Final = "variant"


def _labels(attributes: Attributes) -> tuple[str, str] | None:
    experiment, variant = attributes.get(EXPERIMENT), attributes.get(VARIANT)
    return None if experiment is None or variant is None else (str(experiment), str(variant))


def book_run(pending: PendingIncrements, done: Invocation) -> None:
    """Count a task that ended, or the cost of an LLM call."""
    labels = _labels(done.attributes)
    if labels is None:
        return
    if done.operation in LLM_OPERATIONS:
        if done.cost is not None and not done.cached:
            pending.add(semconv.EXPERIMENT_COST, done.cost, *labels)
    elif done.is_task:
        families = pending.families
        families.counter(semconv.EXPERIMENT_RUNS).init_child(*labels)
        families.counter(semconv.EXPERIMENT_COST).init_child(*labels)
        pending.add(semconv.EXPERIMENT_RUNS, 1, *labels, done.status)
        pending.observe(families.histogram(semconv.EXPERIMENT_DURATION).child(*labels), done.duration_s, None)


def book_verdict(pending: PendingIncrements, feedback: Feedback) -> None:
    """Count a verdict that was given within the experiment's context; a revision counts under its new verdict."""
    labels = _labels(feedback.attributes)
    if labels is not None:
        verdict = semconv.VERDICTS[0] if feedback.correct else semconv.VERDICTS[1]
        pending.add(semconv.EXPERIMENT_FEEDBACK, 1, *labels, verdict)


def book_stop(pending: PendingIncrements, event: AuditEvent) -> None:
    """Count a guardrail that a guard found broken; other audit events are not counted."""
    if event.event != semconv.EXPERIMENT_STOPPED:
        return
    labels, measure = _labels(event.attributes), event.attributes.get(semconv.Label.MEASURE)
    if labels is not None and measure is not None:
        pending.add(semconv.EXPERIMENT_GUARDRAILS_BROKEN, 1, *labels, str(measure))
