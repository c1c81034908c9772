"""A run: what the caller's thread records of an operation, and how the drainer makes records of it.

The caller's thread does two clock readings, one context variable and two appends of this object. Everything else
(identifiers as text, prices, roll-ups, the frozen records) is computed by the drainer.
"""

from __future__ import annotations

import sys
from contextvars import Token
from typing import TYPE_CHECKING, Any, Final, Self

from taskpilot_obs._recording import spans
from taskpilot_obs._recording.attributes import clean_attributes
from taskpilot_obs._recording.content import output_messages, text_of
from taskpilot_obs._recording.details import Details, text_length
from taskpilot_obs._recording.rollups import Totals, sum_of
from taskpilot_obs._recording.scope import current_scope, restore
from taskpilot_obs._recording.snapshots import NO_LLM_CALL, end_of, start_of
from taskpilot_obs._recording.span_attributes import start_attributes, write_outcome
from taskpilot_obs._recording.statuses import outcome_of
from taskpilot_obs._support import ids
from taskpilot_obs._support.current import Current
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.records import BAD, NO_ATTRIBUTES, SUCCESS, AttributeValue, Operation, Status
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs._recording.callsite import Callsite
    from taskpilot_obs._recording.runtime import RecorderRuntime
    from taskpilot_obs._recording.spans import AdoptedSpan, LiveSpan, SpanIds
    from taskpilot_obs.records import Invocation, Record, Scope, Started

Step = tuple[Token["ActiveInvocation | None"], Token[Any] | None]
"""What `ActiveInvocation.attach` returns, for `detach`."""

LOST, UNSEEN, BEGUN, DONE = range(-1, 3)
"""What the drainer has seen of a run; `LOST`: its start was dropped, so its end produces both records."""

current: Current[ActiveInvocation] = Current("taskpilot_obs_invocation")
current_running = current.variable
# Bound once, because binding a method of an imported object in each call costs time.
_scope: Final = current_scope.get
_get_current, _make_current, _make_last_current = current_running.get, current_running.set, current_running.reset


class ActiveInvocation:
    """A running operation, made by a `Recorder` and ended by `stop` or `fail`; further calls of these do nothing.

    A run whose last reference goes before its end is recorded as `abandoned`.

    Args:
        callsite: the callsite where it begins.
        parent: the run around it. After the drainer has seen this run, only the nearest ancestor still running, so
            that tasks that spawn their successors do not keep a growing chain alive.
    """

    __slots__ = (
        "__weakref__",
        "_span_token",
        "_token",
        "begun",
        "callsite",
        "details",
        "ended_ns",
        "input_length",
        "number",
        "output_length",
        "parent",
        "scope",
        "span",
        "stage",
        "started_ns",
        "status",
        "totals",
    )

    # Set when first known, because each slot that the constructor fills costs time in each call.
    begun: Started
    details: Details | None
    input_length: int | None
    output_length: int | None
    parent: ActiveInvocation | None
    scope: Scope | None
    span: LiveSpan | None
    status: Status
    totals: Totals | None
    _token: Token[ActiveInvocation | None] | None
    _span_token: Token[Any] | None

    def __init__(self, callsite: Callsite, parent: ActiveInvocation | None) -> None:
        self.started_ns = self.ended_ns = self.stage = 0
        self.callsite = callsite
        self.parent = parent
        self.number = next(ids.numbers)
        scope = _scope()
        self.scope = parent.scope if scope is None and parent is not None else scope
        self.details = self.span = self.totals = self.input_length = self.output_length = self._token = None

    def __del__(self) -> None:
        if self.ended_ns or not self.started_ns or sys.is_finalizing():
            return
        self._token = None  # a finalizer runs in an arbitrary context
        if self.details is not None:
            self.details.bypass_released()
        self.end(Status.ABANDONED)

    # --- start and end -----------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the clock, open the span and announce the start. Called once, by the code that made the run."""
        runtime = self.callsite.runtime
        if not runtime.enabled:
            self.ended_ns = 1
            return self
        if runtime.needs_slow_path:
            runtime.guard_span.call(self._open, runtime)
        self.started_ns = runtime.now()
        try:
            runtime.pipeline.put(self)
        except BaseException as error:  # a Ctrl-C while the queue is full: end the run that has just begun
            self.fail(error)
            raise
        return self

    def start_current(self, args: tuple[object, ...] = (), kwargs: Mapping[str, object] = NO_ATTRIBUTES) -> Self:
        """Start, and remain the current run until the end. The recorder must be enabled.

        Args:
            args: the positional arguments of the function that runs.
            kwargs: its keyword arguments.
        """
        if args or kwargs:
            self.set_arguments(args, kwargs)
        runtime = self.callsite.runtime
        if runtime.needs_slow_path:
            runtime.guard_span.call(self._open, runtime)
        self._token = _make_current(self)  # two slots in place of a `Step`: a tuple would cost each call a tenth
        if self.span is not None:
            self._span_token = self.span.attach()
        now = runtime.now  # read first: calling an attribute that is not a method takes the slow path
        self.started_ns = now()
        try:
            runtime.pipeline.put(self)
        except BaseException as error:  # as in `start`
            self.fail(error)
            raise
        return self

    def adopt(self, started_unix_ns: int | None, span: AdoptedSpan | None) -> Self:
        """Announce a run that began elsewhere. Called once, instead of `start`.

        Args:
            started_unix_ns: when it began, in nanoseconds since the Unix epoch; now when None.
            span: its existing span.
        """
        runtime = self.callsite.runtime
        if not runtime.enabled:
            self.ended_ns = 1
            return self
        self.span = span
        self.started_ns = self._ticks(started_unix_ns) or runtime.now()
        runtime.pipeline.put(self)
        return self

    def end(self, status: Status, result: object = None, at_ns: int = 0) -> None:
        """End with a given status.

        Args:
            status: the status.
            result: the output.
            at_ns: the time of the end on the recorder's clock; by default now.
        """
        if self.ended_ns:
            return
        if result is not None:
            self.observe_output(result)
        runtime = self.callsite.runtime
        now = runtime.now  # as in `start_current`
        self.ended_ns = at_ns or now()
        self.status = status
        try:
            token = self._token
            if token is not None:  # written out: calling `detach` would cost each run a twentieth
                self._token = None
                try:
                    _make_last_current(token)
                except (ValueError, RuntimeError):  # another context, or already detached
                    pass
                else:
                    if self.span is not None and self._span_token is not None:
                        spans.detach(self._span_token)
            if self.span is not None:
                runtime.guard_span.call(self._close_span, self.span)
        finally:  # a Ctrl-C in a slow span processor must not lose the record
            runtime.pipeline.put(self)

    def stop(self, *, at_unix_ns: int | None = None) -> None:
        """End as `success`.

        Args:
            at_unix_ns: when it ended, in nanoseconds since the Unix epoch; now when left out.
        """
        self.end(SUCCESS, at_ns=self._ticks(at_unix_ns))

    def fail(self, error: BaseException, *, at_unix_ns: int | None = None) -> None:
        """End with the status of the exception's class (`error`, `timeout`, `blocked`, `cancelled`, …).

        Args:
            error: the exception that ended it.
            at_unix_ns: when it ended, in nanoseconds since the Unix epoch; now when left out.
        """
        if self.ended_ns:
            return
        runtime, expected = self.callsite.runtime, self.callsite.expected
        status = Status.ERROR
        try:
            with guarded("classify", runtime.counters):
                is_expected = expected is not None and expected(error)
                status, error_type = (SUCCESS, "") if is_expected else outcome_of(error)
                if status in BAD:
                    details = self._note()
                    details.error_type = error_type
                    self._note_error(error)
                    if runtime.redactor is not None:
                        details.error_message = runtime.redactor.value(error)
            if self.details is not None:
                self.details.check_released(self)
                self.details.tell_failure(self, error)
        finally:
            self.end(status, at_ns=self._ticks(at_unix_ns))

    def end_as(
        self,
        status: Status | str,
        *,
        error_type: str | None = None,
        error_message: str | None = None,
        at_unix_ns: int | None = None,
    ) -> None:
        """End as a framework reports, if the exception object is not available; otherwise use `fail`.

        Args:
            status: the status.
            error_type: the qualified name of the exception's class.
            error_message: its text; kept, redacted, only with content capture.
            at_unix_ns: when it ended, in nanoseconds since the Unix epoch; now when left out.

        Raises:
            ValueError: the status is unknown.
        """
        outcome = Status(status)
        if self.ended_ns:
            return
        if error_type is not None and outcome in BAD:
            with guarded("classify", self.callsite.runtime.counters):
                self._note_stated_error(error_type, error_message)
        try:
            if self.details is not None and outcome is not SUCCESS:
                self.details.check_released(self)
        finally:
            self.end(outcome, at_ns=self._ticks(at_unix_ns))

    def _note_stated_error(self, error_type: str, message: str | None) -> None:
        details, redactor = self._note(), self.callsite.runtime.redactor
        details.error_type = error_type
        if message is not None and redactor is not None:
            details.error_message = redactor.text(message)

    def _ticks(self, unix_ns: int | None) -> int:
        return 0 if unix_ns is None else self.callsite.runtime.clock.ticks(unix_ns)

    # --- the current context -----------------------------------------------------------------------------------------

    def attach(self) -> Step:
        """Make this the current run (and its span the current span) until `detach`."""
        span = self.span
        return _make_current(self), None if span is None else span.attach()

    def detach(self, step: Step | None = None) -> None:
        """Undo `attach`. Does nothing in another context (some frameworks end elsewhere what they began).

        Args:
            step: the result of `attach`; by default the step of `start_current` or `reattach`.
        """
        if step is None:
            if self._token is None:
                return
            step = self._token, None if self.span is None else self._span_token
            self._token = None
        running, span_token = step
        if restore(current_running, running) and span_token is not None:
            spans.detach(span_token)

    def reattach(self) -> None:
        """Make this the current run again, until its end."""
        if not self.ended_ns:
            self._token = _make_current(self)
            if self.span is not None:
                self._span_token = self.span.attach()

    # --- who it is ---------------------------------------------------------------------------------------------------

    @property
    def operation(self) -> Operation:
        """The kind of operation."""
        return self.callsite.operation

    @property
    def name(self) -> str:
        """Name of the agent, workflow, tool or model."""
        return self.callsite.name

    @property
    def invocation_id(self) -> str:
        """The identifier that this run's records share."""
        return self.begun.invocation_id if self.stage >= BEGUN else ids.text_of(self.number)

    @property
    def request_id(self) -> str:
        """The ID of its request; a root run outside of any request context gets a new one."""
        if self.scope is not None:
            return self.scope.request_id
        run = self
        while (parent := run.parent) is not None and run.stage < BEGUN:
            run = parent
        return run.begun.request_id if run.stage >= BEGUN else ids.text_of(run.number)

    @property
    def workflow(self) -> str | None:
        """The nearest workflow, or the run itself when it is a task."""
        return self.lineage()[0]

    @property
    def agent(self) -> str | None:
        """The nearest agent, or the run itself when it is one."""
        return self.lineage()[1]

    @property
    def span_ids(self) -> SpanIds:
        """Trace and span ID, empty without a tracer provider."""
        return spans.NO_SPAN if self.span is None else self.span.ids

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.ended_ns != 0

    @property
    def is_open(self) -> bool:
        """Whether it has started and not ended."""
        return self.started_ns != 0 and not self.ended_ns

    def lineage(self) -> tuple[str | None, str | None]:
        """The nearest workflow and agent. A task is its own workflow."""
        parent, callsite = self.parent, self.callsite
        if self.stage >= BEGUN:
            return self.begun.workflow, self.begun.agent
        if parent is None:
            return callsite.root_lineage
        workflow, agent = parent.lineage()
        if callsite.is_agent:
            return workflow if workflow is not None or agent is not None else callsite.name, callsite.name
        return (callsite.name if callsite.is_workflow else workflow), agent

    def is_task(self) -> bool:
        """Whether this run is a task: a workflow, or an agent with neither workflow nor agent above it."""
        callsite, parent = self.callsite, self.parent
        if self.stage >= BEGUN:
            return self.begun.is_task
        return callsite.is_workflow or (callsite.is_agent and (parent is None or parent.lineage() == (None, None)))

    # --- details that a caller may add ------------------------------------------------------------------------------

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add an attribute for the span and the audit log; never a metric label.

        Args:
            key: its name, without the prefix that it has on the span.
            value: a scalar, or a sequence of scalars.
        """
        if self.ended_ns:
            return
        details = self._note()
        fitting = self.callsite.runtime.fit({key: value})
        details.attributes = clean_attributes({**details.attributes, **fitting})
        for name, plain in fitting.items():
            self._set_on_span(Attr.USER_PREFIX + name, plain)

    def set_input(self, value: object) -> None:
        """Record the input: its length and, with content capture, its redacted text."""
        if self.ended_ns:
            return
        if type(value) is str:
            self.input_length = len(value)
        if self._keep_input(value) and self.details is not None:
            for key, text in self.details.input_attributes().items():
                self._set_on_span(key, text)

    def set_arguments(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Record a function's arguments: the length of their text and, with content capture, their redacted values.

        Args:
            args: the positional ones.
            kwargs: the keyword ones.
        """
        if self.ended_ns:
            return
        self.input_length = text_length(args, kwargs)
        if self.callsite.runtime.redactor is not None:
            arguments = self.callsite.parameters.bind(args, kwargs)
            if arguments:
                self._keep_input(arguments)

    def _keep_input(self, value: object) -> bool:
        runtime = self.callsite.runtime
        if runtime.redactor is None:
            return False
        with guarded("capture", runtime.counters):
            self._note().keep_input(value, runtime.redactor, as_messages=self.callsite.shows_messages)
            return True
        return False

    def set_output(self, value: object) -> None:
        """Record the output: its length and, with content capture, its redacted text.

        It takes precedence over what a decorated function returns or a stream yields.
        """
        if self.ended_ns:
            return
        self._note().output_stated = False
        self.observe_output(value)
        self._note().output_stated = True

    def observe_output(self, value: object) -> None:
        """Record the output, unless the application has set one."""
        if self.details is not None and self.details.output_stated:
            return
        if type(value) is str:
            self.output_length = len(value)
        runtime = self.callsite.runtime
        redactor = runtime.redactor
        if redactor is not None:
            with guarded("capture", runtime.counters):
                text = self._note().output_text = redactor.value(value)
                self._set_on_span(Attr.OUTPUT_TEXT, text)
                if self.span is not None and self.callsite.shows_messages:
                    reasons = getattr(self, "finish_reasons", ())
                    self._set_on_span(Attr.OUTPUT_MESSAGES, output_messages(value, redactor.text, reasons) or "[]")

    def note_item(self, item: object) -> None:
        """Record one item of a stream."""
        if type(item) is str:
            self.output_length = (self.output_length or 0) + len(item)
        runtime = self.callsite.runtime
        redactor = runtime.redactor
        if redactor is not None and item is not None:
            with guarded("capture", runtime.counters):
                self._note().keep_text(text_of(item), 2 * redactor.max_length)

    def finish_stream(self, result: object) -> None:
        """End a stream as `success`."""
        self._redact_stream()
        if type(result) is str and self.output_length is None:
            self.output_length = len(result)
        self.stop()

    def fail_stream(self, error: BaseException) -> None:
        """End a stream with the exception that ended it."""
        self._redact_stream()
        self.fail(error)

    def _redact_stream(self) -> None:
        text = self.details.output_text if self.details is not None else None
        if text is not None:
            length = self.output_length
            self.observe_output(text)
            self.output_length = length

    def _note(self) -> Details:
        details = self.details
        if details is None:
            details = self.details = Details()
        return details

    def _note_error(self, error: BaseException) -> None:
        """Overridden by kinds of operations that read more from the exception than its class."""

    # --- the span ----------------------------------------------------------------------------------------------------

    def _open(self, runtime: RecorderRuntime) -> None:
        """Clean the request's attributes on the caller's thread, and open the span."""
        scope, tracing = self.scope, runtime.tracing
        if runtime.redactor is not None and scope is not None and scope.attributes:
            self.scope = scope._replace(attributes=NO_ATTRIBUTES)  # kept if redaction fails
            self.scope = scope._replace(attributes=runtime.fit(scope.attributes))
        if tracing is not None:
            callsite, parent = self.callsite, self.parent
            explicit = parent.span if parent is not None and parent is not _get_current() else None
            above = None if explicit is None else explicit.context
            attributes = start_attributes(callsite, self.scope, self.request_id, self.details)
            self.span = tracing.start(callsite.span_name, above, callsite.span_kind, attributes)

    def _close_span(self, live: LiveSpan) -> None:
        uneventful = live.below is None and self.details is None and self.status is SUCCESS
        try:
            if not (uneventful and self.callsite.is_inner) and live.recording:
                self._write_outcome(live)
                self._add_to_span_above(live)
        finally:
            live.end()

    def _write_outcome(self, live: LiveSpan) -> None:
        write_outcome(live, self.status, self.details)
        if live.below and not self.callsite.is_tool:
            live.set_all(sum_of(live.below).as_attributes())

    def _add_to_span_above(self, live: LiveSpan) -> None:
        """Add this run's sums to the span of the nearest running ancestor."""
        if live.below is None and self.callsite.is_inner:
            return
        above = self._recording_span_above()
        if above is not None:
            totals = sum_of(live.below)
            self._add_own(totals)
            if totals:
                above.add_below(totals)

    def _recording_span_above(self) -> LiveSpan | None:
        """The span of the nearest running ancestor, if it records."""
        above = self.parent
        while above is not None and above.ended_ns:
            above = above.parent
        span = None if above is None else above.span
        return span if span is not None and span.recording else None

    def _set_on_span(self, key: str, value: AttributeValue) -> None:
        if self.span is not None:
            with guarded("span.attribute", self.callsite.runtime.counters):
                self.span.set(key, value)

    # --- the drainer's side: nothing below runs on the caller's thread -----------------------------------------------

    def droppable(self) -> bool:
        """A start may be dropped (its end then brings both records); an end only if its start was."""
        if not self.ended_ns:
            self.stage = LOST
        return self.stage == LOST

    def freeze(self, records: list[Record]) -> None:
        """Append this run's records: `Started` when first seen, `Invocation` when seen again."""
        stage = self.stage
        if stage == BEGUN:
            # A run still in progress was interrupted after its start; one begun before a fork ends in the parent.
            if not self.ended_ns or self.number < ids.first_number:
                return
            done = self._freeze_end()
            if self.parent is not None:
                self._fold()
            self.stage = DONE
            records.append(done)
            return
        if stage == DONE or self.number < ids.first_number:
            return
        self.begun = begun = self._freeze_start()
        if stage == UNSEEN:  # otherwise, the runs beneath may have been added already
            self.totals = None
        if self.parent is not None:
            self._forget_ended_ancestors()
        self.stage = BEGUN
        records.append(begun)
        if stage != UNSEEN:
            self.freeze(records)

    def _freeze_start(self) -> Started:
        return start_of(self, None, None)

    def _freeze_end(self, llm_call: tuple[object, ...] = NO_LLM_CALL) -> Invocation:
        return end_of(self, llm_call)

    def _forget_ended_ancestors(self) -> ActiveInvocation | None:
        """Refer only to the nearest ancestor whose end the drainer has not seen."""
        above = self.parent
        while above is not None and above.stage == DONE:
            above = above.parent
        self.parent = above
        return above

    def _fold(self) -> None:
        """Add this run to the nearest ancestor that has not been frozen as ended."""
        above = self._forget_ended_ancestors()
        if above is None or (self.totals is None and self.callsite.is_inner):
            return
        totals = above.own_totals()
        if self.totals is not None:
            totals.add(self.totals)
        self._add_own(totals)

    def own_totals(self) -> Totals:
        """The sum of what happened beneath."""
        if self.totals is None:
            self.totals = Totals()
        return self.totals

    def add_violation(self) -> None:
        """Count a policy violation in the roll-up."""
        run = self if self.stage != DONE else self._forget_ended_ancestors()
        if run is not None:
            run.own_totals().violations += 1

    def _add_own(self, totals: Totals) -> None:
        """Add this run itself: one tool call, or one LLM call."""
        if self.callsite.is_tool:
            totals.tool_calls += 1
