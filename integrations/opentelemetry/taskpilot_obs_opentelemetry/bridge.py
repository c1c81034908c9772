"""The span processor: GenAI spans of other libraries become runs."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from taskpilot_obs import genai_dialects as dialects
from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    Status,
    add_current_resolver,
    current_run,
    current_scope,
    get_recorder,
    guarded,
    is_within,
    remove_current_resolver,
)
from taskpilot_obs.records import LLM_OPERATIONS
from taskpilot_obs_opentelemetry.claims import NativeCalls, SpanCall, number_of
from taskpilot_obs_opentelemetry.outcomes import (
    SpanOutcome,
    end_with,
    outcome_of,
    write_answer,
    write_request,
    write_stream,
)
from taskpilot_obs_opentelemetry.tree import MOST_LIVE, Node

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

__all__ = ["GenAiBridge"]

OUR_SCOPE: Final = "taskpilot_obs"


class GenAiBridge(SpanProcessor):
    """Records the agents, tools and LLM calls that other libraries state as spans.

    A call is recorded once, however many layers see it. Runs begin when they are first needed, because most frameworks
    name their spans after the start; LLM calls are recorded at their end.

    Args:
        recorder: where to; the default one when left out.
        ignore: instrumentation scopes whose spans are left out, beside those of this library.
    """

    def __init__(self, recorder: Recorder | None = None, *, ignore: frozenset[str] = frozenset()) -> None:
        self._recorder = get_recorder() if recorder is None else recorder
        self._ignored = ignore | {OUR_SCOPE}
        self._live: dict[int, Node] = {}
        self._closed = False
        self._making = threading.RLock()
        self._asking = threading.local()
        self.native = NativeCalls()
        """The LLM calls that something else records."""
        self.folded = 0
        """Spans that stood for a run which was recorded already."""
        self._recorder.add_llm_listener(self.native)
        add_current_resolver(self._innermost)

    @property
    def live(self) -> int:
        """How many spans are kept."""
        return len(self._live)

    # --- OpenTelemetry's side ----------------------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002  its interface
        """Note a span, whatever it is: its attributes may come later."""
        with guarded("opentelemetry", self._recorder.counters):
            self._note(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Record what the span stood for."""
        with guarded("opentelemetry", self._recorder.counters):
            node = self._live.pop(span.context.span_id, None)
            if node is not None:
                node.span = span
                self._end(node, outcome_of(span, node.fault), span.end_time or span.start_time or 0)

    def shutdown(self) -> None:
        """Record what is held, and listen no more; providers cannot let go of a processor."""
        self._closed = True
        self._recorder.remove_llm_listener(self.native)
        remove_current_resolver(self._innermost)
        self.native.release_all()
        self._live.clear()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until everything recorded so far is written."""
        return self._recorder.flush(timeout_millis / 1_000)

    # --- the tree ----------------------------------------------------------------------------------------------------

    def _note(self, span: Span) -> None:
        scope = span.instrumentation_scope
        if self._closed or (scope is not None and scope.name in self._ignored):
            return
        parent = None if span.parent is None else self._live.get(span.parent.span_id)
        if parent is not None:
            parent.forget_plumbing()
        self._live[span.context.span_id] = Node(span, parent, self._current(), current_scope.get())
        if len(self._live) > MOST_LIVE:
            self._forget(self._live.pop(next(iter(self._live)), None))

    def _forget(self, node: Node | None) -> None:
        """Record an LLM call whose span is not kept; a run ends as abandoned where nothing refers to it."""
        kind = None if node is None else node.kind()
        if node is not None and kind is not None and kind.operation in LLM_OPERATIONS:
            self._end(node, SpanOutcome(Status.ABANDONED), time.time_ns())

    def _current(self) -> ActiveInvocation | None:
        """The current run, without those of spans: asked for them here, they would begin before they have names."""
        self._asking.here = True
        try:
            return current_run()
        finally:
            self._asking.here = False

    def _innermost(self, known: ActiveInvocation | None) -> ActiveInvocation | None:
        """The run of the current span, where it lies beneath the run that is known to be current."""
        if not self._live or getattr(self._asking, "here", False):
            return known
        node = self._live.get(trace.get_current_span().get_span_context().span_id)
        if node is None or (known is not None and not is_within(node.around, known)):
            return known
        with guarded("opentelemetry", self._recorder.counters):
            return self._run_at(node) or known
        return known

    def _run_at(self, node: Node) -> ActiveInvocation | None:
        """The nearest run at or above a span, made if necessary. An LLM call is left out: its end reports it."""
        with self._making:
            if node.run is None and not node.folded:
                kind = node.kind()
                if kind is not None and kind.operation not in LLM_OPERATIONS:
                    self._make(node, kind, self._run_above(node))
            return self._run_above(node) if node.run is None else node.run

    def _run_above(self, node: Node) -> ActiveInvocation | None:
        if node.parent is None or node.begins_beneath_a_run():
            return node.around
        return self._run_at(node.parent)

    def _make(self, node: Node, kind: dialects.SpanMeaning, above: ActiveInvocation | None) -> None:
        same = above is not None and (above.operation, above.name) == tuple(kind)
        if above is not None and same and node.began_within(above) and not node.judges(above):
            node.folded = True  # a framework's own span of what a decorator or an outer layer records already
            self.folded += 1
            return
        run = self._recorder.adopt(
            kind.operation,
            kind.name,
            parent=above,
            start_unix_ns=node.span.start_time,
            span_context=node.span.context,
            scope=node.scope,
        )
        conversation = dialects.conversation_of(node.span.attributes or {})
        if conversation is not None:
            run.set_attribute("conversation", conversation)
        node.run = run

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, node: Node, outcome: SpanOutcome, at_unix_ns: int) -> None:
        node.ended = True
        kind = node.kind()
        if kind is not None and kind.operation in LLM_OPERATIONS:
            self._end_llm(node, kind, outcome, at_unix_ns)
        elif kind is not None or node.run is not None:
            self._run_at(node)
            if node.run is not None:
                end_with(node.run, outcome, at_unix_ns)
        if node.root is node and outcome.status is not Status.SUCCESS:
            self._close_beneath(node, outcome, at_unix_ns)
        if node.run is not None:
            node.parent = None  # the run knows what is above

    def _close_beneath(self, root: Node, outcome: SpanOutcome, at_unix_ns: int) -> None:
        """End what is open beneath a local root that failed or was left: several frameworks never end it then."""
        interrupted = SpanOutcome(Status.CANCELLED if outcome.status is Status.CANCELLED else Status.ABANDONED)
        for key, node in reversed(self._live.copy().items()):
            if node.root is root and self._live.pop(key, None) is not None:
                self._end(node, interrupted, at_unix_ns)

    def _end_llm(self, node: Node, kind: dialects.SpanMeaning, outcome: SpanOutcome, at_unix_ns: int) -> None:
        attributes = node.span.attributes or {}
        if node.failure is not None and outcome.status is Status.CANCELLED:
            outcome = node.failure  # a framework cancels its own task where a stream fails
        outer = node.llm_above()
        if outer is not None:
            outer.failure = outcome if outcome.is_failure() else None
            self._lend(node, outer)
            return
        above = self._run_above(node)
        if isinstance(above, LlmInvocation) and node.began_within(above) and not node.judges(above):
            self.folded += 1
            write_request(above, node.span)
            if above.usage is None and not node.lent and dialects.counts_of(attributes):
                write_answer(above, node.span, node.took)
            _write_streams(above, node)
            return
        call = SpanCall(
            number_of(above),
            dialects.request_model_of(node.span.name, attributes),
            dialects.response_id_of(attributes),
            outcome.status is not Status.SUCCESS,
            node.span.start_time or 0,
            at_unix_ns,
        )
        record = partial(self._record_llm, node, kind.operation, above, outcome, at_unix_ns)
        self.native.submit(call, record, self._count_folded)

    def _count_folded(self) -> None:
        self.folded += 1

    def _lend(self, node: Node, outer: Node) -> None:
        """An outer layer reports this call: give it the usage, for the case that it states none."""
        self.folded += 1
        node.folded = True
        counts = dialects.counts_of(node.span.attributes or {})
        outer.beneath = node.beneath or node.span if outer.beneath is None else outer.beneath
        if node.lent or not counts:
            outer.lent |= node.lent
            return
        for field, value in counts.items():
            known = outer.took.get(field)
            outer.took[field] = known + value if isinstance(known, int) and isinstance(value, int) else value

    def _record_llm(
        self,
        node: Node,
        operation: Operation,
        above: ActiveInvocation | None,
        outcome: SpanOutcome,
        at_unix_ns: int,
    ) -> None:
        with guarded("opentelemetry", self._recorder.counters):
            attributes = node.span.attributes or {}
            call = self._recorder.adopt_llm(
                model=dialects.request_model_of(node.span.name, attributes) or dialects.response_model_of(attributes),
                provider=dialects.provider_of(attributes),
                operation=operation,
                parent=above,
                start_unix_ns=node.span.start_time,
                span_context=node.span.context,
                scope=node.scope,
            )
            write_answer(call, node.span, node.took)
            _write_streams(call, node)
            end_with(call, outcome, at_unix_ns)


def _write_streams(call: LlmInvocation, node: Node) -> None:
    """Note what the span states of a stream, and the span of an inner layer of the same call."""
    write_stream(call, node.span)
    if node.beneath is not None:
        write_stream(call, node.beneath)
