"""With content capture on, a secret that is planted in every place comes out of none."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from taskpilot_obs._api.blocks import track_agent
from taskpilot_obs._api.decorators import observe_agent, observe_llm, observe_tool, observe_workflow
from taskpilot_obs.config import configure
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Decision, Invocation, Started
from taskpilot_obs.safety import Rule, check_with, deny
from taskpilot_obs.testing import capture_records, fresh_recorder

SECRETS = (
    "sk-proj-Zx9w8v7u6t5s4r3q2p1o0n9m8l7k6j5i4h3g2f1e",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "postgresql://app:s3cr3t@db.internal:5432/prod",
    "jane.doe@example.com",
    "4111111111111111",
    "DE89370400440532013000",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.dBjftJeZ4CVPmB92K27uhbUJU1p1r",
)


class FailureError(Exception):
    """An application's own error, with the secret in its text."""


def quote(subject: Any) -> Any:
    return deny(f"said {subject.text}")


@observe_tool("tool", policies=[quote])
def tool(said: Any, *, options: Any) -> Any:
    return {"answer": [said], "options": options}


@observe_tool("broken")
def broken(said: Any) -> None:
    try:
        raise KeyError(said)
    except KeyError as error:
        raise FailureError(f"could not: {said}") from error


@observe_llm(model="gpt-4o")
def llm(messages: Any) -> Any:
    return {"model": "gpt-4o", "choices": [{"message": {"content": messages[0]["content"]}}]}


@observe_agent("stream", guardrails=[check_with(quote, stages="output")])
def stream(said: Any) -> Any:
    yield said[: len(said) // 2]
    yield said[len(said) // 2 :]


@observe_agent("astream")
async def astream(said: Any) -> Any:
    yield f"<{said}>"


async def read(said: Any) -> Any:
    return [item async for item in astream(said)]


@observe_workflow("task")
def task(said: Any) -> None:
    tool(said, options={"nested": [{"deep": said}]})
    llm([{"role": "user", "content": said}])
    list(stream(f" {said} "))
    asyncio.run(read(said))
    with track_agent("tracked") as run:
        run.set_input([said])
        run.set_output({"said": said})
    broken(said)


def everything(said: Any, folder: Any) -> Any:
    """Run the task with this text in every place; all that comes out, as one text."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    audit = folder / "audit.jsonl"
    audit.unlink(missing_ok=True)
    with fresh_recorder(capture_content=True, audit_log=audit, tracer_provider=provider) as recorder:
        with (
            capture_records(Started, recorder) as started,
            capture_records(Invocation, recorder) as ended,
            capture_records(Decision, recorder) as decided,
        ):
            with pytest.raises(FailureError):
                task(said)
            records = repr([list(started), list(ended), list(decided)])
        assert recorder.flush()
        metrics = generate_latest(recorder.registry or CollectorRegistry()).decode()
    lines = audit.read_text()
    assert [json.loads(line) for line in lines.splitlines()]
    shown = "\n".join(span.to_json() for span in spans.get_finished_spans())
    assert "[REDACTED:" in records
    assert "[REDACTED:" in lines
    assert "[REDACTED:" in shown
    return f"{records}\n{lines}\n{shown}\n{metrics}"


@pytest.mark.promise("content-off")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SECRETS),
    st.sampled_from(["", "hello ", "é ", '{"x": "', "a=1&b="]),
    st.sampled_from(["", " bye", '"}', "\n"]),
)
def test_a_planted_secret_comes_out_nowhere(tmp_path: Any, caplog: Any, secret: Any, before: Any, after: Any) -> None:
    """Not in records, the audit file, spans with their events and status, the metrics or the library's own log."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        out = everything(f"{before}{secret}{after}", tmp_path)
    assert secret not in out
    assert secret not in caplog.text


def test_own_rules_and_skipped_kinds_are_configured(recorder: Any) -> None:
    """`configure(redaction_rules=…, redaction_skip=…)` reaches what is captured; a wrong one is refused."""
    employee = Rule.pattern("employee", re.compile(r"E\d{6}"))
    options: Any = {"redaction_rules": [employee], "redaction_skip": ["email"], "capture_content": True}
    with fresh_recorder(**options) as own, capture_records(Invocation, own) as ended:
        observe_agent("Agent")(str.upper)("a@b.io E123456 sk-proj-Zx9w8v7u6t5s4r3q2p1o")
        assert ended[0].input_text is not None
        assert "a@b.io [REDACTED:employee] [REDACTED:api_key]" in ended[0].input_text
    for wrong in ({"redaction_rules": ["E"]}, {"redaction_skip": ["phone"]}):
        given: Any = {**options, **wrong}
        with pytest.raises(ConfigurationError, match=r"rules|skip"):
            configure(**given)
    assert recorder.runtime.redactor is None
