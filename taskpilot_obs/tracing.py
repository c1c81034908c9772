"""The live OpenTelemetry span of an active invocation. The only module that speaks OpenTelemetry.

Only the API is used: the application's SDK, exporter and sampler decide. With no provider there is no `Tracing`, and
nothing here runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace

from taskpilot_obs.records import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
"""The schema that OpenTelemetry's own GenAI helper declares (opentelemetry-util-genai 1.3)."""

_KINDS = {Operation.CHAT: trace.SpanKind.CLIENT, Operation.EMBEDDINGS: trace.SpanKind.CLIENT}


class SpanIds(NamedTuple):
    """The identifiers of a span, as logs and exemplars spell them."""

    trace_id: str | None = None
    span_id: str | None = None
    sampled: bool = False


NO_SPAN = SpanIds()


def installed_provider() -> TracerProvider | None:
    """The application's tracer provider, or None while it has none that could record."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider) else provider


class Tracing:
    """Starts and ends spans with one tracer, asked for once.

    Args:
        provider: where spans go.
        version: this library's, as instrumentation scope version.
    """

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self.provider = provider
        self._start_span = provider.get_tracer("taskpilot_obs", version, schema_url=SCHEMA_URL).start_span

    def start(
        self, operation: Operation, name: str, attributes: Mapping[str, AttributeValue], parent: Span | None
    ) -> Span:
        """Start a span; its attributes are there at creation, so that samplers see them."""
        context = None if parent is None else trace.set_span_in_context(parent)
        kind = _KINDS.get(operation, trace.SpanKind.INTERNAL)
        return self._start_span(f"{operation} {name}" if name else operation.value, context, kind, attributes)


def attach(span: Span) -> Token[Context]:
    """Make a span the current one."""
    return otel_context.attach(trace.set_span_in_context(span))


def detach(token: Token[Context]) -> None:
    """Undo `attach`, in the context where it was done (elsewhere OpenTelemetry logs an error)."""
    otel_context.detach(token)


def set_failed(span: Span, error_type: str, message: str | None) -> None:
    """Mark a span as failed. The message, which may hold content, is given only when content capture is on."""
    span.set_status(trace.Status(trace.StatusCode.ERROR, message))
    attributes = {"exception.type": error_type}
    if message is not None:
        attributes["exception.message"] = message
    span.add_event("exception", attributes)


def ids_of(span: Span) -> SpanIds:
    """The span's identifiers, in lower-case hex; empty for the invalid span."""
    context = span.get_span_context()
    if not context.is_valid:
        return NO_SPAN
    return SpanIds(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


def current_ids() -> SpanIds:
    """The identifiers of whatever span is current, the application's own included."""
    return ids_of(trace.get_current_span())
