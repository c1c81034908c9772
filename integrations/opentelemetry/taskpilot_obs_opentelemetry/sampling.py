"""A sampler that lets span processors see what the application's sampler drops."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

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

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """Ask the inner sampler, and turn DROP into RECORD_ONLY."""
        result = self.inner.should_sample(*args, **kwargs)
        if result.decision is not Decision.DROP or not self.active:
            return result
        return SamplingResult(Decision.RECORD_ONLY, result.attributes, result.trace_state)

    def get_description(self) -> str:
        """`RecordAll(…)`."""
        return f"RecordAll({self.inner.get_description()})"
