"""The recorder: begins invocations and takes point events. Everything else goes through it."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar
from weakref import WeakSet

from taskpilot_obs._recording import context
from taskpilot_obs._recording.callsite import Callsite, Declares, LlmCallsite
from taskpilot_obs._recording.finalized import FinalizedInvocation
from taskpilot_obs._recording.invocation import ActiveInvocation
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.point_events import Reporter
from taskpilot_obs._recording.spans import AdoptedSpan
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.providers.names import canonical, infer_provider
from taskpilot_obs.records import (
    LLM_OPERATIONS,
    Operation,
    Status,
    plain_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import SpanContext  # noqa: TID251  the type of an argument that is passed through
    from prometheus_client import CollectorRegistry  # noqa: TID251  the type of an argument that is passed through

    from taskpilot_obs._pipeline.pipeline import Pipeline
    from taskpilot_obs._recording.callsite import LlmListener
    from taskpilot_obs._recording.context import Scope
    from taskpilot_obs._recording.spans import Tracing
    from taskpilot_obs._recording.verdicts import Verdicts
    from taskpilot_obs._support.clock import Clock
    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.budgets.admission import AdmissionController
    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.exporters.window import RollingWindow
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.safety.checks import Checks
    from taskpilot_obs.safety.redaction import Redactor
    from taskpilot_obs.settings import Settings

_MAX_SITES = 4_000
_MAX_LISTENERS = 16
_MAX_SECONDS = 10**9

CURRENT: Final = "current"
"""As a parent: the invocation that runs in the present context."""
R = TypeVar("R", bound=ActiveInvocation)
Parent = ActiveInvocation | Literal["current"] | None


class Components(NamedTuple):
    """What a recorder is made of; `config.build` makes it from settings."""

    settings: Settings
    pipeline: Pipeline
    counters: InternalCounters
    clock: Clock
    prices: PriceTable
    window: RollingWindow
    verdicts: Verdicts
    registry: CollectorRegistry | None
    declares: Declares | None
    redactor: Redactor | None
    tracing: Tracing | None
    checks: Checks | None = None
    budgets: AdmissionController | None = None


class Recorder(Reporter):
    """Records invocations and events into one pipeline.

    Make one with `taskpilot_obs.config.build_recorder`, or use the default one that decorators share (`get_recorder`).
    """

    def __init__(self) -> None:
        self.enabled = False
        self.parts: Components | None = None
        self._lock = threading.Lock()
        self._declared: dict[tuple[Operation, str], None] = {}
        self._callsites: dict[tuple[Operation, str], Callsite] = {}
        self._llm_callsites: dict[tuple[str, str | None, str | None], LlmCallsite] = {}
        self._expected: dict[object, Checks] = {}
        self.limiting: WeakSet[Checks] = WeakSet()
        """The limits of tokens of decorated functions: they need the LLM calls beneath."""
        self.own_budgets: tuple[Budget, ...] = ()
        """Those that were attached to decorated functions."""
        self.redactor = None
        self.trace_with(None)

    def install(self, parts: Components) -> None:
        """Use these parts from now on; what the parts before them have queued is written by their exporters."""
        before = self.swap(parts)
        if before is not None and before.pipeline is not parts.pipeline:
            before.pipeline.hand_over(parts.pipeline)

    def swap(self, parts: Components) -> Components | None:
        """Use these parts from now on; returns the parts before them, which stay alive."""
        with self._lock:
            before = self.parts
            self.parts = parts
            self.clock, self.counters, self.prices = parts.clock, parts.counters, parts.prices
            self.guard_span = guarded("span", parts.counters)
            self.redactor, self.verdicts = parts.redactor, parts.verdicts
            self.trace_with(parts.tracing)
            self.now, self.pipeline = parts.clock.now, parts.pipeline
            self.recording, self.enforcing = parts.settings.enabled, parts.settings.enforcement
            self.enabled = self.recording
            self.checks = parts.checks
            for operation, name in self._declared:
                self._tell(operation, name)
            self.expect()
        return before

    def trace_with(self, tracing: Tracing | None) -> None:
        """Open spans there from now on; None opens none."""
        self.tracing = tracing
        self.thorough = tracing is not None or self.redactor is not None

    # --- invocations -------------------------------------------------------------------------------------------------

    def declare(self, operation: Operation, name: str) -> None:
        """Expect runs of this name: its series exist at 0 before the first, which makes the first one visible."""
        self._declared[operation, name] = None
        self._tell(operation, name)

    def _tell(self, operation: Operation, name: str) -> None:
        parts = self.parts
        if parts is not None and parts.declares is not None and parts.settings.enabled:
            with guarded("declare", parts.counters):
                parts.declares.declare(operation, name)

    def expect(self, *checks: Checks) -> None:
        """Expect decisions of these checks, besides those of the configuration."""
        self._expected.update((each.key, each) for each in checks)
        self.limiting.update(each for each in checks if each.count_tokens and each.refuse)
        self.gated = False
        budgets = self.parts is not None and self.parts.budgets is not None
        if self._expected or self.checks is not None or budgets or self.limits is not None:
            from taskpilot_obs._enforcement.enforcer import configure_limits

            configure_limits(self, tuple(self._expected.values()))
        self.enabled = self.recording or (self.enforcing and self._may_refuse())

    def _may_refuse(self) -> bool:
        """Whether anything that concerns every run is in enforce mode; functions know of their own checks.

        Turning the recording off must not let pass what was refused.
        """
        budgets = None if self.parts is None else self.parts.budgets
        general = self.checks is not None and self.checks.refuse
        return general or bool(self.limiting) or (budgets is not None and bool(budgets.enforced))

    def watch(self, budget: Budget) -> None:
        """Watch a budget besides those of the configuration, now and after every `configure()`.

        Raises:
            ConfigurationError: another budget has its name.
        """
        from taskpilot_obs.budgets.assembly import attached

        with self._lock:
            if self.parts is not None:
                self.parts = self.parts._replace(budgets=attached(self, self.parts, budget))
            if budget not in self.own_budgets:
                self.own_budgets = (*self.own_budgets, budget)
            self.expect()

    def callsite(self, operation: Operation, name: str, attributes: Mapping[str, object] | None = None) -> Callsite:
        """The place `name`; shared when it has no attributes of its own."""
        attributes = self.readable("start", attributes)
        if attributes:
            return Callsite(self, operation, name, attributes)
        found = self._callsites.get((operation, name))
        if found is None:
            if len(self._callsites) >= _MAX_SITES:
                self._callsites.clear()
            found = self._callsites[operation, name] = Callsite(self, operation, name, {})
        return found

    def llm_callsite(
        self,
        *,
        model: str | None,
        provider: str | None = None,
        operation: Operation | str = Operation.CHAT,
        attributes: Mapping[str, object] | None = None,
    ) -> LlmCallsite:
        """The place where `model` is called; shared when it has no attributes of its own.

        Raises:
            ValueError: the operation is no LLM call.
        """
        if not (model is None or type(model) is str):
            model = plain_text(model)
        if not (provider is None or type(provider) is str):
            provider = plain_text(provider)
        key = (operation, model, provider)
        attributes = self.readable("start_llm", attributes)
        found = None if attributes else self._llm_callsites.get(key)
        if found is not None:
            return found
        kind = _llm_operation(operation)
        served_by = canonical(provider) if provider is not None else infer_provider(model)
        callsite = LlmCallsite(self, kind, model, served_by, attributes)
        if not attributes:
            if len(self._llm_callsites) >= _MAX_SITES:
                self._llm_callsites.clear()
            self._llm_callsites[key] = callsite
        return callsite

    def start(
        self,
        operation: Operation | str,
        name: str,
        *,
        parent: Parent = CURRENT,
        attributes: Mapping[str, object] | None = None,
    ) -> ActiveInvocation:
        """Begin an operation that is no LLM call; end it with `stop()` or `fail(error)`.

        It does not become the current invocation: `attach()` and `detach()` do that, step by step.

        Args:
            operation: `invoke_workflow`, `invoke_agent` or `execute_tool`.
            name: of the workflow, agent or tool.
            parent: the invocation that it belongs to; None for a root.
            attributes: for span and audit log.

        Raises:
            ValueError: the operation is unknown, or an LLM call (use `start_llm`).
        """
        kind = _inner_operation(operation)
        return FinalizedInvocation().at(self.callsite(kind, name, attributes), resolve(parent)).begin()

    def start_llm(
        self,
        *,
        model: str | None,
        provider: str | None = None,
        operation: Operation | str = Operation.CHAT,
        parent: Parent = CURRENT,
        attributes: Mapping[str, object] | None = None,
    ) -> LlmInvocation:
        """Begin an LLM call (`chat` or `embeddings`); end it with `stop()` or `fail(error)`.

        Args:
            model: the model asked for.
            provider: who serves it; inferred from the model when left out.
            operation: `chat` or `embeddings`.
            parent: the invocation that it belongs to; None for a root.
            attributes: for span and audit log.

        Raises:
            ValueError: the operation is no LLM call.
        """
        return self.new_llm(
            model=model, provider=provider, operation=operation, parent=parent, attributes=attributes
        ).begin()

    def new_llm(
        self,
        *,
        model: str | None,
        provider: str | None = None,
        operation: Operation | str = Operation.CHAT,
        parent: Parent = CURRENT,
        attributes: Mapping[str, object] | None = None,
    ) -> LlmInvocation:
        """An LLM call, not yet begun."""
        callsite = self.llm_callsite(model=model, provider=provider, operation=operation, attributes=attributes)
        return LlmInvocation().at(callsite, resolve(parent))

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
        """Record an operation that a framework began, perhaps some time ago, and that has a span of the framework's.

        No span is opened. End it with `stop`, `fail` or `end_as`, each of which takes the time of the end.

        Args:
            operation: `invoke_workflow`, `invoke_agent` or `execute_tool`.
            name: of the workflow, agent or tool.
            parent: the run that it belongs to; None for a root.
            start_unix_ns: when it began, in nanoseconds since the Unix epoch; now when left out.
            span_context: the OpenTelemetry span that stands for it already; records carry its identifiers.
            scope: the request that it works for (`current_scope.get()` at its start); the current one when left out.
            attributes: for the audit log.

        Raises:
            ValueError: the operation is unknown, or an LLM call (use `adopt_llm`).
        """
        run = FinalizedInvocation().at(self.callsite(_inner_operation(operation), name, attributes), resolve(parent))
        return _adopted(run, start_unix_ns, span_context, scope)

    def adopt_llm(
        self,
        *,
        model: str | None,
        provider: str | None = None,
        operation: Operation | str = Operation.CHAT,
        parent: Parent = CURRENT,
        start_unix_ns: int | None = None,
        span_context: SpanContext | None = None,
        scope: Scope | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> LlmInvocation:
        """Record an LLM call that a framework began; listeners (`add_llm_listener`) do not learn of it.

        Args:
            model: the model asked for; `record_request` adds it where it is learnt later.
            provider: who serves it; inferred from the model when left out.
            operation: `chat` or `embeddings`.
            parent: as for `adopt`.
            start_unix_ns: as for `adopt`.
            span_context: as for `adopt`.
            scope: as for `adopt`.
            attributes: for the audit log.

        Raises:
            ValueError: the operation is no LLM call.
        """
        call = self.new_llm(model=model, provider=provider, operation=operation, parent=parent, attributes=attributes)
        return _adopted(call, start_unix_ns, span_context, scope)

    def add_llm_listener(self, listener: LlmListener) -> None:
        """Tell an object when LLM calls of this recorder begin and end; costs nothing while there is none.

        Raises:
            ConfigurationError: there are 16 already, so something adds them again and again.
        """
        with self._lock:
            if listener in self.llm_listeners:
                return
            if len(self.llm_listeners) >= _MAX_LISTENERS:
                raise ConfigurationError(
                    f"there are {_MAX_LISTENERS} LLM listeners already: remove those that are done"
                )
            self.llm_listeners = (*self.llm_listeners, listener)

    def remove_llm_listener(self, listener: LlmListener) -> None:
        """Tell it no more; it still learns the end of calls that it saw begin."""
        with self._lock:
            self.llm_listeners = tuple(each for each in self.llm_listeners if each is not listener)

    def record_llm_call(  # noqa: PLR0913  one argument for each thing that can be known after the fact
        self,
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
        """Record an LLM call that is over already; it has no span.

        Args:
            model: the model asked for.
            provider: who served it; inferred from the model when left out.
            status: how it ended.
            duration_seconds: how long it took.
            usage: a `Usage`, its fields as a mapping, or the provider's own usage object or dict.
            cached: whether the application's own cache answered; None where it has none.
            cost: in USD, where it is known better than by the price table.
            response_model: the model that answered.
            operation: `chat` or `embeddings`.
            service_tier: `flex`, `priority`, `batch`, … as the provider charged it.
            attributes: for the audit log.

        Raises:
            ValueError: status or operation is unknown.
        """
        outcome, kind = Status(status), _llm_operation(operation)
        if not self.enabled:
            return
        with guarded("record_llm_call", self.counters):
            known = self.readable("record_llm_call", attributes)
            call = self.new_llm(model=model, provider=provider, operation=kind, attributes=known)
            call.started_ns = self.now()
            with guarded("record_llm_call", self.counters):
                call.started_ns -= _nanoseconds(duration_seconds)
            if usage is not None:
                call.record_usage(usage)
            if cost is not None:
                call.set_cost(cost)
            if cached is not None:
                call.set_cached(cached)
            call.record_answer(model=response_model, service_tier=service_tier)
            call.end_after_the_fact(outcome)

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def window(self) -> RollingWindow:
        """The rolling window behind golden signals with a window."""
        return self._parts().window

    @property
    def registry(self) -> CollectorRegistry | None:
        """The Prometheus registry that the metrics live in; None is prometheus_client's own."""
        return self._parts().registry

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self._parts().settings

    def _parts(self) -> Components:
        if self.parts is None:
            raise RuntimeError("this recorder has no parts yet: call taskpilot_obs.configure() or get_recorder()")
        return self.parts

    def drain(self) -> None:
        """Bring metrics and window up to date with everything recorded so far."""
        self._parts().pipeline.drain()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything recorded so far is written by every exporter; False if `timeout` seconds pass first."""
        return self._parts().pipeline.flush(timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Write what can be written within `timeout` seconds (5 by default) and stop; recording ends here."""
        return self._parts().pipeline.shutdown(timeout)


def _inner_operation(operation: Operation | str) -> Operation:
    kind = Operation(operation)
    if kind in LLM_OPERATIONS:
        raise ValueError(f"{kind.value!r} is an LLM call: begin it with start_llm(provider=…, model=…)")
    return kind


def _adopted(run: R, start_unix_ns: int | None, span_context: SpanContext | None, scope: Scope | None) -> R:
    if scope is not None:
        run.scope = scope
    return run.adopt(start_unix_ns, None if span_context is None else AdoptedSpan(span_context))


def _llm_operation(operation: Operation | str) -> Operation:
    kind = Operation(operation)
    if kind not in LLM_OPERATIONS:
        raise ValueError(f"{kind.value!r} is no LLM call: begin it with start(operation, name)")
    return kind


def _nanoseconds(seconds: float) -> int:
    """A duration that may be none (NaN, infinite, negative: then 0); raises for what is no number."""
    return int(seconds * 1e9) if 0 < seconds < _MAX_SECONDS else 0


def resolve(parent: Parent) -> ActiveInvocation | None:
    """The parent that is meant."""
    return context.current_invocation() if isinstance(parent, str) else parent
