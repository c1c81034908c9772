"""W3C trace context and baggage, as OpenTelemetry's API reads and writes them; no SDK is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from contextvars import Token

    from opentelemetry.context import Context

_TRACE, _BAGGAGE = TraceContextTextMapPropagator(), W3CBaggagePropagator()
_EMPTY = otel_context.Context()


def remote_context(headers: Mapping[str, str]) -> Context | None:
    """The context of the span that made a request; None without one, or where a span is current already.

    A span that is current already belongs to an instrumentation of the web framework, which has read the headers.

    Args:
        headers: by names in lower case.
    """
    if "traceparent" not in headers or trace.get_current_span().get_span_context().is_valid:
        return None
    context = _TRACE.extract(headers, otel_context.get_current())
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def stated_baggage(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The baggage of a request, percent-decoded.

    Args:
        headers: by names in lower case.
    """
    plain = {name: value.encode("utf-8", "replace").decode() for name, value in headers.items() if name == "baggage"}
    return {name: str(value) for name, value in baggage.get_all(_BAGGAGE.extract(plain, _EMPTY)).items()}


def write_trace(headers: MutableMapping[str, str], context: Context | None) -> None:
    """Write `traceparent` and `tracestate` of the span in a context; of the current span when left out."""
    _TRACE.inject(headers, context)


def write_baggage(headers: MutableMapping[str, str], entries: Mapping[str, str]) -> None:
    """Write entries, beside the current baggage of the application, into `baggage`."""
    context = otel_context.get_current()
    for name, value in entries.items():
        context = baggage.set_baggage(name, value, context)
    _BAGGAGE.inject(headers, context)


def attach(context: Context) -> Token[Context]:
    """Make a context the current one of OpenTelemetry; `detach` undoes it, in the same context of Python."""
    return otel_context.attach(context)


def detach(token: Token[Context]) -> None:
    """Undo `attach`."""
    otel_context.detach(token)
