"""An operation that runs: what is noted on the caller's thread, and how the drainer freezes it.

The caller pays for two clock readings, one context variable and two appends of this object. Everything else (identifiers
as text, prices, roll-ups, the frozen records) is worked out by the drainer from what was noted here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

from taskpilot_obs import ids, tracing
from taskpilot_obs.context import current_running, current_scope
from taskpilot_obs.guarded import guarded
from taskpilot_obs.outcomes import classify
from taskpilot_obs.records import (
    BAD,
    NO_ATTRIBUTES,
    Attributes,
    AttributeValue,
    Invocation,
    Operation,
    Started,
    Status,
    clean_attributes,
)
from taskpilot_obs.rollups import Totals
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextvars import Token

    from taskpilot_obs.clock import Clock
    from taskpilot_obs.context import Running, Scope
    from taskpilot_obs.pricing import PriceTable
    from taskpilot_obs.records import Record
    from taskpilot_obs.safety.redaction import Redactor
    from taskpilot_obs.self_telemetry import Tally
    from taskpilot_obs.tracing import SpanIds, Tracing

    Step = tuple[Token[Running | None], Token[Any] | None]

_UNSEEN, _BEGUN, _DONE = range(3)


class Host:
    """What an invocation needs of its recorder; the recorder is the only subclass."""

    enabled: bool
    clock: Clock
    tally: Tally
    tracing: Tracing | None
    redactor: Redactor | None
    prices: PriceTable

    def put(self, item: object) -> None:
        """Hand an object to the pipeline."""
        raise NotImplementedError

    def now(self) -> int:
        """Monotonic nanoseconds."""
        raise NotImplementedError


class Site:
    """A place that is instrumented: what all invocations begun there share, worked out once."""

    __slots__ = ("attributes", "host", "is_agent", "is_workflow", "name", "operation", "span_attributes")

    def __init__(self, host: Host, operation: Operation, name: str, attributes: Mapping[str, object]) -> None:
        self.host = host
        self.operation = operation
        self.name = name
        self.is_workflow = operation is Operation.WORKFLOW
        self.is_agent = operation is Operation.AGENT
        self.attributes = clean_attributes(attributes)
        self.span_attributes: dict[str, AttributeValue] = {Attr.OPERATION: operation.value}
        key = _NAME_ATTRIBUTES.get(operation)
        if key is not None:
            self.span_attributes[key] = name
        self.span_attributes.update({Attr.USER_PREFIX + key: value for key, value in self.attributes.items()})


_NAME_ATTRIBUTES = {
    Operation.WORKFLOW: Attr.WORKFLOW_NAME,
    Operation.AGENT: Attr.AGENT_NAME,
    Operation.TOOL: Attr.TOOL_NAME,
}


class ActiveInvocation:
    """One operation that runs. Made by a `Recorder`; ended once by `stop` or `fail`, and harmlessly again.

    Left without an end it is closed as `abandoned` when the last reference goes.
    """

    __slots__ = (
        "__weakref__",
        "_below",
        "_into",
        "_stage",
        "_start_lost",
        "_started",
        "_step",
        "agent",
        "attributes",
        "ended_ns",
        "error_message",
        "error_type",
        "input_length",
        "input_text",
        "is_task",
        "number",
        "output_length",
        "output_text",
        "parent_number",
        "request_number",
        "scope",
        "site",
        "span",
        "started_ns",
        "status",
        "totals",
        "workflow",
    )

    def __init__(self, site: Site, parent: ActiveInvocation | None) -> None:
        self.ended_ns = 0
        self.site = site
        self.number = number = ids.next_number()
        self.scope = scope = current_scope.get()
        if parent is None:
            self.parent_number = -1
            self.request_number = number
            self._into = None
            self.is_task = site.is_workflow or site.is_agent
            self.workflow = site.name if self.is_task else None
            self.agent = site.name if site.is_agent else None
        else:
            self._descend(site, parent, scope)
        self.status = Status.SUCCESS
        self.attributes: Attributes = NO_ATTRIBUTES
        self.span: tracing.Span | None = None
        self._step: Step | None = None
        self._stage = _UNSEEN
        self._start_lost = False
        self.totals: Totals | None = None
        self.error_type: str | None = None
        self.input_length: int | None = None
        self.output_length: int | None = None
        self.started_ns = 0

    def _descend(self, site: Site, parent: ActiveInvocation, scope: Scope | None) -> None:
        """Copy what is inherited. Of ancestors, only the nearest that still runs is referred to: no chain can grow."""
        self.parent_number = parent.number
        self.request_number = parent.request_number
        if scope is None:
            self.scope = parent.scope
        workflow, agent = parent.workflow, parent.agent
        self.is_task = site.is_workflow or (site.is_agent and workflow is None and agent is None)
        self.workflow = site.name if self.is_task else workflow
        self.agent = site.name if site.is_agent else agent
        into: ActiveInvocation | None = parent
        while into is not None and into.ended_ns:
            into = into._into
        self._into = into

    # --- begin and end -----------------------------------------------------------------------------------------------

    def begin(self) -> Self:
        """Start the clock, open the span and announce the start. Called once, by whoever made it."""
        host = self.site.host
        if host.tracing is not None:
            with guarded("span.start", host.tally):
                self._open_span(host.tracing)
        self.started_ns = host.now()
        host.put(self)
        return self

    def attach(self) -> Step:
        """Make this the current invocation (and its span the current span) until `detach`."""
        span = self.span
        return current_running.set(self), None if span is None else tracing.attach(span)

    def detach(self, step: Step) -> None:
        """Undo `attach`. In a foreign context (a framework that ends elsewhere what it began) nothing happens."""
        running, span = step
        try:
            current_running.reset(running)
        except ValueError:
            return
        if span is not None:
            tracing.detach(span)

    def enter(self) -> Self:
        """Begin, attached until the end."""
        self.begin()
        self._step = self.attach()
        return self

    def stop(self) -> None:
        """End as `success`."""
        self.end(Status.SUCCESS)

    def fail(self, error: BaseException) -> None:
        """End with the status that the exception stands for (`error`, `timeout`, `blocked`, `cancelled`, …)."""
        if self.ended_ns:
            return
        host = self.site.host
        status = Status.ERROR
        with guarded("classify", host.tally):
            status, error_type = classify(type(error))
            if status in BAD:
                self.error_type = error_type
                self._note_error(error)
                if host.redactor is not None:
                    self.error_message = host.redactor.value(error)
        self.end(status)

    def _note_error(self, error: BaseException) -> None:
        """What a kind of operation wants to know of the exception besides its class."""

    def end(self, status: Status) -> None:
        """End with a given status; for frameworks whose ends are no exceptions."""
        if self.ended_ns:
            return
        host = self.site.host
        self.ended_ns = host.now()
        self.status = status
        step = self._step
        if step is not None:
            self._step = None
            self.detach(step)
        if self.span is not None:
            with guarded("span.end", host.tally):
                self._close_span(self.span)
        host.put(self)

    def end_after_the_fact(self, status: Status) -> None:
        """End what was never announced: the drainer makes both records of it. Has no span."""
        self._start_lost = True
        self.end(status)

    def __del__(self) -> None:
        if self.ended_ns or not getattr(self, "started_ns", 0) or sys.is_finalizing():
            return
        self._step = None  # a finalizer runs in whatever context there is
        self.end(Status.ABANDONED)

    # --- what a caller may add while it runs -------------------------------------------------------------------------

    @property
    def operation(self) -> Operation:
        """What is done."""
        return self.site.operation

    @property
    def name(self) -> str:
        """Name of the agent, workflow, tool or model."""
        return self.site.name

    @property
    def invocation_id(self) -> str:
        """The identifier that this run's records share."""
        return ids.text_of(self.number)

    @property
    def request_id(self) -> str:
        """The request that it works for; a root run without a request context gets one of its own."""
        return ids.text_of(self.request_number) if self.scope is None else self.scope.request_id

    @property
    def span_ids(self) -> SpanIds:
        """Trace and span ID, empty without a tracer provider."""
        return tracing.NO_SPAN if self.span is None else tracing.ids_of(self.span)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.ended_ns != 0

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add an attribute for the span and the audit log; never a metric label."""
        if self.ended_ns:
            return
        self.attributes = clean_attributes({**self.attributes, key: value})
        if self.span is not None:
            with guarded("span.attribute", self.site.host.tally):
                self.span.set_attribute(Attr.USER_PREFIX + key, self.attributes[key])

    def set_input(self, value: object) -> None:
        """Note what went in: its length, and the redacted text when content capture is on."""
        if type(value) is str:
            self.input_length = len(value)
        redactor = self.site.host.redactor
        if redactor is not None:
            with guarded("capture", self.site.host.tally):
                self.input_text = redactor.value(value)
                self._set_on_span(Attr.INPUT_TEXT, self.input_text)

    def set_output(self, value: object) -> None:
        """Note what came out: its length, and the redacted text when content capture is on."""
        if type(value) is str:
            self.output_length = len(value)
        redactor = self.site.host.redactor
        if redactor is not None:
            with guarded("capture", self.site.host.tally):
                self.output_text = redactor.value(value)
                self._set_on_span(Attr.OUTPUT_TEXT, self.output_text)

    # --- what decorators and drivers call ----------------------------------------------------------------------------

    def set_arguments(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Note what a function was called with: the length of all its text, and the redacted arguments when captured."""
        length = -1
        for value in args:
            if type(value) is str:
                length += len(value) + (length < 0)
        for value in kwargs.values():
            if type(value) is str:
                length += len(value) + (length < 0)
        if length >= 0:
            self.input_length = length
        redactor = self.site.host.redactor
        if redactor is not None:
            with guarded("capture", self.site.host.tally):
                self.input_text = redactor.value({"args": args, "kwargs": kwargs} if kwargs else args)

    def finish(self, result: object) -> None:
        """End as `success` with this result."""
        if type(result) is str:
            self.output_length = len(result)
        if self.site.host.redactor is not None:
            self.set_output(result)
        self.stop()

    def note_item(self, item: object) -> None:
        """Note one item of a stream."""
        if type(item) is str:
            self.output_length = (self.output_length or 0) + len(item)
            if self.site.host.redactor is not None:
                self._note_text(item)

    def _note_text(self, item: str) -> None:
        """Keep what a stream says, a little beyond what will be shown, for the redactor to see whole."""
        kept: str = getattr(self, "output_text", "")
        if len(kept) < 2 * self.site.host.redactor.max_length:  # type: ignore[union-attr]  asked just before
            self.output_text = kept + item

    def finish_stream(self, result: object) -> None:
        """End as `success` what was streamed."""
        self._redact_stream()
        if type(result) is str and self.output_length is None:
            self.output_length = len(result)
        self.stop()

    def fail_stream(self, error: BaseException) -> None:
        """End a stream with the exception that ended it."""
        self._redact_stream()
        self.fail(error)

    def _redact_stream(self) -> None:
        text = getattr(self, "output_text", None)
        if text is not None:
            del self.output_text
            length = self.output_length
            self.set_output(text)
            self.output_length = length

    def pause(self) -> None:
        """Detach while something else runs; `resume` attaches again."""
        step, self._step = self._step, None
        if step is not None:
            self.detach(step)

    def resume(self) -> None:
        """Attach again until the end."""
        self._step = self.attach()

    # --- the span ----------------------------------------------------------------------------------------------------

    def _open_span(self, tracer: Tracing) -> None:
        attributes = {**self.site.span_attributes, Attr.REQUEST_ID: self.request_id}
        scope = self.scope
        if scope is not None:
            _add_scope(attributes, scope)
        parent = self._into.span if self._into is not None else None
        self.span = tracer.start(self.site.operation, self.site.name, attributes, parent)
        self._below = [] if self.span.is_recording() else None

    def _close_span(self, span: tracing.Span) -> None:
        if self._below is not None:
            self._write_outcome(span)
            self._add_below_parent()
        span.end()

    def _write_outcome(self, span: tracing.Span) -> None:
        if self.status is not Status.SUCCESS:
            span.set_attribute(Attr.STATUS, self.status.value)
        if self.error_type is not None:
            span.set_attribute(Attr.ERROR_TYPE, self.error_type)
            tracing.set_failed(span, self.error_type, getattr(self, "error_message", None))
        if self._below and self.site.operation is not Operation.TOOL:
            span.set_attributes(self._sum_below().as_attributes())

    def _sum_below(self) -> Totals:
        totals = Totals()
        for contribution in self._below or ():
            totals.add(contribution)
        return totals

    def _add_below_parent(self) -> None:
        """Tell the nearest running ancestor what this run took; a list, because appending needs no lock."""
        into = self._into
        while into is not None and into.ended_ns:
            into = into._into
        if into is None or getattr(into, "_below", None) is None:
            return
        totals = self._sum_below()
        self._add_own(totals)
        if totals:
            into._below.append(totals)

    def _add_own(self, totals: Totals) -> None:
        """Add what this run itself is: one tool call, or one LLM call."""
        if self.site.operation is Operation.TOOL:
            totals.tool_calls += 1

    def _set_on_span(self, key: str, value: AttributeValue) -> None:
        if self.span is not None:
            self.span.set_attribute(key, value)

    # --- the drainer's side ------------------------------------------------------------------------------------------

    def droppable(self) -> bool:
        """A start may be dropped (its end then brings both records); an end only if its start was."""
        if not self.ended_ns:
            self._start_lost = True
        return self._start_lost

    def freeze(self) -> Sequence[Record]:
        """The records that this object stands for: `Started` when first seen, `Invocation` when seen again."""
        if self._stage == _UNSEEN:
            self._stage = _BEGUN
            self._started = self._freeze_start()
            if not self._start_lost:
                return (self._started,)
            return (self._started, self._freeze_end())
        if self._stage == _BEGUN:
            return (self._freeze_end(),)
        return ()

    def _freeze_start(self) -> Started:
        site, scope = self.site, self.scope
        trace_id, span_id, sampled = self.span_ids
        attributes = site.attributes
        if scope is not None and scope.attributes:
            attributes = clean_attributes({**scope.attributes, **attributes})
        return Started(
            site.operation,
            site.name,
            self.request_id,
            ids.text_of(self.number),
            ids.text_of(self.parent_number) if self.parent_number >= 0 else None,
            self.workflow,
            self.agent,
            site.host.clock.unix_ns(self.started_ns),
            None,
            None,
            self.input_length,
            getattr(self, "input_text", None),
            trace_id,
            span_id,
            sampled,
            *(scope[1:4] if scope is not None else (None, None, None)),
            attributes,
            self.is_task,
        )

    def _freeze_end(self) -> Invocation:
        self._stage = _DONE
        self._fold()
        begun = self._started
        attributes = begun.attributes
        if self.attributes:
            attributes = clean_attributes({**attributes, **self.attributes})
        return Invocation(
            operation=begun.operation,
            name=begun.name,
            status=self.status,
            request_id=begun.request_id,
            invocation_id=begun.invocation_id,
            parent_id=begun.parent_id,
            workflow=begun.workflow,
            agent=begun.agent,
            start_unix_ns=begun.start_unix_ns,
            duration_s=max(0, self.ended_ns - self.started_ns) / 1e9,
            error_type=self.error_type,
            error_message=getattr(self, "error_message", None),
            input_length=self.input_length,
            output_length=self.output_length,
            input_text=getattr(self, "input_text", None),
            output_text=getattr(self, "output_text", None),
            trace_id=begun.trace_id,
            span_id=begun.span_id,
            sampled=begun.sampled,
            tenant=begun.tenant,
            user=begun.user,
            session=begun.session,
            attributes=attributes,
            rollup=None if self.totals is None else self.totals.frozen(),
            is_task=begun.is_task,
        )

    def _fold(self) -> None:
        """Add this run to the nearest ancestor that has not been frozen as ended."""
        into = self.running_ancestor()
        self._into = into
        if into is None or (self.totals is None and not self._counts_above()):
            return
        above = into.totals
        if above is None:
            above = into.totals = Totals()
        if self.totals is not None:
            above.add(self.totals)
        self._add_own(above)

    def _counts_above(self) -> bool:
        return self.site.operation is Operation.TOOL

    def running_ancestor(self) -> ActiveInvocation | None:
        """The nearest ancestor whose end the drainer has not seen; for the drainer."""
        into = self._into
        while into is not None and into._stage == _DONE:
            into = into._into
        return into

    def add_violation(self) -> None:
        """Note a policy violation for the roll-up; for the drainer."""
        run: ActiveInvocation | None = self if self._stage != _DONE else self.running_ancestor()
        if run is None:
            return
        if run.totals is None:
            run.totals = Totals()
        run.totals.violations += 1


def _add_scope(attributes: dict[str, AttributeValue], scope: Scope) -> None:
    for key, value in ((Attr.TENANT_ID, scope.tenant), (Attr.USER_ID, scope.user), (Attr.CONVERSATION_ID, scope.session)):
        if value is not None:
            attributes[key] = value
    for name, attribute in scope.attributes.items():
        attributes[Attr.USER_PREFIX + name] = attribute
