"""Streams: each provider's rule for what its events add or replace, first tokens, and chunks of frameworks."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from openai.types.chat import ChatCompletionChunk

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage import StreamReader, Usage, read_response


def chunk(content: str | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of OpenAI's."""
    choices = (
        []
        if content is None and finish is None
        else [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]
    )
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": choices, **more}


def counts(given: int, generated: int) -> dict[str, int]:
    return {"prompt_tokens": given, "completion_tokens": generated, "total_tokens": given + generated}


STREAMS: dict[str, tuple[list[Any], Usage | None]] = {
    "OpenAI: the last chunk has the usage, and no choices": (
        [chunk(""), chunk("hi"), chunk(finish="stop", usage=None), chunk(usage=counts(10, 2))],
        Usage(10, 2),
    ),
    "OpenAI: the usage was not requested": ([chunk("hi"), chunk(finish="stop")], None),
    "DeepSeek: every chunk has the counts so far": (
        [chunk("a", usage=counts(10, 1)), chunk("b", usage=counts(10, 2)), chunk("c", usage=counts(10, 3))],
        Usage(10, 3),
    ),
    "Groq: usage in x_groq": (
        [chunk("a"), chunk(finish="stop", x_groq={"id": "r", "usage": counts(10, 2)})],
        Usage(10, 2),
    ),
    "Azure: the first chunk names no model": (
        [
            {"id": "", "model": "", "choices": [], "prompt_filter_results": [{}]},
            chunk("a"),
            chunk(usage=counts(10, 2)),
        ],
        Usage(10, 2),
    ),
    "Anthropic: message_delta replaces the placeholder": (
        [
            {
                "type": "message_start",
                "message": {
                    "id": "m",
                    "model": "claude-x",
                    "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 4},
                },
            },
            {"type": "ping"},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
            {"type": "message_stop"},
        ],
        Usage(100, 9, 90),
    ),
    "Anthropic: cut before the end": (
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}},
        ],
        Usage(10, None),
    ),
    "Gemini: cumulative, and the last chunk may lack a count": (
        [
            {
                "modelVersion": "gemini-x",
                "candidates": [{"content": {"parts": [{"text": "a"}]}}],
                "usageMetadata": {"promptTokenCount": 5, "thoughtsTokenCount": 90, "totalTokenCount": 95},
            },
            {
                "candidates": [{"content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 102},
            },
        ],
        Usage(5, 97, reasoning_tokens=90),
    ),
    "Bedrock Converse: metadata comes last": (
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "hi"}, "contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 10, "outputTokens": 2}, "metrics": {"latencyMs": 5}}},
        ],
        Usage(10, 2),
    ),
    "Bedrock invoke: bytes of boto3, and the provider's count before Bedrock's": (
        [
            {"chunk": {"bytes": json.dumps(event).encode()}}
            for event in (
                {"type": "message_start", "message": {"usage": {"input_tokens": 4, "cache_read_input_tokens": 6}}},
                {"type": "content_block_delta", "delta": {"text": "x"}},
                {"type": "message_delta", "usage": {"output_tokens": 3}},
                {
                    "type": "message_stop",
                    "amazon-bedrock-invocationMetrics": {"inputTokenCount": 4, "outputTokenCount": 3},
                },
            )
        ],
        Usage(10, 3, 6),
    ),
    "Bedrock invoke: base64 of the wire, metrics alone": (
        [
            {"bytes": base64.b64encode(json.dumps(event).encode()).decode()}
            for event in (
                {"outputText": "x", "index": 0},
                {"completion": "", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 4, "outputTokenCount": 3}},
            )
        ],
        Usage(4, 3),
    ),
    "Bedrock Llama: the prompt in the first chunk, the generation in each": (
        [
            {"generation": "a", "prompt_token_count": 26, "generation_token_count": 1},
            {"generation": "b", "prompt_token_count": None, "generation_token_count": 2},
            {"generation": "c", "prompt_token_count": None, "generation_token_count": 3, "stop_reason": "stop"},
        ],
        Usage(26, 3),
    ),
    "Cohere: message-end": (
        [
            {"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant"}}},
            {"type": "content-delta", "delta": {"message": {"content": {"text": "hi"}}}},
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "COMPLETE",
                    "usage": {"billed_units": {"input_tokens": 3, "output_tokens": 2}},
                },
            },
        ],
        Usage(3, 2),
    ),
    "Cohere v1: stream-end": (
        [
            {"event_type": "text-generation", "text": "hi"},
            {
                "event_type": "stream-end",
                "finish_reason": "COMPLETE",
                "response": {"text": "hi", "meta": {"billed_units": {"input_tokens": 3, "output_tokens": 2}}},
            },
        ],
        Usage(3, 2),
    ),
    "OpenAI responses: the completed response": (
        [
            {"type": "response.created", "response": {"id": "r", "model": "gpt-5", "usage": None}},
            {"type": "response.output_text.delta", "delta": "hi"},
            {
                "type": "response.completed",
                "response": {"id": "r", "model": "gpt-5", "usage": {"input_tokens": 3, "output_tokens": 2}},
            },
        ],
        Usage(3, 2),
    ),
    "Ollama: the done chunk": (
        [
            {"model": "llama3", "message": {"role": "assistant", "content": "hi"}, "done": False},
            {"model": "llama3", "message": {"content": ""}, "done": True, "prompt_eval_count": 3, "eval_count": 2},
        ],
        Usage(3, 2),
    ),
    "an event stream that was not decoded": (
        [
            "event: x",
            "data: " + json.dumps(chunk("hi")),
            "",
            b"data: " + json.dumps(chunk(usage=counts(3, 2))).encode(),
            "data: [DONE]",
        ],
        Usage(3, 2),
    ),
    "LangChain: chunks are made to be added": (
        [
            AIMessageChunk(content="", usage_metadata={"input_tokens": 10, "output_tokens": 0, "total_tokens": 10}),
            AIMessageChunk(content="hi"),
            AIMessageChunk(content="", usage_metadata={"input_tokens": 0, "output_tokens": 7, "total_tokens": 7}),
        ],
        Usage(10, 7),
    ),
    "LangChain: chunks that repeat the input hold the counts so far": (
        [
            AIMessageChunk(content="a", usage_metadata={"input_tokens": 12, "output_tokens": n, "total_tokens": 12 + n})
            for n in (1, 2, 3)
        ],
        Usage(12, 3),
    ),
    "LangChain: a chunk that was merged already": (
        [
            AIMessageChunk(content="a", usage_metadata={"input_tokens": 12, "output_tokens": 0, "total_tokens": 12})
            + AIMessageChunk(content="b", usage_metadata={"input_tokens": 0, "output_tokens": 3, "total_tokens": 3})
        ],
        Usage(12, 3),
    ),
    "LangChain: generation chunks, and LangGraph's pairs": (
        [
            ChatGenerationChunk(message=AIMessageChunk(content="a")),
            (
                AIMessageChunk(content="", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
                {"langgraph_node": "x"},
            ),
        ],
        Usage(1, 2),
    ),
}


@pytest.mark.parametrize("case", STREAMS)
def test_streams(case: str) -> None:
    """Each provider's rule for the usage of its stream; one event at a time, or all of them in a list."""
    events, expected = STREAMS[case]
    reader = StreamReader()
    content = [reader.feed(event) for event in events]
    reading = reader.reading()
    assert reading.usage == expected
    assert not reading.inconsistent
    assert any(content)
    assert read_response(events).usage == expected


FIRST_TOKENS: list[tuple[Any, bool]] = [
    (chunk(""), False),
    (chunk("hi"), True),
    ({"choices": [{"delta": {"reasoning_content": "hm"}}]}, True),
    ({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}, True),
    ({"choices": [{"text": "hi"}]}, True),
    ({"choices": []}, False),
    ({"choices": ["?"]}, False),
    ({"type": "message_start", "message": {"content": []}}, False),
    ({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, False),
    ({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}}, True),
    ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}, True),
    ({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1}}, False),
    ({"type": "response.created", "response": {}}, False),
    ({"type": "response.reasoning_summary_text.delta", "delta": "hm"}, True),
    ({"type": "content-delta", "delta": {}}, True),
    ({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]}, True),
    ({"candidates": [{"content": {"parts": [{"thoughtSignature": "x"}, {"text": "hi"}]}}]}, True),
    ({"candidates": [{"finishReason": "STOP"}]}, False),
    ({"type": "image_generation.partial_image", "b64_json": "x"}, True),
    ({"index": 1, "token": {"id": 1, "text": "hi"}, "generated_text": None, "details": None}, True),
    ({"contentBlockIndex": 0, "delta": {"text": "hi"}}, True),
    ({"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False}, True),
    ({"response": "hi", "done": False}, True),
    (AIMessageChunk(content=""), False),
    (AIMessageChunk(content="hi"), True),
    (AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": "", "id": "1", "index": 0}]), True),
    ("hi", True),
    ("", False),
    (": keep-alive", False),
    (None, False),
    ((), False),
]


@pytest.mark.parametrize(("event", "expected"), FIRST_TOKENS)
def test_what_counts_as_a_first_token(event: object, *, expected: bool) -> None:
    """Text, reasoning and pieces of tool calls count; frames, roles, usage and ends do not."""
    reader = StreamReader()
    reader.feed(chunk(""))
    assert reader.feed(event) is expected


def test_the_sdks_own_chunks() -> None:
    """The chunks of OpenAI's SDK, with fields that it does not know, read as their JSON does."""
    reader = StreamReader("groq")
    events = [chunk("hi"), chunk(finish="stop", x_groq={"usage": counts(10, 2)})]
    content = [reader.feed(ChatCompletionChunk.model_validate(event)) for event in events]
    assert content == [True, False]
    assert reader.reading()[:6] == (Usage(10, 2), "gpt-4o", "groq", None, "c", ("stop",))


def test_an_error_in_the_middle_is_a_finish_reason() -> None:
    """A stream with status 200 that ends in an error keeps the usage that it stated before."""
    reader = StreamReader("openai")
    reader.feed(chunk("hi", usage=counts(10, 1)))
    reader.feed({"error": {"message": "overloaded", "code": 503}})
    assert (reader.reading().usage, reader.reading().finish_reasons) == (Usage(10, 1), ("error",))


def test_a_langchain_chunk_with_broken_counts_is_flagged() -> None:
    """What the other chunks said stays; the finish reason comes with the last one."""
    reader = StreamReader()
    reader.feed(AIMessageChunk(content="a", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}))
    reader.feed({"type": "AIMessageChunk", "content": "", "usage_metadata": {"input_tokens": "?"}})
    for about in ({"model_name": "gpt-4o"}, {"finish_reason": "stop", "model_provider": "openai"}):
        reader.feed(AIMessageChunk(content="", response_metadata=about))
    reading = reader.reading()
    assert (reading.usage, reading.inconsistent) == (Usage(1, 2), True)
    assert (reading.model, reading.finish_reasons) == ("gpt-4o", ("stop",))


def test_a_fallback_block_names_the_model_that_goes_on() -> None:
    """Anthropic's switch to a fallback model is one whose parts have two prices; the model is the one that went on."""
    reader = StreamReader("anthropic")
    reader.feed({"type": "message_start", "message": {"model": "claude-a", "usage": {"input_tokens": 3}}})
    reader.feed({"type": "content_block_start", "content_block": {"type": "text"}})
    assert (reader.reading().model, reader.reading().gap) == ("claude-a", None)
    reader.feed({"type": "content_block_start", "content_block": {"type": "fallback", "to": {"model": "claude-b"}}})
    assert (reader.reading().model, reader.reading().gap) == ("claude-b", PriceGap.OTHER_MODEL)
    reader.feed({"type": "content_block_start", "content_block": {"type": "fallback"}})
    assert reader.reading().model == "claude-b"


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_model_is_looked_for_in_the_first_three_events(before: int) -> None:
    """An event of words alone names the model only at the beginning: later ones are not searched, to cost less."""
    reader = StreamReader()
    for _ in range(before):
        reader.feed({"choices": [{"delta": {"content": "a"}}]})
    reader.feed({"model": "gpt-4o", "choices": [{"delta": {"content": "a"}}]})
    assert reader.reading().model == ("gpt-4o" if before < 3 else None)


def test_an_unknown_stream_says_nothing() -> None:
    """No event, and events of no shape, leave everything unknown."""
    reader = StreamReader()
    assert reader.reading().usage is None
    for event in (object(), 3, [], {"x": 1}, b"\xff", {"bytes": "no base64"}):
        assert reader.feed(event) is False
    assert reader.reading().usage is None


@pytest.mark.parametrize(
    ("kind", "is_content"),
    [("text", False), ("thinking", False), ("reasoning", False), (None, False), ("tool_use", True)],
)
def test_a_block_that_opens_is_content_only_where_it_calls_a_tool(kind: str | None, is_content: bool) -> None:
    """The opening of a block of text or thoughts is not the first token yet; that of a tool call is."""
    for start, block in (("content_block_start", "content_block"), ("content-block-start", "content")):
        assert StreamReader().feed({"type": start, block: {"type": kind}}) is is_content
