"""OpenAI's own instrumentation beside an adapter, with its spans sent through the bridge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from taskpilot_obs.integration import Recorder


@contextmanager
def openai_spans_bridged(recorder: Recorder) -> Iterator[None]:
    """Let OpenAI's instrumentor write spans and the bridge read them; skips where the instrumentor is missing."""
    genai = pytest.importorskip("opentelemetry.instrumentation.genai.openai", reason="needs OpenAI's instrumentor")
    from opentelemetry.sdk.trace import TracerProvider
    from taskpilot_obs_opentelemetry import GenAiBridge

    spans = TracerProvider()
    spans.add_span_processor(GenAiBridge(recorder=recorder))
    instrumentor = genai.OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=spans)
    try:
        yield
    finally:
        instrumentor.uninstrument()
        spans.shutdown()
