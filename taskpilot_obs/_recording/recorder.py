"""The recorder, which begins runs and takes point events."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Required, TypedDict, TypeVar, Unpack

from taskpilot_obs._recording.after_the_fact import (
    EndedOptions,
    RecordedCall,
    RecordedRun,
    StatedAnswer,
    StatedCall,
    StatedRun,
    book_call,
    book_run,
    facts_of,
)
from taskpilot_obs._recording.attributes import plain_text
from taskpilot_obs._recording.callsite import Callsites, inner_operation, llm_operation
from taskpilot_obs._recording.current_run import CURRENT, Parent, current_run, resolve_parent
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.point_events import PointEvent, origin_of, show_decision
from taskpilot_obs._recording.runtime import RecorderRuntime
from taskpilot_obs._recording.scope import current_scope, of_the_request
from taskpilot_obs._recording.spans import AdoptedSpan
from taskpilot_obs._recording.wiring import Wiring
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import (
    AuditEvent,
    CacheSize,
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Operation,
    Severity,
    Stage,
    Status,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from opentelemetry.trace import SpanContext  # noqa: TID251  the type of an argument that is passed through
    from prometheus_client import CollectorRegistry  # noqa: TID251  the type of an argument that is passed through

    from taskpilot_obs._pipeline.pipeline import Pipeline
    from taskpilot_obs._recording.callsite import Callsite, LlmCallsite
    from taskpilot_obs._recording.components import Components
    from taskpilot_obs._recording.llm_invocation import LlmListener
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.exporters.window import RollingWindow
    from taskpilot_obs.records import AttributeValue, Origin, Record, Scope
    from taskpilot_obs.settings import Settings

_MAX_LISTENERS = 16
_KINDS = {"workflow": Operation.WORKFLOW, "agent": Operation.AGENT, "tool": Operation.TOOL}

R = TypeVar("R", bound=ActiveInvocation)


class LlmOptions(TypedDict, total=False):
    """The arguments by which an LLM call begins."""

    model: Required[str | None]
    provider: str | None
    operation: Operation | str
    parent: Parent
    attributes: Mapping[str, object] | None


class DecisionOptions(TypedDict, total=False):
    """The details that any decision may have."""

    reason: str | None
    severity: Severity | str
    tool: str | None
    duration_seconds: float | None
    attributes: Mapping[str, object] | None


class Recorder:
    """Records runs and events into one pipeline.

    Make one with `taskpilot_obs.config.build_recorder`, or use the default one that decorators share (`get_recorder`).
    """

    def __init__(self) -> None:
        self.runtime = RecorderRuntime()
        """The state that its runs read."""
        self.wiring = Wiring(self.runtime, self.emit)
        """Its components, and the names and checks that callsites declared."""
        self._callsites = Callsites(self.runtime)
        self._lock = threading.Lock()

    # --- runs --------------------------------------------------------------------------------------------------------

    def callsite(
        self, operation: Operation | str, name: str, attributes: Mapping[str, object] | None = None
    ) -> Callsite:
        """Return the callsite of a name, shared unless it has attributes; arguments as for `start`."""
        return self._callsites.get(inner_operation(operation), name, attributes)

    def llm_callsite(
        self,
        *,
        model: str | None,
        provider: str | None = None,
        operation: Operation | str = Operation.CHAT,
        attributes: Mapping[str, object] | None = None,
    ) -> LlmCallsite:
        """Return the callsite of a model, shared unless it has attributes; arguments as for `start_llm`.

        Raises:
            ValueError: the operation is not an LLM call.
        """
        return self._callsites.get_llm(operation, model, provider, attributes)

    def start(
        self,
        operation: Operation | str,
        name: str,
        *,
        parent: Parent = CURRENT,
        attributes: Mapping[str, object] | None = None,
    ) -> ActiveInvocation:
        """Begin an operation other than an LLM call; end it with `stop()` or `fail(error)`.

        It does not become the current invocation: `attach()` and `detach()` do that, step by step.

        Args:
            operation: `invoke_workflow`, `invoke_agent` or `execute_tool`.
            name: of the workflow, agent or tool.
            parent: the invocation that it belongs to; None for a root.
            attributes: for span and audit log.

        Returns:
            The running operation.

        Raises:
            ValueError: the operation is unknown, or an LLM call (use `start_llm`).
        """
        callsite = self._callsites.get(inner_operation(operation), name, attributes)
        return ActiveInvocation(callsite, resolve_parent(parent)).start()

    def start_llm(self, **call: Unpack[LlmOptions]) -> LlmInvocation:
        """Begin an LLM call (`chat` or `embeddings`); end it with `stop()` or `fail(error)`.

        Args:
            call: as for `new_llm`.

        Returns:
            The running call.

        Raises:
            ValueError: the operation is not an LLM call.
        """
        return self.new_llm(**call).start()

    def new_llm(
        self,
        *,
        model: str | None,
        provider: str | None = None,
        operation: Operation | str = Operation.CHAT,
        parent: Parent = CURRENT,
        attributes: Mapping[str, object] | None = None,
    ) -> LlmInvocation:
        """Make an LLM call that has not begun; `start_llm` begins it too.

        Args:
            model: the model asked for.
            provider: who serves it; inferred from the model when left out.
            operation: `chat` or `embeddings`.
            parent: the invocation that it belongs to; None for a root.
            attributes: for span and audit log.

        Returns:
            The call, for `start()`.

        Raises:
            ValueError: the operation is not an LLM call.
        """
        callsite = self._callsites.get_llm(operation, model, provider, attributes)
        return LlmInvocation(callsite, resolve_parent(parent))

    def adopt(
        self,
        operation: Operation | str,
        name: str,
        *,
        parent: Parent = CURRENT,
        start_unix_ns: int | None = None,
        span_context: SpanContext | None = None,
        scope: Scope | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> ActiveInvocation:
        """Record an operation that a framework began, perhaps some time ago, and for which it opened a span.

        No span is opened. End it with `stop`, `fail` or `end_as`, each of which takes the time of the end.

        Args:
            operation: `invoke_workflow`, `invoke_agent` or `execute_tool`.
            name: of the workflow, agent or tool.
            parent: the run that it belongs to; None for a root.
            start_unix_ns: when it began, in nanoseconds since the Unix epoch; now when left out.
            span_context: its existing OpenTelemetry span; records carry the span's identifiers.
            scope: the request that it works for (`current_scope.get()` at its start); the current one when left out.
            attributes: for the audit log.

        Returns:
            The running operation.

        Raises:
            ValueError: the operation is unknown, or an LLM call (use `adopt_llm`).
        """
        callsite = self._callsites.get(inner_operation(operation), name, attributes)
        run = ActiveInvocation(callsite, resolve_parent(parent))
        return _adopted(run, start_unix_ns, span_context, scope)

    def adopt_llm(
        self,
        *,
        start_unix_ns: int | None = None,
        span_context: SpanContext | None = None,
        scope: Scope | None = None,
        **call: Unpack[LlmOptions],
    ) -> LlmInvocation:
        """Record an LLM call that a framework began; listeners (`add_llm_listener`) are not notified.

        Args:
            start_unix_ns: as for `adopt`.
            span_context: as for `adopt`.
            scope: as for `adopt`.
            call: as for `new_llm`; `record_request` sets the model if it becomes known later.

        Returns:
            The running call.

        Raises:
            ValueError: the operation is not an LLM call.
        """
        return _adopted(self.new_llm(**call), start_unix_ns, span_context, scope)

    def add_llm_listener(self, listener: LlmListener) -> None:
        """Notify an object when LLM calls of this recorder begin and end; without listeners this costs nothing.

        Raises:
            ConfigurationError: there are already 16, so something probably adds them repeatedly.
        """
        with self._lock:
            if listener in self.runtime.llm_listeners:
                return
            if len(self.runtime.llm_listeners) >= _MAX_LISTENERS:
                raise ConfigurationError(
                    f"there are {_MAX_LISTENERS} LLM listeners already: remove those that are done"
                )
            self.runtime.llm_listeners = (*self.runtime.llm_listeners, listener)

    def remove_llm_listener(self, listener: LlmListener) -> None:
        """Remove a listener; it still gets the end of calls whose start it got."""
        with self._lock:
            self.runtime.llm_listeners = tuple(each for each in self.runtime.llm_listeners if each is not listener)

    def record_llm_call(  # noqa: PLR0913  one argument for each thing that can be known after the fact
        self,
        *,
        model: str | None,
        provider: str | None = None,
        status: Status | str | None = None,
        duration_seconds: float = 0.0,
        usage: object = None,
        cached: bool | None = None,
        cost: Decimal | float | str | None = None,
        response_model: str | None = None,
        operation: Operation | str = Operation.CHAT,
        service_tier: str | None = None,
        attributes: Mapping[str, object] | None = None,
        time_to_first_token: float | None = None,
        streaming: bool = False,
        retries: int = 0,
        response_id: str | None = None,
        finish_reasons: Sequence[str] = (),
        **known: Unpack[EndedOptions],
    ) -> RecordedCall:
        """Record an LLM call that has already ended; it gets no span, and needs no run around it.

        Args:
            model: the model asked for.
            provider: who served it; inferred from the model when left out.
            status: how it ended; left out, what the error stands for, and `success` without an error.
            duration_seconds: how long it took.
            usage: a `Usage`, its fields as a mapping, or the provider's own usage object or dict.
            cached: whether the application's own cache answered; None where it has none.
            cost: in USD, where it is known better than by the price table.
            response_model: the model that answered.
            operation: `chat` or `embeddings`.
            service_tier: `flex`, `priority`, `batch`, … as the provider charged it.
            attributes: for the audit log.
            time_to_first_token: in seconds, for a stream.
            streaming: whether the answer was a stream.
            retries: attempts beyond the first.
            response_id: the provider's identifier of the response.
            finish_reasons: why the model stopped, one for each choice.
            known: `agent`: the agent that asked, for labels and reports; no run of it is booked.
                `workflow`: the workflow that it belonged to, also for labels and reports.
                `request_id`, `tenant_id`, `user_id`, `session_id`: the request, the customer, the user and the
                conversation; those of the context when left out.
                `ended_at`: when it ended, as a `datetime` (without a zone: local time) or in seconds since the Unix
                epoch; now when left out.
                `error`: the exception that ended it: status, class and category follow from it.
                `error_type`: the qualified name of its class, where the exception is not at hand.
                `error_message`: its text; kept, redacted, only where content is captured.

        Returns:
            What was booked: usage, cost and where the cost comes from, request ID.

        Raises:
            ValueError: status or operation is unknown.
        """
        kind, runtime = llm_operation(operation), self.runtime
        facts = facts_of(status, duration_seconds, **known)
        answered = (response_model, response_id, finish_reasons, service_tier)
        answer = StatedAnswer(usage, cost, cached, time_to_first_token, retries, streaming, *answered)

        def make() -> StatedCall:
            given = runtime.checked_attributes("record_llm_call", attributes)
            return StatedCall(self._callsites.get_llm(kind, model, provider, given), current_run())

        return book_call(make, facts, answer, runtime)

    def record_run(
        self,
        kind: Operation | str,
        name: str,
        status: Status | str | None = None,
        duration_seconds: float = 0.0,
        *,
        attributes: Mapping[str, object] | None = None,
        **known: Unpack[EndedOptions],
    ) -> RecordedRun:
        """Record a workflow, an agent's run or a tool call that has already ended; it gets no span.

        Args:
            kind: `workflow`, `agent` or `tool`.
            name: of the workflow, agent or tool; a metric label, so of a bounded set.
            status: as for `record_llm_call`.
            duration_seconds: how long it took.
            attributes: for the audit log.
            known: as for `record_llm_call`; `agent` is the agent that a tool, or an agent beneath it, worked for.

        Returns:
            What was booked: request ID, invocation ID and status.

        Raises:
            ValueError: kind or status is unknown, or the kind is an LLM call (use `record_llm_call`).
        """
        operation = inner_operation(_KINDS.get(kind, kind))
        facts = facts_of(status, duration_seconds, **known)

        def make() -> StatedRun:
            return StatedRun(self._callsites.get(operation, plain_text(name), attributes), current_run())

        return book_run(make, facts, self.runtime)

    # --- point events ------------------------------------------------------------------------------------------------

    def record_feedback(
        self, request_id: str | None = None, *, correct: bool, attributes: Mapping[str, object] | None = None
    ) -> None:
        """Record a user's verdict on a request: was the answer right?

        Counted once per request ID (the last 50,000 rated of this process); the opposite verdict later is a revision.

        Args:
            request_id: the request; the current one when left out.
            correct: whether the user confirms it.
            attributes: for the audit log.
        """
        origin = self.origin()
        rated = request_id if request_id is not None else origin.request_id
        given = self.runtime.checked_attributes("record_feedback", attributes)
        with guarded("record_feedback", self.runtime.counters):  # what cannot be read is not recorded
            self.emit(
                Feedback(
                    "" if rated is None else plain_text(rated),
                    bool(correct),
                    revision=False,
                    origin=origin,
                    time_unix_ns=self._unix_ns(),
                    attributes=self.runtime.fit({**of_the_request(rated, origin), **given}),
                )
            )

    def record_policy_violation(
        self,
        policy: str,
        *,
        blocked: bool = False,
        **details: Unpack[DecisionOptions],
    ) -> None:
        """Record one violation found by a check of the application.

        Args:
            policy: its name; a metric label, so of a bounded set.
            blocked: whether the work was refused.
            details: `reason`, `severity`, `tool`, `duration_seconds` and `attributes`, as for `record_decision`.

        Raises:
            ValueError: the severity is unknown.
        """
        result = CheckResult.BLOCKED if blocked else CheckResult.WOULD_BLOCK
        self.record_decision(policy, Verdict.DENY, result=result, **details)

    def record_guardrail_block(
        self,
        guardrail: str,
        *,
        stage: Stage | str = Stage.INPUT,
        **details: Unpack[DecisionOptions],
    ) -> None:
        """Record that a guardrail of the application blocked an input or an output.

        Args:
            guardrail: its name; a metric label, so of a bounded set.
            stage: input or output.
            details: as for `record_policy_violation`.

        Raises:
            ValueError: the stage or the severity is unknown.
        """
        kind, result = DecisionKind.GUARDRAIL, CheckResult.BLOCKED
        self.record_decision(guardrail, Verdict.DENY, kind=kind, result=result, stage=stage, **details)

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
        """Record the decision of a policy or guardrail that is not attached to the library.

        Args:
            name: of the policy or guardrail.
            verdict: allow, deny or require_approval.
            kind: policy, guardrail or budget.
            result: the result; by default `passed` for allow and `would_block` otherwise.
            stage: input or output.
            reason: for the audit log.
            severity: of a violation: low, medium, high or critical.
            tool: the tool whose call was judged.
            duration_seconds: how long the check took.
            attributes: for the audit log.

        Raises:
            ValueError: verdict, kind, result, stage or severity is unknown.
        """
        ruling = Verdict(verdict)
        outcome = CheckResult.PASSED if ruling is Verdict.ALLOW else CheckResult.WOULD_BLOCK
        decision = Decision(
            DecisionKind(kind),
            plain_text(name),
            ruling,
            CheckResult(result) if result is not None else outcome,
            self.origin(),
            self._unix_ns(),
            None if reason is None else self._redacted(reason),
            Severity(severity),
            Stage(stage) if stage is not None else None,
            None if tool is None else plain_text(tool),
            duration_seconds if isinstance(duration_seconds, int | float) else None,
            self.runtime.fit(self.runtime.checked_attributes("record_decision", attributes)),
        )
        self.emit(decision)
        with guarded("span", self.counters):
            show_decision(decision)

    def _redacted(self, text: object) -> str:
        redactor = self.runtime.redactor
        return plain_text(text) if redactor is None else redactor.text(plain_text(text))

    def record_audit_event(self, event: str, **attributes: AttributeValue) -> None:
        """Write an application event (task created, approved, …) to the audit log, with the request ID.

        Args:
            event: what happened.
            attributes: further details, as scalars.
        """
        self.emit(AuditEvent(plain_text(event), self.origin(), self._unix_ns(), self.runtime.fit(attributes)))

    def record_cache_size(self, cache: str, entries: int) -> None:
        """Set how many entries a cache of the application holds.

        Args:
            cache: its name; a metric label, so of a bounded set.
            entries: how many. Anything but a number is counted as an internal error.
        """
        with guarded("record_cache_size", self.counters):
            self.emit(CacheSize(plain_text(cache), max(0, int(entries)), self._unix_ns()))

    def emit(self, record: Record) -> None:
        """Queue a point event; it belongs to the current run."""
        if self.runtime.enabled:
            parts = self._parts()
            parts.pipeline.put(PointEvent(record, current_run(), parts.verdicts))

    def origin(self) -> Origin:
        """The identifiers of the current request, run, agent and trace."""
        return origin_of(current_run(), current_scope.get())

    def _unix_ns(self) -> int:
        runtime = self.runtime
        return runtime.clock.unix_ns(runtime.now()) if runtime.enabled else time.time_ns()

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def window(self) -> RollingWindow:
        """The rolling window behind golden signals with a window."""
        return self._parts().window

    @property
    def registry(self) -> CollectorRegistry | None:
        """The Prometheus registry of the metrics; None is prometheus_client's own."""
        return self._parts().registry

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self._parts().settings

    def _parts(self) -> Components:
        if self.parts is None:
            raise RuntimeError("this recorder has no components yet: call taskpilot_obs.configure() or get_recorder()")
        return self.parts

    @property
    def parts(self) -> Components | None:
        """Its components; None before the first `configure`."""
        return self.wiring.components

    @property
    def enabled(self) -> bool:
        """Whether anything is recorded."""
        return self.runtime.enabled

    @property
    def counters(self) -> InternalCounters:
        """What the library counts about itself; for `guarded`."""
        return self.runtime.counters

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that takes the records."""
        return self._parts().pipeline

    def drain(self) -> None:
        """Bring metrics and window up to date with everything recorded so far."""
        self._parts().pipeline.drain()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything recorded so far is written by every exporter; False if `timeout` seconds pass first."""
        return self._parts().pipeline.flush(timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Stop recording, and write queued records for at most `timeout` seconds (default 5)."""
        return self._parts().pipeline.shutdown(timeout)


def _adopted(run: R, start_unix_ns: int | None, span_context: SpanContext | None, scope: Scope | None) -> R:
    if scope is not None:
        run.scope = scope
    return run.adopt(start_unix_ns, None if span_context is None else AdoptedSpan(span_context))
