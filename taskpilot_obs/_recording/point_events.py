"""Point events: what happened, without a beginning and an end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskpilot_obs._recording import context
from taskpilot_obs._recording.callsite import Host
from taskpilot_obs._recording.context import current_scope
from taskpilot_obs._recording.spans import current_ids
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import (
    NO_ATTRIBUTES,
    AuditEvent,
    CacheSize,
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Origin,
    Severity,
    Stage,
    Verdict,
    plain_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs._recording.invocation import ActiveInvocation
    from taskpilot_obs._recording.verdicts import Verdicts
    from taskpilot_obs.records import Attributes, AttributeValue, Record


class _Report:
    """A point event on its way to the drainer."""

    __slots__ = ("record", "running", "verdicts")

    def __init__(self, record: Record, running: ActiveInvocation | None, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self.record = record
        self.running = running

    def droppable(self) -> bool:
        return True

    def freeze(self, records: list[Record]) -> None:
        record = self.record
        if isinstance(record, Feedback):
            records.extend(self.verdicts.revise(record))
            return
        if self.running is not None and isinstance(record, Decision) and record.is_violation:
            self.running.add_violation()
        records.append(record)


class Reporter(Host):
    """The half of a recorder that takes point events."""

    verdicts: Verdicts

    def record_feedback(
        self, request_id: str | None = None, *, correct: bool, attributes: Mapping[str, object] | None = None
    ) -> None:
        """Record a user's word on a request: was the answer right?

        Counted once per request ID (the last 50,000 rated of this process); the opposite verdict later is a revision.

        Args:
            request_id: the request; the current one when left out.
            correct: whether the user confirms it.
            attributes: for the audit log.
        """
        origin = self.origin()
        rated = request_id if request_id is not None else origin.request_id
        self.report(
            Feedback(
                "" if rated is None else plain_text(rated),
                bool(correct),
                revision=False,
                origin=origin,
                time_unix_ns=self._time(),
                attributes=self.fit(
                    {**self._of_the_request(rated, origin), **self.readable("record_feedback", attributes)}
                ),
            )
        )

    def _of_the_request(self, rated: object, origin: Origin) -> Attributes:
        """What the request's context says of it, such as its variant; nothing where another request is rated."""
        scope = current_scope.get()
        return NO_ATTRIBUTES if scope is None or rated != origin.request_id else scope.attributes

    def record_policy_violation(
        self,
        policy: str,
        *,
        reason: str | None = None,
        severity: Severity | str = Severity.MEDIUM,
        blocked: bool = False,
        tool: str | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """Record one violation that a check of the application's own found.

        Args:
            policy: its name; a metric label, so of a bounded set.
            reason: for the audit log.
            severity: low, medium, high or critical.
            blocked: whether the work was refused.
            tool: the tool whose call violated it.
            attributes: for the audit log.

        Raises:
            ValueError: the severity is unknown.
        """
        result = CheckResult.BLOCKED if blocked else CheckResult.WOULD_BLOCK
        self.record_decision(
            policy, Verdict.DENY, result=result, reason=reason, severity=severity, tool=tool, attributes=attributes
        )

    def record_guardrail_block(
        self,
        guardrail: str,
        *,
        stage: Stage | str = Stage.INPUT,
        reason: str | None = None,
        duration_seconds: float | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """Record that a guardrail of the application's own really blocked an input or an output.

        Raises:
            ValueError: the stage is unknown.
        """
        self.record_decision(
            guardrail,
            Verdict.DENY,
            kind=DecisionKind.GUARDRAIL,
            result=CheckResult.BLOCKED,
            stage=stage,
            reason=reason,
            duration_seconds=duration_seconds,
            attributes=attributes,
        )

    def record_decision(  # noqa: PLR0913  what an auditor asks about a decision
        self,
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
        """Record the decision of a policy or guardrail that lives elsewhere.

        Args:
            name: of the policy or guardrail.
            verdict: allow, deny or require_approval.
            kind: policy, guardrail or budget.
            result: what came of it; by default `passed` for allow and `would_block` otherwise.
            stage: input or output.
            reason: for the audit log.
            severity: of a violation.
            tool: the tool whose call was decided about.
            duration_seconds: how long the check took.
            attributes: for the audit log.

        Raises:
            ValueError: a word that is none of the allowed ones.
        """
        ruling = Verdict(verdict)
        if reason is not None:
            reason = plain_text(reason) if self.redactor is None else self.redactor.text(plain_text(reason))
        outcome = CheckResult.PASSED if ruling is Verdict.ALLOW else CheckResult.WOULD_BLOCK
        self.report(
            Decision(
                DecisionKind(kind),
                plain_text(name),
                ruling,
                CheckResult(result) if result is not None else outcome,
                self.origin(),
                self._time(),
                reason,
                Severity(severity),
                Stage(stage) if stage is not None else None,
                None if tool is None else plain_text(tool),
                duration_seconds if isinstance(duration_seconds, int | float) else None,
                self.fit(self.readable("record_decision", attributes)),
            )
        )

    def record_audit_event(self, event: str, **attributes: AttributeValue) -> None:
        """Write an event of the application's (task created, approved, …) to the audit log, with the request ID."""
        self.report(AuditEvent(plain_text(event), self.origin(), self._time(), self.fit(attributes)))

    def record_cache_size(self, cache: str, entries: int) -> None:
        """Set how many entries a cache of the application's holds; what is no number is counted only."""
        with guarded("record_cache_size", self.counters):
            self.report(CacheSize(plain_text(cache), max(0, int(entries)), self._time()))

    def readable(self, where: str, attributes: Mapping[str, object] | None) -> Mapping[str, object]:
        """The attributes that `where` was given; what is no mapping, or cannot be read, is dropped and counted."""
        if attributes is None or type(attributes) is dict:
            return attributes or NO_ATTRIBUTES
        with guarded(where, self.counters):
            if not hasattr(attributes, "items"):
                kind = type(attributes).__name__
                raise ConfigurationError(f'attributes: given {kind}; give a mapping, as {{"step_id": "plan"}}')
            return dict(attributes.items())
        return NO_ATTRIBUTES

    def report(self, record: Record) -> None:
        """Hand over a finished point event, as one of the current invocation's."""
        if self.enabled:
            self.pipeline.put(_Report(record, context.current_invocation(), self.verdicts))

    def origin(self) -> Origin:
        """Where the present code stands: request, run, agent, trace."""
        running, scope = context.current_invocation(), current_scope.get()
        trace_id, span_id, sampled = running.span_ids if running is not None and running.span else current_ids()
        tenant, user, session = scope[1:4] if scope is not None else (None, None, None)
        if running is None:
            request_id = scope.request_id if scope is not None else None
            return Origin(request_id, None, None, None, None, trace_id, span_id, sampled, tenant, user, session)
        return Origin(
            scope.request_id if scope is not None else running.request_id,
            running.invocation_id,
            None,
            running.workflow,
            running.agent,
            trace_id,
            span_id,
            sampled,
            tenant,
            user,
            session,
        )

    def _time(self) -> int:
        return self.clock.unix_ns(self.now()) if self.enabled else time.time_ns()
