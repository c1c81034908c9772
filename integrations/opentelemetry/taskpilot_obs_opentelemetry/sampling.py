"""A sampler that lets span processors see what the application's sampler drops."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

__all__ = ["RecordAll"]


class RecordAll(Sampler):
    """Record what another sampler drops, without sampling it: processors see all spans, exporters the sample.

    Args:
        inner: the sampler that decides what is exported.
    """

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner
        self.active = True
        """Whether it does anything; tracers keep their sampler, so it cannot be taken away from them."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Ask the inner sampler, and turn DROP into RECORD_ONLY."""
        result = self.inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if result.decision is not Decision.DROP or not self.active:
            return result
        # Samplers that drop a span return no attributes, and those that it was started with would be lost.
        return SamplingResult(Decision.RECORD_ONLY, result.attributes or attributes, result.trace_state)

    def get_description(self) -> str:
        """`RecordAll(…)`."""
        return f"RecordAll({self.inner.get_description()})"
