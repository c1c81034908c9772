"""The live OpenTelemetry span of an active invocation. The only module here that uses OpenTelemetry.

Only the API is used: the application's SDK, exporter and sampler decide. With no provider there is no `Tracing`, and
nothing here runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace

from taskpilot_obs.records import Operation
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from taskpilot_obs._recording.rollups import Totals

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
"""The schema that OpenTelemetry's own GenAI helper declares (opentelemetry-util-genai 1.3)."""

_KINDS = {Operation.CHAT: trace.SpanKind.CLIENT, Operation.EMBEDDINGS: trace.SpanKind.CLIENT}


class SpanIds(NamedTuple):
    """The IDs of a span, in the format of logs and exemplars."""

    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False


NO_SPAN = SpanIds()
NO_CONTEXT = otel_context.Context()
_CLIENT_CALL = "opentelemetry.genai.client."
"""How the keys begin by which OpenTelemetry's own instrumentation knows that it is within a call of a client."""


def installed_provider() -> TracerProvider | None:
    """Return the application's tracer provider, or None while it has none that records."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider) else provider


class Tracing:
    """Starts and ends spans with one tracer.

    Args:
        provider: the tracer provider.
        version: this library's, as instrumentation scope version.
    """

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self.provider = provider
        self._version = version
        self._start_span: Callable[..., Span] | None = None

    def start(
        self, name: str, above: Context | None, kind: trace.SpanKind, attributes: Mapping[str, AttributeValue]
    ) -> LiveSpan:
        """Start a span beneath the current one, or beneath that of `above`.

        The attributes are set at creation, so that samplers see them.
        """
        around = otel_context.get_current()
        if self._start_span is None:  # asked for here, where a provider that raises costs the span alone
            tracer = self.provider.get_tracer("taskpilot_obs", self._version, schema_url=SCHEMA_URL)
            self._start_span = tracer.start_span
        span = self._start_span(name, around if above is None else above, kind, attributes)
        return LiveSpan(span, around)


def span_kind(operation: Operation) -> trace.SpanKind:
    """CLIENT for calls of a provider, INTERNAL for the rest."""
    return _KINDS.get(operation, trace.SpanKind.INTERNAL)


class LiveSpan:
    """The span of an active run.

    Once ended, it keeps the identifiers only, because records that wait for the drainer must not keep spans alive.

    Args:
        span: the span.
        around: the context in which the span began.

    Raises:
        TypeError: the span has no span context, because its tracer misbehaves.
    """

    __slots__ = ("_context", "_identity", "_span", "below")

    def __init__(self, span: Span, around: Context) -> None:
        identity = span.get_span_context()
        if not isinstance(identity, trace.SpanContext):
            raise TypeError(f"the tracer's span has no SpanContext, but {type(identity).__name__}")
        self._span = span
        self._context = trace.set_span_in_context(span, around)
        self._identity = identity
        self.below: list[Totals] | None = None
        """The sums of the operations beneath; only for a recording span."""

    @property
    def recording(self) -> bool:
        """Whether it accepts attributes: it was sampled, and has not ended."""
        return self._span.is_recording()

    @property
    def ids(self) -> SpanIds:
        """The trace ID and span ID."""
        return ids_of(self._identity)

    def attach(self) -> Token[Context] | None:
        """Make it the current span until `detach`; return None if there is nothing to undo."""
        return otel_context.attach(self._context)

    def set(self, key: str, value: AttributeValue) -> None:
        """Set an attribute."""
        self._span.set_attribute(key, value)

    def set_all(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        self._span.set_attributes(attributes)

    def set_failed(self, error_type: str, message: str | None) -> None:
        """Mark it as failed. The message, which may hold content, is given only when content capture is on."""
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, message))
        attributes = {Attr.EXCEPTION_TYPE: error_type}
        if message is not None:
            attributes[Attr.EXCEPTION_MESSAGE] = message
        self._span.add_event("exception", attributes)

    def add_decision(self, **fields: str | None) -> None:
        """Add an event for the decision of a check, with these fields as `taskpilot.decision.*`."""
        attributes = {f"{Attr.DECISION}.{name}": str(value) for name, value in fields.items() if value is not None}
        self._span.add_event(Attr.DECISION, attributes)

    def end(self) -> None:
        """End the span."""
        span = self._span
        self._span = trace.INVALID_SPAN
        self._context = NO_CONTEXT
        span.end()

    @property
    def context(self) -> Context:
        """The context in which it is the current span, to start children in, also after its end."""
        if self._context is not NO_CONTEXT:
            return self._context
        return trace.set_span_in_context(trace.NonRecordingSpan(self._identity))

    def add_below(self, totals: Totals) -> None:
        """Add the sums of an operation beneath to a list, because appending needs no lock."""
        if self.below is None:
            self.below = []
        self.below.append(totals)


class AdoptedSpan(LiveSpan):
    """A span that a framework opened and will end. Records carry its IDs; it is never modified.

    Args:
        identity: the span's context.
    """

    __slots__ = ()

    def __init__(self, identity: trace.SpanContext) -> None:
        super().__init__(trace.NonRecordingSpan(identity), otel_context.get_current())

    def attach(self) -> Token[Context] | None:
        """Leave the current span as it is."""
        return None


def leave_client_call() -> Token[Context] | None:
    """Leave the call of an instrumented client until `detach`; return None outside of any.

    The instrumentation takes a call within a call for the same one, and opens no span for it.
    """
    around = otel_context.get_current()
    if not any(_is_client_call(key) for key in around):
        return None
    kept = {key: value for key, value in around.items() if not _is_client_call(key)}
    return otel_context.attach(otel_context.Context(kept))


def _is_client_call(key: object) -> bool:
    return isinstance(key, str) and key.startswith(_CLIENT_CALL)  # an application may use keys of any type


def detach(token: Token[Context]) -> None:
    """Undo `LiveSpan.attach` in its own context only, because elsewhere OpenTelemetry logs an error."""
    otel_context.detach(token)


def ids_of(identity: trace.SpanContext) -> SpanIds:
    """Return a span's IDs in lower-case hex; empty for the invalid span."""
    trace_id, span_id, _, flags, _, is_valid = identity  # a tuple: its properties would cost twice as much
    if not is_valid:
        return NO_SPAN
    return SpanIds(trace_id.to_bytes(16, "big").hex(), span_id.to_bytes(8, "big").hex(), flags.sampled)


def current_ids() -> SpanIds:
    """Return the IDs of the current span, which may be the application's own."""
    return ids_of(trace.get_current_span().get_span_context())
