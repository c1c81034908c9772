"""What is captured of calls, streams and responses once content capture is on, in records and on spans."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskpilot_obs import observe_agent, observe_llm, observe_tool, track_llm
from taskpilot_obs.records import Invocation, Started
from taskpilot_obs.safety.redaction import Redactor
from taskpilot_obs.testing import capture_invocations, capture_records, fresh_recorder

PASSWORD = "hunter2"  # noqa: S105  the one that must not be shown
HIDDEN = "[REDACTED:secret]"
KEY = "sk-proj-Zx9w8v7u6t5s4r3q2p1o0n9m8l7k6j5i4h3g2f1e"


class Client:
    def __repr__(self) -> str:
        raise AssertionError("the repr of an application's object is not called")

    @observe_tool
    def connect(self, host: str, password: str) -> str:
        return "ok"

    @classmethod
    @observe_tool
    def of(cls, token: str) -> str:
        return "ok"

    @staticmethod
    @observe_tool
    def plain(pin: str, /, *rest: str, **more: str) -> str:
        return "ok"


@observe_tool
def connect(host: str, password: str = "unused") -> str:  # noqa: S107  a default that is not passed
    return "ok"


@observe_tool
async def connect_later(host: str, password: str) -> str:
    return "ok"


@observe_tool
def connect_in_steps(host: str, password: str) -> Iterator[str]:
    yield "ok"


def captured(*calls: Any) -> list[Invocation]:
    with fresh_recorder(capture_content=True), capture_invocations() as seen:
        for call in calls:
            call()
    return list(seen)


def test_arguments_have_the_names_of_their_parameters() -> None:
    """However an argument is passed, it is kept under its parameter's name, and a secret is hidden by it."""
    same = captured(
        lambda: connect("db", "hunter2"),
        lambda: connect("db", password=PASSWORD),
        lambda: connect(password=PASSWORD, host="db"),
        lambda: Client().connect("db", "hunter2"),
        lambda: asyncio.run(connect_later("db", "hunter2")),
        lambda: list(connect_in_steps("db", "hunter2")),
    )
    assert [json.loads(run.input_text or "") for run in same] == [{"host": "db", "password": HIDDEN}] * 6
    others = captured(
        lambda: connect("db"),
        lambda: Client.of("hunter2"),
        lambda: Client.plain("1234", "a", "b", api_key="hunter2"),
        lambda: connect(Client(), "x"),  # type: ignore[arg-type]  # an object
    )
    assert [json.loads(run.input_text or "") for run in others] == [
        {"host": "db"},
        {"token": HIDDEN},
        {"pin": HIDDEN, "rest": ["a", "b"], "api_key": HIDDEN},
        {"host": "<Client>", "password": HIDDEN},
    ]


def test_an_open_run_shows_its_input() -> None:
    """The record of a run's start holds what it was given, with secrets hidden, while the run goes on."""
    shown = []

    @observe_tool
    def look(host: str, password: str) -> None:
        shown.append([json.loads(start.input_text or "") for start in starts])

    with fresh_recorder(capture_content=True), capture_records(Started) as starts:
        look("db", PASSWORD)
    assert shown == [[{"host": "db", "password": HIDDEN}]]


def test_arguments_that_do_not_fit() -> None:
    """A call with wrong arguments fails as it would, and nothing of it is shown in clear."""
    with fresh_recorder(capture_content=True), capture_invocations() as seen, pytest.raises(TypeError):
        connect("db", "hunter2", "more")  # type: ignore[call-arg]  # on purpose
    assert "hunter2" not in str(list(seen))


CHUNKS: dict[str, list[Any]] = {
    "text": ["Hel", "lo"],
    "messages": [AIMessageChunk(content="Hel"), AIMessageChunk(content="lo")],
    "mappings": [{"content": "Hel"}, {"content": "lo"}],
    "objects": [SimpleNamespace(content="Hel"), SimpleNamespace(content="lo")],
    "bytes": [b"Hel", b"lo"],
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_streams_of_any_item_type(kind: str) -> None:
    """The text in the items of a stream is kept whatever the items are, sync and async, to the end or not."""

    @observe_agent
    def stream() -> Iterator[Any]:
        yield from CHUNKS[kind]

    @observe_agent
    async def astream() -> AsyncIterator[Any]:
        for chunk in CHUNKS[kind]:
            yield chunk

    async def consume() -> None:
        assert [item async for item in astream()] == CHUNKS[kind]

    runs = captured(lambda: list(stream()), lambda: asyncio.run(consume()), lambda: next(stream()))
    assert [run.output_text for run in runs] == ["Hello", "Hello", "Hel"]


@pytest.mark.parametrize("make", [str, lambda text: AIMessageChunk(content=text), lambda text: {"content": text}])
def test_a_secret_that_is_split_over_the_chunks_of_a_list(make: Any) -> None:
    """A secret split over the items of a returned list is hidden, as it is over those of a stream."""

    @observe_agent
    def answer() -> list[Any]:
        return [make("the key is "), make(KEY[:20]), make(KEY[20:]), make(", keep it")]

    (run,) = captured(answer)
    assert KEY[:20] not in str(run)
    assert KEY[20:] not in str(run)
    assert "the key is [REDACTED:api_key], keep it" in (run.output_text or "")
    assert Redactor().value(["one", "two"]) == '["one", "two"]'


def test_a_block_keeps_prompt_and_answer() -> None:
    """`track_llm` with `record_response` keeps the prompt and the answer; what is stated wins over what is observed."""
    response = {"choices": [{"message": {"role": "assistant", "content": "Paris"}}], "usage": {"prompt_tokens": 1}}
    with fresh_recorder(capture_content=True), capture_invocations() as seen:
        with track_llm(model="gpt-4o") as call:
            call.set_input([{"role": "user", "content": "The capital of France?"}])
            call.record_response(response)
        with track_llm(model="gpt-4o") as call:
            call.set_output("stated")
            call.record_response(response)
    first, second = seen
    assert "The capital of France?" in (first.input_text or "")
    assert "Paris" in (first.output_text or "")
    assert second.output_text == "stated"


@observe_agent
def stated() -> str:
    from taskpilot_obs import current_run

    run = current_run()
    assert run is not None
    run.set_output("stated")
    return "returned"


def test_a_stated_output_wins_over_a_returned_one() -> None:
    """`set_output` within a decorated function wins over what the function returns."""
    (run,) = captured(stated)
    assert run.output_text == "stated"


@observe_llm(model="gpt-4o")
def ask(messages: Any, temperature: float = 0.0) -> Any:
    return {
        "model": "gpt-4o",
        "choices": [
            {
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "Looking it up",
                    "tool_calls": [
                        {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Paris", "api_key": "x9"}'}}
                    ],
                },
            }
        ],
    }


PROMPTS: dict[str, Any] = {
    "OpenAI": [{"role": "system", "content": "Be short"}, {"role": "user", "content": "Weather? password=hunter2"}],
    "parts": [
        {"role": "system", "content": "Be short"},
        {"role": "user", "content": [{"type": "text", "text": "Weather? password=hunter2"}]},
    ],
    "LangChain": [
        SimpleNamespace(type="system", content="Be short"),
        HumanMessage(content="Weather? password=hunter2"),
    ],
    "Gemini": [
        {"role": "system", "parts": [{"text": "Be short"}]},
        {"role": "user", "parts": [{"text": "Weather? password=hunter2"}]},
    ],
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_messages_on_spans_have_the_form_of_the_convention(kind: str) -> None:
    """With content capture `gen_ai.input.messages` and `gen_ai.output.messages` are on the spans, redacted."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with fresh_recorder(capture_content=True, tracer_provider=provider):
        ask(PROMPTS[kind])
    (span,) = exporter.get_finished_spans()
    asked = json.loads(str((span.attributes or {})["gen_ai.input.messages"]))
    assert asked == [
        {"role": "system", "parts": [{"type": "text", "content": "Be short"}]},
        {"role": "user", "parts": [{"type": "text", "content": f"Weather? password={HIDDEN}"}]},
    ]
    (answer,) = json.loads(str((span.attributes or {})["gen_ai.output.messages"]))
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "tool_calls")
    call, text = answer["parts"]
    assert (call["type"], call["id"], call["name"]) == ("tool_call", "c1", "weather")
    assert json.loads(call["arguments"]) == {"city": "Paris", "api_key": HIDDEN}
    assert text == {"type": "text", "content": "Looking it up"}


@pytest.mark.promise("content-off")
def test_no_messages_on_spans_without_content_capture() -> None:
    """Content capture is off by default, and then no span carries a message."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with fresh_recorder(tracer_provider=provider):
        ask(PROMPTS["OpenAI"])
    (span,) = exporter.get_finished_spans()
    assert not [key for key in span.attributes or {} if "messages" in key or "taskpilot.input" in key]
