"""Counts decisions of policies, guardrails and budgets, and users' feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs import semconv
from taskpilot_obs.records import CheckResult, DecisionKind, Verdict
from taskpilot_obs.semconv import NONE, VERDICTS, Label

if TYPE_CHECKING:
    from taskpilot_obs.exporters.prometheus.pending import PendingIncrements
    from taskpilot_obs.records import Decision, Feedback


def book_decision(pending: PendingIncrements, decision: Decision) -> None:
    """Count one decision in the families of its kind."""
    match decision.kind:
        case DecisionKind.POLICY:
            _book_policy(pending, decision)
        case DecisionKind.GUARDRAIL:
            _book_guardrail(pending, decision)
        case DecisionKind.BUDGET:
            _book_budget(pending, decision)


def _book_policy(pending: PendingIncrements, decision: Decision) -> None:
    pending.add(semconv.POLICY_DECISIONS, 1, decision.name, decision.verdict)
    place = (decision.origin.workflow or NONE, decision.origin.agent or NONE, decision.name, decision.severity)
    # A policy usually allows before it first denies: the series then exists at 0, so the first denial is visible.
    pending.families.counter(semconv.POLICY_VIOLATIONS).init_child(*place)
    if decision.verdict is Verdict.DENY:
        pending.add(semconv.POLICY_VIOLATIONS, 1, *place)


def _book_guardrail(pending: PendingIncrements, decision: Decision) -> None:
    stage = decision.stage or NONE
    pending.add(semconv.GUARDRAIL_CHECKS, 1, decision.name, stage, decision.result)
    place = (decision.origin.agent or NONE, decision.name, stage)
    pending.families.counter(semconv.GUARDRAIL_BLOCKS).init_child(*place)
    if decision.result is CheckResult.BLOCKED:
        pending.add(semconv.GUARDRAIL_BLOCKS, 1, *place)
    if decision.duration_s is not None:
        durations = pending.families.histogram(semconv.GUARDRAIL_CHECK_DURATION)
        pending.observe(durations.child(decision.name), decision.duration_s, None)


def _book_budget(pending: PendingIncrements, decision: Decision) -> None:
    if decision.result is CheckResult.BLOCKED:
        period = decision.attributes.get(Label.PERIOD)
        pending.add(semconv.BUDGET_REFUSALS, 1, decision.name, str(period or NONE))


def book_feedback(pending: PendingIncrements, feedback: Feedback) -> None:
    """Count a first verdict, or a revision under its new verdict."""
    metric = semconv.FEEDBACK_REVISIONS if feedback.revision else semconv.FEEDBACK
    pending.add(metric, 1, VERDICTS[0] if feedback.correct else VERDICTS[1])
