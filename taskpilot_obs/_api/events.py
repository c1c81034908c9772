"""Point events on the default recorder: what happened, without a beginning and an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._recording.finalized import abandon_open_runs
from taskpilot_obs.config import get_recorder
from taskpilot_obs.records import DecisionKind, Operation, Severity, Stage, Status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from taskpilot_obs.records import AttributeValue, CheckResult, Verdict


def record_feedback(
    request_id: str | None = None, *, correct: bool, attributes: Mapping[str, object] | None = None
) -> None:
    """Record a user's word on a request: was the answer right?

    Counted once per request ID (the last 50,000 rated of this process); the opposite verdict later is a revision.

    Args:
        request_id: the request; the current one when left out.
        correct: whether the user confirms it.
        attributes: for the audit log.
    """
    get_recorder().record_feedback(request_id, correct=correct, attributes=attributes)


def record_policy_violation(
    policy: str,
    *,
    reason: str | None = None,
    severity: Severity | str = Severity.MEDIUM,
    blocked: bool = False,
    tool: str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """Record one violation that a check of the application's own found; see `Recorder.record_policy_violation`."""
    get_recorder().record_policy_violation(
        policy, reason=reason, severity=severity, blocked=blocked, tool=tool, attributes=attributes
    )


def record_guardrail_block(
    guardrail: str,
    *,
    stage: Stage | str = Stage.INPUT,
    reason: str | None = None,
    duration_seconds: float | None = None,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """Record that a guardrail of the application's own really blocked; see `Recorder.record_guardrail_block`."""
    get_recorder().record_guardrail_block(
        guardrail, stage=stage, reason=reason, duration_seconds=duration_seconds, attributes=attributes
    )


def record_decision(  # noqa: PLR0913  what an auditor asks about a decision
    name: str,
    verdict: Verdict | str,
    *,
    kind: DecisionKind | str = DecisionKind.POLICY,
    result: CheckResult | str | None = None,
    stage: Stage | str | None = None,
    reason: str | None = None,
    severity: Severity | str = Severity.MEDIUM,
    tool: str | None = None,
    duration_seconds: float | None = None,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """Record the decision of a policy or guardrail that lives elsewhere; see `Recorder.record_decision`."""
    get_recorder().record_decision(
        name,
        verdict,
        kind=kind,
        result=result,
        stage=stage,
        reason=reason,
        severity=severity,
        tool=tool,
        duration_seconds=duration_seconds,
        attributes=attributes,
    )


def record_llm_call(  # noqa: PLR0913  one argument for each thing that can be known after the fact
    *,
    model: str | None,
    provider: str | None = None,
    status: Status | str = Status.SUCCESS,
    duration_seconds: float = 0.0,
    usage: object = None,
    cached: bool | None = None,
    cost: Decimal | float | str | None = None,
    response_model: str | None = None,
    operation: Operation | str = Operation.CHAT,
    service_tier: str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """Record an LLM call that is over already; see `Recorder.record_llm_call`."""
    get_recorder().record_llm_call(
        model=model,
        provider=provider,
        status=status,
        duration_seconds=duration_seconds,
        usage=usage,
        cached=cached,
        cost=cost,
        response_model=response_model,
        operation=operation,
        service_tier=service_tier,
        attributes=attributes,
    )


def record_audit_event(event: str, **attributes: AttributeValue) -> None:
    """Write an event of the application's (task created, approved, …) to the audit log, with the request ID."""
    get_recorder().record_audit_event(event, **attributes)


def record_cache_size(cache: str, entries: int) -> None:
    """Set how many entries a cache of the application's holds."""
    get_recorder().record_cache_size(cache, entries)


def flush(timeout: float = 5.0) -> bool:
    """Wait until everything recorded so far is written by every exporter; False when `timeout` seconds pass first."""
    return get_recorder().flush(timeout)


def shutdown(timeout: float | None = None) -> bool:
    """Write what can be written within `timeout` seconds (5 by default) and stop; recording ends here.

    Runs that have not ended by then are recorded as `abandoned`.
    """
    abandon_open_runs(get_recorder())
    return get_recorder().shutdown(timeout)
