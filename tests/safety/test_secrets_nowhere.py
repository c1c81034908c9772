"""Secrets planted in every field, and looked for in every output."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from taskpilot_obs import (
    observe_agent,
    record_audit_event,
    record_decision,
    record_feedback,
    record_guardrail_block,
    record_policy_violation,
    request_context,
    track_llm,
    track_tool,
)
from taskpilot_obs.testing import fresh_recorder

SECRETS = st.sampled_from(
    [
        "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH",
        "jane.doe@example.org",
        "4111 1111 1111 1111",
        "DE89370400440532013000",
        "postgres://admin:hunter2secret@db.internal:5432/prod",
        "Bearer abcdef0123456789abcdef0123456789",
        "AKIAIOSFODNN7EXAMPLE",
    ]
)
AROUND = st.text(" abcé\n.,", max_size=20)


@pytest.mark.promise("content-off")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_a_secret_planted_anywhere_is_found_nowhere(tmp_path: Path, secret: str, before: str, after: str) -> None:
    """Whatever field a secret is planted in, its bytes are in no audit line, span, metric or log record."""
    text = f"{before} {secret} {after}"
    path = tmp_path / f"audit{abs(hash(text))}.jsonl"
    spans, provider, logged = InMemorySpanExporter(), TracerProvider(), io.StringIO()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    handler = logging.StreamHandler(logged)
    logging.getLogger("taskpilot_obs").addHandler(handler)
    try:
        with fresh_recorder(audit_log=path, tracer_provider=provider, capture_content=True) as recorder:
            with request_context("req-1", note=text):
                plant(text)
            assert recorder.flush()
            assert recorder.registry is not None
            metrics = generate_latest(recorder.registry).decode()
    finally:
        logging.getLogger("taskpilot_obs").removeHandler(handler)
    everything = {
        "audit": path.read_text(),
        "spans": "".join(span.to_json() for span in spans.get_finished_spans()),
        "metrics": metrics,
        "logs": logged.getvalue(),
    }
    assert "REDACTED" in everything["audit"]
    assert "REDACTED" in everything["spans"]
    for output, content in everything.items():
        assert secret not in content, output
        assert secret.replace(" ", "") not in content, output


def plant(text: str) -> None:
    """Say it as input, output, argument, attribute, error, reason and event."""
    observe_agent("a")(lambda value, *, key: {"nested": [value, key]})(text, key=text)
    observe_agent("s")(lambda value: value)(text)
    with track_tool("t", attributes={"arg": text}) as tool:
        tool.set_attribute("late", text)
        tool.set_output({text: text})
    with pytest.raises(ValueError), track_llm(model="gpt-4o", attributes={"prompt": text}):
        raise ValueError(text)
    record_policy_violation("p", reason=text, attributes={"why": text})
    record_guardrail_block("g", reason=text)
    record_decision("d", "allow", reason=text)
    record_feedback("req-1", correct=True, attributes={"comment": text})
    record_audit_event("task.created", title=text)
