"""Live spans, through the real OpenTelemetry SDK."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any
from unittest.mock import Mock

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceState
from opentelemetry.util.types import Attributes

from taskpilot_obs import (
    LogContextFilter,
    observe_agent,
    observe_tool,
    observe_workflow,
    record_policy_violation,
    request_context,
    track_agent,
    track_llm,
    track_tool,
    track_workflow,
)
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.spans import installed_provider
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.records import Decision as DecisionRecord
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.safety import CheckInput, DenyWords
from taskpilot_obs.semconv import Attr
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def traced(provider: TracerProvider) -> Iterator[Recorder]:
    with fresh_recorder(tracer_provider=provider) as recorder:
        yield recorder


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def attributes(span: ReadableSpan) -> Mapping[str, object]:
    assert span.attributes is not None
    return span.attributes


def identity(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def parent_id(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def test_the_tree_of_spans(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """Workflow, agent, LLM call and tool are spans with the names, kinds and parents of the GenAI conventions."""

    @observe_tool("create_task")
    def tool() -> None: ...

    @observe_agent("PlannerAgent")
    async def plan() -> None:
        async with track_llm(model="gpt-4o") as call:
            call.record_usage(input_tokens=150, output_tokens=50, cache_read_tokens=20)
        tool()

    @observe_workflow
    async def handle() -> None:
        await plan()

    with request_context("req-1", tenant_id="acme", user_id="u", session_id="thread-7", task_id="t-1"):
        asyncio.run(handle())
    spans = by_name(exporter)
    root = spans["invoke_workflow handle"]
    agent, call, used = spans["invoke_agent PlannerAgent"], spans["chat gpt-4o"], spans["execute_tool create_task"]
    assert root.parent is None
    assert parent_id(agent) == identity(root).span_id
    assert parent_id(call) == parent_id(used) == identity(agent).span_id
    assert {identity(span).trace_id for span in spans.values()} == {identity(root).trace_id}
    assert [span.kind for span in (root, agent, call, used)] == [
        SpanKind.INTERNAL,
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
        SpanKind.INTERNAL,
    ]
    assert attributes(root)[Attr.REQUEST_ID] == "req-1"
    assert attributes(root)[Attr.TENANT_ID] == "acme"
    assert attributes(root)[Attr.CONVERSATION_ID] == "thread-7"
    assert attributes(root)[Attr.USER_PREFIX + "task_id"] == "t-1"
    assert attributes(call)[Attr.INPUT_TOKENS] == 150
    assert attributes(call)[Attr.CACHE_READ_TOKENS] == 20
    assert attributes(agent)[Attr.ROLLUP_TOOL_CALLS] == attributes(root)[Attr.ROLLUP_TOOL_CALLS] == 1
    assert attributes(root)[Attr.ROLLUP_INPUT_TOKENS] == 150
    assert attributes(root)[Attr.ROLLUP_LLM_CALLS] == 1


def test_cost_on_spans(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """A priced call has its cost on its span, and its agent the sum; an unpriced one has none."""
    with track_agent("a"):
        with track_llm(model="gpt-4o") as call:
            call.record_usage(input_tokens=150, output_tokens=50)
            call.record_model("gpt-4o-2024-08-06")
            call.first_token()
        with track_llm(model="m", provider="p") as call:
            call.set_cost("0.5")
    with track_agent("b"), track_llm(model="unknown-model") as call:
        call.record_usage(input_tokens=1)
    spans = by_name(exporter)
    assert attributes(spans["chat gpt-4o"])[Attr.COST] == pytest.approx(0.000875)
    assert attributes(spans["chat gpt-4o"])[Attr.RESPONSE_MODEL] == "gpt-4o-2024-08-06"
    assert attributes(spans["chat gpt-4o"])[Attr.REQUEST_STREAM]
    assert attributes(spans["chat m"])[Attr.COST] == 0.5
    assert attributes(spans["invoke_agent a"])[Attr.ROLLUP_COST] == pytest.approx(0.500875)
    assert Attr.COST not in attributes(spans["chat unknown-model"])
    assert Attr.ROLLUP_COST not in attributes(spans["invoke_agent b"])


def test_samplers_see_the_attributes(exporter: InMemorySpanExporter) -> None:
    """What is known at the start is there when the sampler decides."""
    sampled: list[dict[str, object]] = []

    class Looking(Sampler):
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
            sampled.append(dict(attributes or {}))
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

        def get_description(self) -> str:
            return "looks"

    with fresh_recorder(tracer_provider=TracerProvider(sampler=Looking())), request_context("req-1"):
        with track_llm(model="gpt-4o", attributes={"prompt_name": "greet"}):
            pass
        with track_tool("t"):
            pass
    assert sampled == [
        {
            Attr.OPERATION: "chat",
            Attr.USER_PREFIX + "prompt_name": "greet",
            Attr.REQUEST_ID: "req-1",
            Attr.PROVIDER: "openai",
            Attr.REQUEST_MODEL: "gpt-4o",
        },
        {Attr.OPERATION: "execute_tool", Attr.TOOL_NAME: "t", Attr.REQUEST_ID: "req-1"},
    ]


def test_errors_on_spans_tell_the_type_and_nothing_else(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """A failed run's span has the exception's type; its text, which may hold content, stays out."""
    with pytest.raises(ValueError), track_agent("a"):
        raise ValueError("my secret prompt")
    span = by_name(exporter)["invoke_agent a"]
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)[Attr.ERROR_TYPE] == "ValueError"
    assert [event.name for event in span.events] == ["exception"]
    assert "secret" not in span.to_json()


def test_decisions_are_events_of_the_run_that_they_are_about(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """Violations and what guardrails decide are events of the run's span; a policy that allows is none."""

    def short(subject: CheckInput) -> bool:
        return len(subject.text) < 10

    policies = [DenyWords(["bomb"]), DenyWords(["quiet"], name="other")]

    @observe_agent("monitored", policies=policies, guardrails=[short], mode="monitor")
    def monitored(question: str) -> str:
        return question

    @observe_agent("enforced", policies=policies, mode="enforce")
    def enforced(question: str) -> str:
        return question

    monitored("a bomb")
    with pytest.raises(PolicyViolationError):
        enforced("a bomb")
    spans = by_name(exporter)
    keys = [f"taskpilot.decision.{name}" for name in ("kind", "name", "verdict", "result", "stage")]

    def decisions(name: str) -> list[list[object]]:
        events = spans[name].events
        return [[(event.attributes or {})[key] for key in keys] for event in events if event.name == Attr.DECISION]

    assert decisions("invoke_agent monitored") == [
        ["policy", "deny_words", "deny", "would_block", "input"],
        ["guardrail", "short", "allow", "passed", "input"],
    ]
    assert decisions("invoke_agent enforced") == [["policy", "deny_words", "deny", "blocked", "input"]]


def test_messages_come_redacted_when_capture_is_on(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """With content capture on, message, input and output are there, without their secrets."""
    with (
        fresh_recorder(tracer_provider=provider, capture_content=True) as recorder,
        capture_invocations(recorder) as runs,
    ):
        agent: Callable[[str], str] = observe_agent("a")(lambda text: text.upper())
        assert agent("write to jane@example.org") == "WRITE TO JANE@EXAMPLE.ORG"
        with pytest.raises(ValueError), track_agent("b"):
            raise ValueError("cannot write to jane@example.org")

        @observe_agent("c")
        def stream() -> Generator[str]:
            yield "jane@exam"
            yield "ple.org"

        assert list(stream()) == ["jane@exam", "ple.org"]
        done, failed, streamed = runs
    assert done.input_text is not None
    assert streamed.output_length == 16
    for text in (done.input_text, done.output_text, failed.error_message, streamed.output_text):
        assert "example" not in (text or "").lower()
        assert "REDACTED" in (text or "")
    everything = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "jane@example.org" not in everything.lower()
    assert "REDACTED" in everything


@pytest.mark.parametrize(
    ("error", "status"), [(asyncio.CancelledError(), Status.CANCELLED), (GeneratorExit(), Status.ABANDONED)]
)
def test_what_is_no_failure_leaves_the_span_unset(
    traced: Recorder, exporter: InMemorySpanExporter, error: BaseException, status: Status
) -> None:
    """The span of a cancelled or abandoned run is not failed; its status stands as an attribute."""
    run = traced.start("invoke_agent", "a")
    run.fail(error)
    span = by_name(exporter)["invoke_agent a"]
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)[Attr.STATUS] == status.value


def test_other_spans_nest_beneath(traced: Recorder, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """A span that the application makes inside is a child of the run's span, also in the steps of a generator."""
    tracer = provider.get_tracer("app")

    @observe_agent("stream")
    def stream() -> Generator[int]:
        with tracer.start_as_current_span("inside"):
            pass
        yield 1

    @observe_agent("astream")
    async def astream() -> AsyncGenerator[int]:
        with tracer.start_as_current_span("ainside"):
            await asyncio.sleep(0)
        yield 1

    async def consume() -> None:
        async for _ in astream():
            assert trace.get_current_span() is trace.INVALID_SPAN

    list(stream())
    asyncio.run(consume())
    spans = by_name(exporter)
    assert parent_id(spans["inside"]) == identity(spans["invoke_agent stream"]).span_id
    assert parent_id(spans["ainside"]) == identity(spans["invoke_agent astream"]).span_id
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_explicit_parents_make_the_tree_of_callbacks(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """For callback-style integrations the parent is what is named, whatever is current."""
    root = traced.start("invoke_workflow", "root", parent=None)
    with track_agent("unrelated"):
        child = traced.start("invoke_agent", "child", parent=root)
        child.stop()
    root.stop()
    spans = by_name(exporter)
    assert parent_id(spans["invoke_agent child"]) == identity(spans["invoke_workflow root"]).span_id


def test_left_in_a_foreign_context_without_a_log_line(
    traced: Recorder, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """A block that ends in another context ends its span; OpenTelemetry has nothing to complain of."""

    async def outer() -> None:
        block = track_workflow("w")

        async def enter() -> None:
            block.__enter__()

        await asyncio.create_task(enter())
        block.__exit__(None, None, None)

    asyncio.run(outer())
    assert "invoke_workflow w" in by_name(exporter)
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_records_carry_the_ids_of_their_span(
    traced: Recorder, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """Invocations, decisions and log lines carry the trace and span ID under which they happened."""
    caplog.handler.addFilter(LogContextFilter())
    with capture_invocations(traced) as runs, capture_records(DecisionRecord, traced) as decisions:
        with track_agent("a"):
            record_policy_violation("p")
            logging.getLogger("app").warning("here")
        span = by_name(exporter)["invoke_agent a"]
        ids = (f"{identity(span).trace_id:032x}", f"{identity(span).span_id:016x}")
        assert (runs[0].trace_id, runs[0].span_id, runs[0].sampled) == (*ids, True)
        assert (decisions[0].origin.trace_id, decisions[0].origin.span_id) == ids
    logged = vars(caplog.records[-1])
    assert (logged["trace_id"], logged["span_id"]) == ids


def test_events_outside_of_a_run_carry_the_applications_span(traced: Recorder, provider: TracerProvider) -> None:
    """An event outside of any run belongs to the span that the application has made current."""
    with capture_records(DecisionRecord, traced) as decisions:
        with provider.get_tracer("app").start_as_current_span("mine") as span:
            record_policy_violation("p")
        assert decisions[0].origin.span_id == f"{span.get_span_context().span_id:016x}"


@pytest.mark.promise("every-run-counts")
def test_unsampled_spans_cost_no_attributes() -> None:
    """A span that is not recorded still gives its IDs, marked as unsampled."""
    with (
        fresh_recorder(tracer_provider=TracerProvider(sampler=ALWAYS_OFF)) as recorder,
        capture_invocations(recorder) as runs,
    ):
        with track_agent("a"), track_tool("t"):
            pass
        assert [run.sampled for run in runs] == [False, False]
        assert runs[0].trace_id is not None


def test_without_a_provider_there_are_no_spans(seen: Captured[Invocation], recorder: Recorder) -> None:
    """Without a tracer provider nothing of OpenTelemetry runs."""
    with track_agent("a") as run:
        assert run.span is None
    assert installed_provider() is None
    assert recorder.runtime.tracing is None
    assert seen[0].trace_id is None


def test_a_provider_that_comes_late_is_noticed(
    monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    """A provider that the application installs after its first run is used soon."""
    with fresh_recorder() as recorder:
        with track_agent("early"):
            pass
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
        recorder.pipeline._poll()
        with track_agent("late"):
            pass
        with fresh_recorder(tracing=False) as off:
            off.pipeline._poll()
            assert off.runtime.tracing is None
    assert list(by_name(exporter)) == ["invoke_agent late"]


class Misbehaving:
    """A tracer provider, its tracer and their spans in one, of which one method misbehaves."""

    def __init__(self, method: str, answer: Callable[..., object]) -> None:
        self._method, self._answer = method, answer

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name == self._method:
            return self._answer
        answers = {"get_tracer": self, "start_span": self, "get_span_context": trace.INVALID_SPAN_CONTEXT}
        return lambda *_args, **_kwargs: answers.get(name, True)


SPAN_METHODS = ("is_recording", "set_attribute", "set_attributes", "set_status", "add_event", "end")


def raises(*_args: object, **_kwargs: object) -> object:
    """Raise."""
    raise RuntimeError


@pytest.mark.parametrize(
    "provider",
    [
        *(Misbehaving(method, raises) for method in ("get_tracer", "start_span", "get_span_context", *SPAN_METHODS)),
        *(Misbehaving("start_span", lambda *_args, held=held, **_kwargs: held) for held in (None, object(), Mock())),
    ],
    ids=lambda provider: provider._method,
)
def test_a_tracer_provider_that_misbehaves_costs_its_span_alone(
    provider: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever provider, tracer or span raise or return: results, exceptions and records are as without them."""
    with fresh_recorder(tracer_provider=provider) as recorder, capture_invocations(recorder) as runs:
        with track_agent("a") as run, track_llm(model="gpt-4o") as call:
            run.set_attribute("k", 1)
            call.record_usage(150, 50)
        with suppress(ValueError), track_agent("b"):
            record_policy_violation("p")
            raise ValueError
        assert [(run.name, run.status) for run in runs] == [("gpt-4o", "success"), ("a", "success"), ("b", "error")]
        assert runs[0].cost == Decimal("0.000875")
    assert "span" in caplog.text


def test_what_a_plain_function_only_began_is_one_span(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """A plain function that returns a coroutine: its span is current inside, and not between the call and the await."""

    async def later() -> str:
        return format(trace.get_current_span().get_span_context().span_id, "016x")

    @observe_agent("lazy")
    def begin() -> Coroutine[object, object, str]:
        return later()

    async def call() -> str:
        begun = begin()
        assert trace.get_current_span() is trace.INVALID_SPAN
        return await begun

    inside = asyncio.run(call())
    assert inside == format(identity(by_name(exporter)["invoke_agent lazy"]).span_id, "016x")


def test_a_parent_that_has_ended_is_still_the_parent(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """What outlives its agent is a child of the agent's span, and counts for the workflow that still runs."""
    root = traced.start("invoke_workflow", "w", parent=None)
    agent = traced.start("invoke_agent", "a", parent=root)
    agent.stop()
    call = traced.start_llm(model="gpt-4o", parent=agent)
    call.record_usage(input_tokens=150, output_tokens=50)
    call.stop()
    root.stop()
    spans = by_name(exporter)
    assert parent_id(spans["chat gpt-4o"]) == identity(spans["invoke_agent a"]).span_id
    assert attributes(spans["invoke_workflow w"])[Attr.ROLLUP_LLM_CALLS] == 1
    assert Attr.ROLLUP_LLM_CALLS not in attributes(spans["invoke_agent a"])


RESPONSE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200},
}


def test_what_a_response_says_stands_on_the_span(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """Model, ID, finish reasons and usage of a response are on the span, also of one that is to be read later."""
    with track_llm(model="gpt-4o") as call:
        call.read_later(RESPONSE)
    told = attributes(by_name(exporter)["chat gpt-4o"])
    assert (told[Attr.RESPONSE_ID], told[Attr.RESPONSE_MODEL]) == ("chatcmpl-1", "gpt-4o-2024-08-06")
    assert (told[Attr.RESPONSE_FINISH_REASONS], told[Attr.INPUT_TOKENS]) == (("stop",), 150)
    assert Attr.CACHED not in told


def test_a_cache_hit_on_a_span(traced: Recorder, exporter: InMemorySpanExporter) -> None:
    """A call that the application's cache answered reports it on its span, without tokens and cost."""
    with track_agent("a"), track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
        call.set_cached(True)
    spans = by_name(exporter)
    told = attributes(spans["chat gpt-4o"])
    assert told[Attr.CACHED] is True
    assert not {Attr.INPUT_TOKENS, Attr.COST} & told.keys()
    assert attributes(spans["invoke_agent a"])[Attr.ROLLUP_LLM_CALLS] == 1


def test_an_event_loop_never_waits_for_the_price_table(
    traced: Recorder, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the table is loaded a span that ends in an event loop has no cost; the record of the call has it."""
    monkeypatch.setattr("taskpilot_obs.pricing.library.start_loading", lambda: None)  # the helper has not come so far
    monkeypatch.setattr("taskpilot_obs.pricing.library._state.library", None)

    async def call() -> None:
        async with track_llm(model="gpt-4o") as running:
            running.record_usage(input_tokens=150, output_tokens=50)

    with capture_invocations(traced) as runs:
        asyncio.run(call())
        assert Attr.COST not in attributes(by_name(exporter)["chat gpt-4o"])
        assert runs[0].cost == Decimal("0.000875")


@pytest.mark.parametrize("imported", [True, False])
def test_where_no_event_loop_runs_a_span_waits_for_its_cost(
    traced: Recorder, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, imported: bool
) -> None:
    """Outside of an event loop, also if asyncio is not imported, a span has its cost from the first call on."""
    monkeypatch.setattr("taskpilot_obs.pricing.library.start_loading", lambda: None)
    monkeypatch.setattr("taskpilot_obs.pricing.library._state.library", None)
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
        if not imported:
            monkeypatch.delitem(sys.modules, "asyncio")
    monkeypatch.undo()
    assert attributes(by_name(exporter)["chat gpt-4o"])[Attr.COST] == pytest.approx(0.000875)


def test_an_attribute_is_on_the_span_at_once(traced: Recorder) -> None:
    """An attribute that is set while a run goes on can be read from its open span."""
    with track_agent("a", recorder=traced) as run:
        run.set_attribute("plan", "long")
        span = trace.get_current_span()
        assert isinstance(span, ReadableSpan)
        assert attributes(span)[Attr.USER_PREFIX + "plan"] == "long"
