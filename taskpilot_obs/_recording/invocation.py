"""An operation that runs: what is noted on the caller's thread, and how the drainer freezes it.

The caller pays for two clock readings, one context variable and two appends of this object. Everything else
(identifiers as text, prices, roll-ups, the frozen records) is worked out by the drainer from what was noted here.
"""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING, Any, Self

from taskpilot_obs._recording import spans
from taskpilot_obs._recording.callsite import Callsite, Details, Host, text_length
from taskpilot_obs._recording.content import output_messages, text_of
from taskpilot_obs._recording.context import current_running, current_scope
from taskpilot_obs._recording.rollups import sum_of
from taskpilot_obs._recording.snapshots import BEGUN, LOST, Freezing
from taskpilot_obs._recording.spans import AdoptedSpan, LiveSpan
from taskpilot_obs._recording.statuses import classify
from taskpilot_obs._support import ids
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.records import (
    BAD,
    NO_ATTRIBUTES,
    SUCCESS,
    AttributeValue,
    Operation,
    Status,
    clean_attributes,
)
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs._pipeline.pipeline import Pipeline
    from taskpilot_obs._recording.spans import SpanIds

Step = tuple[Token["ActiveInvocation | None"], Token[Any] | None]
"""What `ActiveInvocation.attach` returns, for `detach`."""
_REQUEST_ID = Attr.REQUEST_ID
_scope, _current = current_scope.get, current_running.get
_make_current, _make_last_current = current_running.set, current_running.reset
"""Bound once: a method of an imported object is looked up, and bound, in each call."""


class ActiveInvocation(Freezing):
    """One operation that runs. Made by a `Recorder`; ended once by `stop` or `fail`, and harmlessly again.

    Slots are set where they are first needed, not all at birth: that is a third of what a call costs. `parent` is the
    invocation around this one until the drainer has noted it; then only the nearest ancestor that still runs, so that
    tasks that respawn tasks build no chain.
    """

    __slots__ = ("__weakref__", "_token")

    def at(self, callsite: Callsite, parent: ActiveInvocation | None) -> Self:
        """Stand at a place, beneath a parent; not yet begun. In place of a constructor, which costs twice a call."""
        self.callsite = callsite
        self.parent = parent
        self.number = next(ids.numbers)
        scope = _scope()
        self.scope = parent.scope if scope is None and parent is not None else scope
        self.ended_ns = self.stage = 0
        self.details = self.span = self.input_length = self.output_length = None
        self._token: Token[ActiveInvocation | None] | None = None
        return self

    # --- begin and end -----------------------------------------------------------------------------------------------

    def begin(self) -> Self:
        """Start the clock, open the span and announce the start. Called once, by whoever made it."""
        host = self.callsite.host
        if not host.enabled:
            self.ended_ns = 1
            return self
        if host.thorough:
            host.guard_span.call(self._begin_thoroughly, host)
        self.started_ns = host.now()
        pipeline = host.pipeline
        queue = pipeline.queue
        if len(queue) < pipeline.high_water:
            queue.append(self)
        else:
            self._announce(pipeline)
        return self

    def _announce(self, pipeline: Pipeline) -> None:
        """Put where there may be no room; a Ctrl-C while that takes its time ends what had hardly begun."""
        try:
            pipeline.put(self)
        except BaseException as error:
            self.fail(error)
            raise

    def enter(
        self,
        callsite: Callsite,
        parent: ActiveInvocation | None,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] = NO_ATTRIBUTES,
    ) -> Self:
        """Begin at a place, with these arguments, and stay attached until the end.

        The hot path: `at`, `set_arguments`, `begin`, `attach` and `Pipeline.put` in one frame. The caller has asked
        whether the recorder is enabled.
        """
        self.callsite = callsite
        self.parent = parent
        self.number = next(ids.numbers)
        scope = _scope()
        self.scope = parent.scope if scope is None and parent is not None else scope
        self.ended_ns = self.stage = 0
        self.details = self.span = self.input_length = self.output_length = None
        if args or kwargs:
            self.set_arguments(args, kwargs)
        host = callsite.host
        if host.thorough:
            host.guard_span.call(self._begin_thoroughly, host)
            if self.span is not None:
                self.span.enter()
        self._token = _make_current(self)
        now, pipeline = host.now, host.pipeline
        self.started_ns = now()
        queue = pipeline.queue
        if len(queue) < pipeline.high_water:
            queue.append(self)
        else:
            self._announce(pipeline)
        return self

    def end(self, status: Status, result: object = None, *, at_ns: int = 0) -> None:
        """End with a given status. The other half of the hot path.

        Args:
            status: how it ended.
            result: what came out.
            at_ns: when, on the recorder's clock; now when left out.
        """
        if self.ended_ns:
            return
        if result is not None:
            self.observe_output(result)
        host = self.callsite.host
        now, pipeline = host.now, host.pipeline
        self.ended_ns = at_ns or now()
        self.status = status
        try:
            token = self._token
            if token is not None:
                self._token = None
                try:
                    _make_last_current(token)
                except ValueError:  # another context than it was entered in
                    pass
                else:
                    if self.span is not None:
                        self.span.leave()
            if self.span is not None:
                host.guard_span.call(self._close_span, self.span)
        finally:  # a Ctrl-C while a span processor takes its time must not keep the record
            queue = pipeline.queue
            if len(queue) < pipeline.high_water:
                queue.append(self)
            else:
                pipeline.put(self)

    def stop(self, *, at_unix_ns: int | None = None) -> None:
        """End as `success`.

        Args:
            at_unix_ns: when it ended, in nanoseconds since the Unix epoch; now when left out.
        """
        self.end(SUCCESS, at_ns=self._ticks(at_unix_ns))

    def end_as(
        self,
        status: Status | str,
        *,
        error_type: str | None = None,
        error_message: str | None = None,
        at_unix_ns: int | None = None,
    ) -> None:
        """End as a framework reports it, where the exception object is not at hand; otherwise use `fail`.

        Args:
            status: how it ended.
            error_type: the qualified name of the exception's class.
            error_message: its text; kept, redacted, only where content is captured.
            at_unix_ns: when it ended, in nanoseconds since the Unix epoch; now when left out.

        Raises:
            ValueError: the status is unknown.
        """
        outcome = Status(status)
        if self.ended_ns:
            return
        if error_type is not None and outcome in BAD:
            with guarded("classify", self.callsite.host.counters):
                self._note_stated_error(error_type, error_message)
        self.end(outcome, at_ns=self._ticks(at_unix_ns))

    def _note_stated_error(self, error_type: str, message: str | None) -> None:
        details, redactor = self._note(), self.callsite.host.redactor
        details.error_type = error_type
        if message is not None and redactor is not None:
            details.error_message = redactor.text(message)

    def _ticks(self, unix_ns: int | None) -> int:
        return 0 if unix_ns is None else self.callsite.host.clock.ticks(unix_ns)

    def fail(self, error: BaseException, *, at_unix_ns: int | None = None) -> None:
        """End with the status that the exception stands for (`error`, `timeout`, `blocked`, `cancelled`, …).

        Args:
            error: the exception that ended it.
            at_unix_ns: when it ended, in nanoseconds since the Unix epoch; now when left out.
        """
        if self.ended_ns:
            return
        host, expected = self.callsite.host, self.callsite.expected
        status = Status.ERROR
        try:
            with guarded("classify", host.counters):
                is_expected = expected is not None and expected(error)
                status, error_type = (SUCCESS, "") if is_expected else classify(type(error))
                if status in BAD:
                    details = self._note()
                    details.error_type = error_type
                    self._note_error(error)
                    if host.redactor is not None:
                        details.error_message = host.redactor.value(error)
        finally:
            self.end(status, at_ns=self._ticks(at_unix_ns))

    def adopt(self, started_unix_ns: int | None, span: AdoptedSpan | None) -> Self:
        """Announce a run that began elsewhere; called once, by whoever made it, in place of `begin`.

        Args:
            started_unix_ns: when it began, in nanoseconds since the Unix epoch; now when None.
            span: the span that stands for it already.
        """
        host = self.callsite.host
        if not host.enabled:
            self.ended_ns = 1
            return self
        self.span = span
        self.started_ns = self._ticks(started_unix_ns) or host.now()
        self._announce(host.pipeline)
        return self

    def end_after_the_fact(self, status: Status) -> None:
        """End what was never announced: the drainer makes both records of it. Has no span."""
        self.stage = LOST
        self.end(status)

    # --- the present context -----------------------------------------------------------------------------------------

    def attach(self) -> Step:
        """Make this the current invocation (and its span the current span) until `detach`."""
        span = self.span
        return _make_current(self), None if span is None else span.attach()

    def detach(self, step: Step) -> None:
        """Undo `attach`. In a foreign context (a framework that ends elsewhere what it began) nothing happens."""
        running, span = step
        try:
            _make_last_current(running)
        except (ValueError, RuntimeError):  # another context, or undone already
            return
        if span is not None:
            spans.detach(span)

    def leave(self) -> None:
        """Undo what `enter` or `resume` attached; the invocation goes on."""
        token = self._token
        if token is None:
            return
        self._token = None
        try:
            _make_last_current(token)
        except ValueError:  # another context than it was entered in
            return
        if self.span is not None:
            self.span.leave()

    def resume(self) -> None:
        """Attach again until the end."""
        if self.ended_ns:
            return
        self._token = _make_current(self)
        if self.span is not None:
            self.span.enter()

    # --- what a caller may add while it runs -------------------------------------------------------------------------

    def _note(self) -> Details:
        details = self.details
        if details is None:
            details = self.details = Details()
        return details

    def _note_error(self, error: BaseException) -> None:
        """What a kind of operation wants to know of the exception besides its class."""

    @property
    def operation(self) -> Operation:
        """What is done."""
        return self.callsite.operation

    @property
    def name(self) -> str:
        """Name of the agent, workflow, tool or model."""
        return self.callsite.name

    @property
    def invocation_id(self) -> str:
        """The identifier that this run's records share."""
        return ids.text_of(self.number)

    @property
    def request_id(self) -> str:
        """The request that it works for; a root run without a request context gets one of its own."""
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

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add an attribute for the span and the audit log; never a metric label."""
        if self.ended_ns:
            return
        details = self._note()
        fitting = self.callsite.host.fit({key: value})
        details.attributes = clean_attributes({**details.attributes, **fitting})
        for name, plain in fitting.items():
            self._set_on_span(Attr.USER_PREFIX + name, plain)

    def set_input(self, value: object) -> None:
        """Note what went in: its length, and the redacted text when content capture is on."""
        if type(value) is str:
            self.input_length = len(value)
        redactor = self.callsite.host.redactor
        if redactor is not None:
            with guarded("capture", self.callsite.host.counters):
                details = self._note()
                details.keep_input(value, redactor, as_messages=self.callsite.shows_messages)
                for key, text in details.input_attributes().items():
                    self._set_on_span(key, text)

    def set_output(self, value: object) -> None:
        """Note what came out: its length, and the redacted text when content capture is on.

        What is stated here wins over what a decorated function returns or a stream yields.
        """
        if self.ended_ns:
            return
        self._note().output_stated = False
        self.observe_output(value)
        self._note().output_stated = True

    def observe_output(self, value: object) -> None:
        """Note what came out, unless the application has stated it."""
        if self.details is not None and self.details.output_stated:
            return
        if type(value) is str:
            self.output_length = len(value)
        redactor = self.callsite.host.redactor
        if redactor is not None:
            with guarded("capture", self.callsite.host.counters):
                text = self._note().output_text = redactor.value(value)
                self._set_on_span(Attr.OUTPUT_TEXT, text)
                if self.span is not None and self.callsite.shows_messages:
                    reasons = getattr(self, "finish_reasons", ())
                    self._set_on_span(Attr.OUTPUT_MESSAGES, output_messages(value, redactor.text, reasons) or "[]")

    # --- what decorators and drivers call ----------------------------------------------------------------------------

    def set_arguments(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Note what a function was called with: how much text, and the redacted arguments when content is captured."""
        self.input_length = text_length(args, kwargs)
        redactor = self.callsite.host.redactor
        if redactor is not None:
            with guarded("capture", self.callsite.host.counters):
                arguments = self.callsite.parameters.bind(args, kwargs)
                if arguments:
                    self._note().keep_input(arguments, redactor, as_messages=self.callsite.shows_messages)

    def note_item(self, item: object) -> None:
        """Note one item of a stream."""
        if type(item) is str:
            self.output_length = (self.output_length or 0) + len(item)
        redactor = self.callsite.host.redactor
        if redactor is not None and item is not None:
            with guarded("capture", self.callsite.host.counters):
                self._note().keep_text(text_of(item), 2 * redactor.max_length)

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
        text = self.details.output_text if self.details is not None else None
        if text is not None:
            length = self.output_length
            self.observe_output(text)
            self.output_length = length

    # --- the span ----------------------------------------------------------------------------------------------------

    def _start_attributes(self) -> dict[str, AttributeValue]:
        attributes, scope = self.callsite.span_attributes.copy(), self.scope
        if scope is None:
            attributes[_REQUEST_ID] = self.request_id
        else:
            attributes[_REQUEST_ID], tenant, user, session, free = scope
            if tenant is not None:
                attributes[Attr.TENANT_ID] = tenant
            if user is not None:
                attributes[Attr.USER_ID] = user
            if session is not None:
                attributes[Attr.CONVERSATION_ID] = session
            if free:
                attributes.update({Attr.USER_PREFIX + name: value for name, value in free.items()})
        if self.details is not None:
            attributes.update(self.details.input_attributes())
        return attributes

    def _begin_thoroughly(self, host: Host) -> None:
        """Fit the request's attributes to be kept, on the caller's thread, and open the span."""
        scope, tracing = self.scope, host.tracing
        if host.redactor is not None and scope is not None and scope.attributes:
            self.scope = scope._replace(attributes=NO_ATTRIBUTES)  # should redaction fail
            self.scope = scope._replace(attributes=host.fit(scope.attributes))
        if tracing is not None:
            callsite, parent = self.callsite, self.parent
            explicit = parent.span if parent is not None and parent is not _current() else None
            above = None if explicit is None else explicit.context
            self.span = tracing.start(callsite.span_name, above, callsite.span_kind, self._start_attributes())

    def _close_span(self, live: LiveSpan) -> None:
        uneventful = live.below is None and self.details is None and self.status is SUCCESS
        if not (uneventful and self.callsite.is_inner) and live.recording:
            self._write_outcome(live)
            self._add_to_span_above(live)
        live.end()

    def _write_outcome(self, live: LiveSpan) -> None:
        if self.status is not SUCCESS:
            live.set(Attr.STATUS, self.status.value)
        details = self.details
        if details is not None and details.error_type is not None:
            live.set(Attr.ERROR_TYPE, details.error_type)
            live.set_failed(details.error_type, details.error_message)
        if live.below and not self.callsite.is_tool:
            live.set_all(sum_of(live.below).as_attributes())

    def _add_to_span_above(self, live: LiveSpan) -> None:
        """Tell the nearest running ancestor what this run took."""
        if live.below is None and self.callsite.is_inner:
            return
        above = self.parent
        while above is not None and above.ended_ns:
            above = above.parent
        if above is None or above.span is None or not above.span.recording:
            return
        totals = sum_of(live.below)
        self._add_own(totals)
        if totals:
            above.span.add_below(totals)

    def _set_on_span(self, key: str, value: AttributeValue) -> None:
        if self.span is not None:
            with guarded("span.attribute", self.callsite.host.counters):
                self.span.set(key, value)
