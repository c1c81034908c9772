"""What others read of us, by their own definitions: spans, expositions, JSON lines. `make conformance` runs these.

The conventions of spans are those of github.com/open-telemetry/semantic-conventions-genai, `model/gen-ai`, of 2026-11.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _servers import require_binary
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

from taskpilot_obs import (
    observe_agent,
    observe_tool,
    observe_workflow,
    record_feedback,
    record_policy_violation,
    request_context,
    track_llm,
)
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.integration import Recorder
from taskpilot_obs.testing import fresh_recorder

pytestmark = pytest.mark.conformance

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
TYPES: dict[str, type] = {
    "error.type": str,
    "gen_ai.agent.name": str,
    "gen_ai.conversation.id": str,
    "gen_ai.input.messages": str,
    "gen_ai.operation.name": str,
    "gen_ai.output.messages": str,
    "gen_ai.provider.name": str,
    "gen_ai.request.max_tokens": int,
    "gen_ai.request.model": str,
    "gen_ai.request.stream": bool,
    "gen_ai.request.temperature": float,
    "gen_ai.response.finish_reasons": tuple,
    "gen_ai.response.id": str,
    "gen_ai.response.model": str,
    "gen_ai.response.time_to_first_chunk": float,
    "gen_ai.tool.call.arguments": str,
    "gen_ai.tool.call.id": str,
    "gen_ai.tool.call.result": str,
    "gen_ai.tool.name": str,
    "gen_ai.tool.type": str,
    "gen_ai.usage.cache_read.input_tokens": int,
    "gen_ai.usage.cache_write.input_tokens": int,
    "gen_ai.usage.input_tokens": int,
    "gen_ai.usage.output_tokens": int,
    "gen_ai.usage.reasoning.output_tokens": int,
    "gen_ai.workflow.name": str,
}
NEWER = {"gen_ai.usage.cache_write.input_tokens"}
"""The convention has renamed `cache_creation`; the package that the SDK brings along does not know it yet."""


class Convention(NamedTuple):
    """What a span of an operation has."""

    kind: SpanKind
    named_by: str
    """The attribute behind the operation in the span's name."""
    required: frozenset[str]


OPERATIONS = {
    "chat": Convention(
        SpanKind.CLIENT,
        "gen_ai.request.model",
        frozenset({"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"}),
    ),
    "execute_tool": Convention(
        SpanKind.INTERNAL, "gen_ai.tool.name", frozenset({"gen_ai.operation.name", "gen_ai.tool.name"})
    ),
    "invoke_agent": Convention(
        SpanKind.INTERNAL, "gen_ai.agent.name", frozenset({"gen_ai.operation.name", "gen_ai.agent.name"})
    ),
    "invoke_workflow": Convention(
        SpanKind.INTERNAL, "gen_ai.workflow.name", frozenset({"gen_ai.operation.name", "gen_ai.workflow.name"})
    ),
}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "42"}}],
    "usage": {
        "prompt_tokens": 150,
        "completion_tokens": 50,
        "total_tokens": 200,
        "prompt_tokens_details": {"cached_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 8},
    },
}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def worked(exporter: InMemorySpanExporter, tmp_path: Path) -> Iterator[Recorder]:
    """A recorder with everything on, in which one of each kind has happened."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with fresh_recorder(
        tracer_provider=provider,
        capture_content=True,
        audit_log=tmp_path / "audit.jsonl",
        registry=CollectorRegistry(),
        service='a "service" of many\nlines \\ and é',
    ) as recorder:
        _work()
        assert recorder.flush()
        yield recorder


def _work() -> None:
    @observe_tool
    def search(query: str) -> str:
        return query

    @observe_agent("Planner")
    def plan(request: str) -> str:
        with track_llm(provider="openai", model="gpt-4o", max_output_tokens=100) as call:
            call.set_input(request)
            call.first_token()
            call.record_response(ANSWER)
        return search(request)

    @observe_tool
    def broken() -> None:
        raise TimeoutError("too late")

    @observe_workflow
    def handle(request: str) -> str:
        answer = plan(request)
        record_policy_violation("no-refunds", severity="high")
        with pytest.raises(TimeoutError):
            broken()
        return answer

    with request_context("req-1", tenant_id="acme", user_id="u", session_id="thread-7"):
        handle('why "42"\u2028?')
        record_feedback(correct=True)


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_names_of_attributes_are_published(worked: Recorder, exporter: InMemorySpanExporter) -> None:
    """Whatever stands on a span beneath `gen_ai.` or `error.` is in the conventions' own package, or newer than it."""
    published = {value for name, value in vars(gen_ai_attributes).items() if name.isupper() and isinstance(value, str)}
    published |= {error_attributes.ERROR_TYPE} | NEWER
    used = {name for span in exporter.get_finished_spans() for name in _attributes(span)}
    ours = {name for name in used if name.startswith(("gen_ai.", "error."))}
    assert len(ours) >= 15
    assert ours <= published
    assert {name for name in used - ours if not name.startswith("taskpilot.")} == set()


def test_types_of_attributes(worked: Recorder, exporter: InMemorySpanExporter) -> None:
    """Strings, whole numbers, fractions and lists as the registry states them."""
    for span in exporter.get_finished_spans():
        for name, value in _attributes(span).items():
            if name.startswith(("gen_ai.", "error.")):
                assert type(value) is TYPES[name], (span.name, name, value)


def test_spans_have_the_names_kinds_and_attributes_of_their_operations(
    worked: Recorder, exporter: InMemorySpanExporter
) -> None:
    """`{operation} {name}`, CLIENT for models and INTERNAL for the rest, and what is required."""
    seen = set()
    for span in exporter.get_finished_spans():
        found = _attributes(span)
        operation = found["gen_ai.operation.name"]
        convention = OPERATIONS[operation]
        assert span.name == f"{operation} {found[convention.named_by]}"
        assert span.kind is convention.kind
        assert convention.required <= set(found)
        seen.add(operation)
    assert seen == set(OPERATIONS)


def test_an_error_has_its_class_and_status(worked: Recorder, exporter: InMemorySpanExporter) -> None:
    """`error.type` stands where the operation failed, with the status ERROR, and nowhere else."""
    failed = {
        span.name: _attributes(span) for span in exporter.get_finished_spans() if "error.type" in _attributes(span)
    }
    assert {name: found["error.type"] for name, found in failed.items()} == {"execute_tool broken": "TimeoutError"}
    with_status = {span.name for span in exporter.get_finished_spans() if span.status.status_code is StatusCode.ERROR}
    assert with_status == set(failed)


def test_messages_are_those_of_the_convention(worked: Recorder, exporter: InMemorySpanExporter) -> None:
    """A list of messages, each with a role and typed parts, as JSON."""
    (call,) = [_attributes(span) for span in exporter.get_finished_spans() if span.name.startswith("chat")]
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        for message in json.loads(call[name]):
            assert isinstance(message["role"], str)
            assert all(isinstance(part["type"], str) for part in message["parts"])
    assert json.loads(call["gen_ai.output.messages"])[0]["finish_reason"] == "stop"


@pytest.mark.parametrize("accept", ["text/plain", OPEN_METRICS])
def test_the_exposition_by_the_reference_parsers(worked: Recorder, accept: str) -> None:
    """prometheus_client's own parsers read every family, OpenMetrics' strictly."""
    body, _ = render(worked.registry, accept)
    parse = openmetrics if accept == OPEN_METRICS else prometheus_text
    names = {family.name for family in parse(body.decode())}
    assert {"workflow_runs", "llm_requests", "llm_tokens"} <= {name.removesuffix("_total") for name in names}


def test_the_exposition_by_promtool(worked: Recorder) -> None:
    """Prometheus' own parser and linter have nothing to say."""
    body, _ = render(worked.registry, "text/plain")
    done = subprocess.run(
        [require_binary("promtool"), "check", "metrics"], input=body, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_exposition_by_prometheus_storage(worked: Recorder, tmp_path: Path) -> None:
    """Our OpenMetrics, with the time of a scrape, becomes blocks of Prometheus' storage."""
    body, _ = render(worked.registry, OPEN_METRICS)
    (tmp_path / "scrape.om").write_bytes(_timed(body.decode()).encode())
    command = [require_binary("promtool"), "tsdb", "create-blocks-from", "openmetrics"]
    done = subprocess.run(
        [*command, str(tmp_path / "scrape.om"), str(tmp_path / "data")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _timed(text: str) -> str:
    """Samples with a time: back-filling needs one. Exemplars are left out, because it takes none."""
    lines = []
    for line in text.splitlines():
        sample = line.partition(" # ")[0]
        lines.append(line if line.startswith("#") else f"{sample} 1796000000")
    return "\n".join(lines) + "\n"


def test_json_lines_by_a_strict_reader(worked: Recorder, tmp_path: Path) -> None:
    """Each line of the audit log is one object in ASCII, without a name twice, NaN or Infinity."""
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 9
    for line in lines:
        assert line.isascii()
        assert line.endswith(b"}\n")
        json.loads(line, object_pairs_hook=_unique, parse_constant=_refused)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))
    return dict(pairs)


def _refused(text: str) -> None:
    raise AssertionError(text)
