"""Whole responses: each provider's shape, and what must not be counted twice."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from taskpilot_obs.usage import Reading, StreamReader, Usage, from_counts, read_response
from taskpilot_obs.usage.values import parse_token_count


def usage(response: Any, provider: str | None = None) -> Usage | None:
    """What is read, which must be consistent."""
    reading = read_response(response, provider=provider)
    assert not reading.inconsistent
    return reading.usage


def chat(**counts: Any) -> dict[str, Any]:
    return {"object": "chat.completion", "model": "m", "choices": [], "usage": counts}


CHAT_SHAPES = {
    "OpenAI: cached input and reasoning are within the totals": (
        chat(
            prompt_tokens=100,
            completion_tokens=50,
            total_tokens=150,
            prompt_tokens_details={"cached_tokens": 60, "cache_write_tokens": 10, "audio_tokens": 5},
            completion_tokens_details={"reasoning_tokens": 40, "audio_tokens": 3},
        ),
        Usage(100, 50, 60, 10, input_audio_tokens=5, reasoning_tokens=40, output_audio_tokens=3),
    ),
    "xAI: the total says that reasoning is outside of the completion": (
        chat(
            prompt_tokens=32,
            completion_tokens=9,
            total_tokens=135,
            completion_tokens_details={"reasoning_tokens": 94},
        ),
        Usage(32, 103, reasoning_tokens=94),
    ),
    "Perplexity: deep research states reasoning beside a total without it": (
        chat(prompt_tokens=33, completion_tokens=7163, total_tokens=7196, reasoning_tokens=73997),
        Usage(33, 81160, reasoning_tokens=73997),
    ),
    "DeepSeek: cache hits have a name of their own": (
        chat(prompt_tokens=20, completion_tokens=5, prompt_cache_hit_tokens=12, prompt_cache_miss_tokens=8),
        Usage(20, 5, 12),
    ),
    "Moonshot: cached tokens beside the total are within it": (
        chat(prompt_tokens=20, completion_tokens=5, cached_tokens=12),
        Usage(20, 5, 12),
    ),
    "Qwen: the split of cache writes is a detail": (
        chat(
            prompt_tokens=20,
            completion_tokens=5,
            prompt_tokens_details={
                "cache_creation": {"ephemeral_5m_input_tokens": 12},
                "cache_creation_input_tokens": 12,
                "cached_tokens_details": {"audio_tokens": 0},
            },
        ),
        Usage(20, 5, None, 12, 12, cache_read_audio_tokens=0),
    ),
    "LiteLLM: Anthropic's names beside an inclusive total": (
        chat(prompt_tokens=100, completion_tokens=5, cache_read_input_tokens=60, cache_creation_input_tokens=20),
        Usage(100, 5, 60, 20),
    ),
    "Mistral: num_cached_tokens was never billed for less, and is left out": (
        chat(prompt_tokens=77, completion_tokens=12, num_cached_tokens=76),
        Usage(77, 12),
    ),
    "a total without the completion tells it": (chat(prompt_tokens=8, total_tokens=8), Usage(8, 0)),
    "a total that does not add up changes nothing": (
        chat(prompt_tokens=8, completion_tokens=2, total_tokens=99),
        Usage(8, 2),
    ),
    "floats that are whole are counts": (chat(prompt_tokens=8.0, completion_tokens=2.0), Usage(8, 2)),
    "0 is what the provider said, and stays 0": (chat(prompt_tokens=0, completion_tokens=0), Usage(0, 0)),
}


@pytest.mark.parametrize("case", CHAT_SHAPES)
def test_chat_completions(case: str) -> None:
    """Shapes of OpenAI's chat completions and of those that imitate them."""
    response, expected = CHAT_SHAPES[case]
    assert usage(response) == expected


def test_gemini_behind_openais_interface_keeps_thoughts_in_the_total() -> None:
    """Google's compatible endpoint states thoughts in the total alone; elsewhere the same numbers stay as they are."""
    response = chat(prompt_tokens=10, completion_tokens=20, total_tokens=300)
    assert usage(response, "google") == Usage(10, 290)
    assert usage(response, "openai") == Usage(10, 20)


OTHER_SHAPES = {
    "OpenAI responses": (
        {
            "object": "response",
            "usage": {
                "input_tokens": 88,
                "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 80},
                "output_tokens": 14,
                "output_tokens_details": {"reasoning_tokens": 9},
            },
        },
        Usage(88, 14, 4, 80, reasoning_tokens=9),
    ),
    "OpenAI realtime": (
        {
            "type": "response.done",
            "response": {
                "usage": {
                    "input_tokens": 100,
                    "output_tokens": 50,
                    "input_token_details": {
                        "cached_tokens": 40,
                        "audio_tokens": 70,
                        "cached_tokens_details": {"audio_tokens": 30},
                    },
                    "output_token_details": {"audio_tokens": 45},
                }
            },
        },
        Usage(100, 50, 40, input_audio_tokens=70, output_audio_tokens=45, cache_read_audio_tokens=30),
    ),
    "OpenAI images": (
        {
            "data": [{"b64_json": "x"}],
            "usage": {
                "input_tokens": 50,
                "input_tokens_details": {"image_tokens": 40, "text_tokens": 10},
                "output_tokens": 1056,
                "output_tokens_details": {"image_tokens": 1056},
            },
        },
        Usage(50, 1056, input_image_tokens=40, output_image_tokens=1056),
    ),
    "Anthropic: cache reads and writes are outside of the input": (
        {
            "type": "message",
            "usage": {
                "input_tokens": 3,
                "cache_creation_input_tokens": 418,
                "cache_read_input_tokens": 1111,
                "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 18},
                "output_tokens": 33,
                "output_tokens_details": {"thinking_tokens": 20},
            },
        },
        Usage(1532, 33, 1111, 418, 400, 18, reasoning_tokens=20),
    ),
    "OpenAI responses behind Anthropic's names: the details say that the total includes all": (
        {"usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "cache_read_input_tokens": 4}},
        Usage(10, None, 4),
    ),
    "Anthropic: the split alone says what was written": (
        {"usage": {"input_tokens": 3, "cache_creation": {"ephemeral_5m_input_tokens": 7}, "output_tokens": 1}},
        Usage(10, 1, None, 7, 7),
    ),
    "Anthropic: a compaction is billed and is in no total": (
        {
            "usage": {
                "input_tokens": 23_000,
                "output_tokens": 1_000,
                "iterations": [
                    {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
                    {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
                ],
            }
        },
        Usage(203_000, 4_500),
    ),
    "Gemini: thoughts and tool use are outside": (
        {
            "usageMetadata": {
                "promptTokenCount": 100,
                "candidatesTokenCount": 10,
                "thoughtsTokenCount": 90,
                "toolUsePromptTokenCount": 30,
                "cachedContentTokenCount": 60,
                "totalTokenCount": 230,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 60},
                    {"modality": "AUDIO", "tokenCount": 40},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}],
            }
        },
        Usage(130, 100, 60, input_audio_tokens=40, reasoning_tokens=90, cache_read_audio_tokens=20),
    ),
    "Gemini: no candidates, but a total": (
        {"usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8}},
        Usage(8, 0),
    ),
    "Gemini: stopped while thinking": (
        {"usageMetadata": {"promptTokenCount": 8, "thoughtsTokenCount": 50}},
        Usage(8, 50, reasoning_tokens=50),
    ),
    "Bedrock Converse: cache reads and writes are outside": (
        {
            "usage": {
                "inputTokens": 10,
                "outputTokens": 5,
                "cacheReadInputTokens": 70,
                "cacheWriteInputTokens": 20,
                "totalTokens": 105,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 15}, {"ttl": "5m", "inputTokens": 5}],
            }
        },
        Usage(100, 5, 70, 20, 5, 15),
    ),
    "Bedrock Converse: a total that leaves the cache out changes nothing": (
        {"usage": {"inputTokens": 100, "outputTokens": 5, "cacheReadInputTokens": 70, "totalTokens": 105}},
        Usage(170, 5, 70),
    ),
    "Bedrock invoke: counts in boto3's headers": (
        {
            "body": object(),
            "ResponseMetadata": {
                "HTTPHeaders": {
                    "x-amzn-bedrock-input-token-count": "5",
                    "x-amzn-bedrock-output-token-count": "10",
                }
            },
        },
        Usage(5, 10),
    ),
    "Bedrock Titan": (
        {"inputTextTokenCount": 5, "results": [{"tokenCount": 10, "outputText": "x"}]},
        Usage(5, 10),
    ),
    "Bedrock Llama": ({"generation": "x", "prompt_token_count": 5, "generation_token_count": 10}, Usage(5, 10)),
    "Cohere: billed, not consumed": (
        {
            "usage": {
                "billed_units": {"input_tokens": 62.0, "output_tokens": 28.0},
                "tokens": {"input_tokens": 968.0, "output_tokens": 83.0},
                "cached_tokens": 900,
            }
        },
        Usage(62, 28),
    ),
    "Cohere v1": ({"text": "x", "meta": {"billed_units": {"input_tokens": 6, "output_tokens": 2}}}, Usage(6, 2)),
    "Cohere: consumed, where nothing was billed": (
        {"usage": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 9, "output_tokens": 3}}},
        Usage(9, 3),
    ),
    "Ollama: a cached prompt has no count": ({"model": "llama3", "done": True, "eval_count": 79}, Usage(None, 79)),
    "OpenAI embeddings": (
        {"object": "list", "data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}},
        Usage(3, 0),
    ),
    "Voyage embeddings: a total alone": (
        {"object": "list", "data": [{"embedding": "x"}], "usage": {"total_tokens": 3}},
        Usage(3, 0),
    ),
    "Cohere embeddings": (
        {"embeddings": {"float": [[0.1]]}, "meta": {"billed_units": {"input_tokens": 4}}},
        Usage(4, 0),
    ),
    "Vertex embeddings": (
        {
            "predictions": [
                {"embeddings": {"values": [0.1], "statistics": {"token_count": 4}}},
                {"embeddings": {"values": [0.1], "statistics": {"token_count": 6}}},
            ]
        },
        Usage(10, 0),
    ),
    "watsonx": (
        {"model_id": "m", "results": [{"generated_text": "x", "generated_token_count": 2, "input_token_count": 6}]},
        Usage(6, 2),
    ),
    "Replicate": ({"output": ["x"], "metrics": {"input_token_count": 6, "output_token_count": 2}}, Usage(6, 2)),
    "Cohere's first API": ({"text": "x", "token_count": {"prompt_tokens": 6, "total_tokens": 8}}, Usage(6, 2)),
    "an OpenAI batch line": (
        {"custom_id": "x", "response": {"status_code": 200, "body": chat(prompt_tokens=3, completion_tokens=4)}},
        Usage(3, 4),
    ),
    "pydantic-ai": (
        SimpleNamespace(input_tokens=100, output_tokens=9, cache_read_tokens=60, cache_write_tokens=10),
        Usage(100, 9, 60, 10),
    ),
    "agent-framework": (
        {"input_token_count": 100, "output_token_count": 9, "total_token_count": 109},
        Usage(100, 9),
    ),
    "a usage object alone": ({"input_tokens": 5, "output_tokens": 6}, Usage(5, 6)),
    "a Usage": (Usage(5, 6, 1), Usage(5, 6, 1)),
}


@pytest.mark.parametrize("case", OTHER_SHAPES)
def test_shapes(case: str) -> None:
    """The shapes of all the other providers and frameworks."""
    response, expected = OTHER_SHAPES[case]
    assert usage(response) == expected


NO_USAGE: dict[str, Any] = {
    "nothing": None,
    "a number": 3,
    "a text": "data",
    "an empty body": {},
    "null usage": {"status": "queued", "usage": None},
    "an error with status 200": {"error": {"message": "no"}},
    "a rerank, which has no tokens to generate": {"data": [{"relevance_score": 0.7}], "usage": {"total_tokens": 57}},
    "a usage that says nothing": {"usage": {"prompt_tokens": None, "completion_tokens": None}},
    "an agent's messages, each booked when it came": {"messages": [{"usage_metadata": {"input_tokens": 1}}]},
    "JSON that is not an object": "[1, 2]",
    "broken JSON": '{"usage": ',
    "tokens that are not counts": {"tokens": [1, 2, 3]},
}


@pytest.mark.parametrize("case", NO_USAGE)
def test_no_usage_is_unknown(case: str) -> None:
    """What states no usage has none: None, never 0."""
    assert usage(NO_USAGE[case]) is None


def test_the_rest_of_a_reading() -> None:
    """Model, provider, tier, id and finish reasons come from where each provider keeps them."""
    openai = {
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024-08-06",
        "service_tier": "Priority",
        "choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
    assert read_response(openai) == Reading(
        Usage(1, 1), "gpt-4o-2024-08-06", "openai", "priority", "chatcmpl-1", ("stop", "length")
    )
    fast: dict[str, Any] = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5",
        "stop_reason": "end_turn",
    }
    fast["usage"] = {"input_tokens": 1, "output_tokens": 1, "service_tier": "standard", "speed": "fast"}
    assert read_response(fast)[1:6] == ("claude-opus-5", "anthropic", "fast", "m", ("end_turn",))
    gemini = {
        "modelVersion": "gemini-3-flash",
        "responseId": "r",
        "candidates": [{"finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "trafficType": "ON_DEMAND_FLEX"},
    }
    assert read_response(gemini)[1:6] == ("gemini-3-flash", "gcp.gemini", "flex", "r", ("STOP",))
    converse = {"stopReason": "end_turn", "serviceTier": {"type": "flex"}, "usage": {"inputTokens": 1}}
    assert read_response(converse)[2:6] == ("aws.bedrock", "flex", None, ("end_turn",))
    cut = {"id": "resp_1", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert read_response(cut).finish_reasons == ("max_output_tokens",)


def test_the_callers_provider_wins_and_is_canonical() -> None:
    """Who answered is what the caller says, in its one spelling."""
    body = {"model": "claude-x", "type": "message", "role": "assistant"}
    assert read_response(body, provider="bedrock").provider == "aws.bedrock"
    assert read_response(body).provider == "anthropic"
    assert read_response({"id": "gen-1", "provider": "Novita", "model": "a/b"}).provider == "openrouter"


def test_work_billed_at_another_models_rate_is_flagged() -> None:
    """An advisor's iterations run on another model: the tokens are read, and their price is not the whole cost."""
    stated = {"input_tokens": 5, "output_tokens": 6, "iterations": [{"type": "advisor_message", "model": "claude-x"}]}
    reading = read_response({"usage": stated})
    assert (reading.usage, reading.gap, reading.inconsistent) == (Usage(5, 6), "other_model", False)


# --- LangChain ------------------------------------------------------------------------------------------------------


def message(**about: Any) -> AIMessage:
    counts = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, **about}
    return AIMessage(
        content="hi",
        id="run-1",
        usage_metadata=counts,
        response_metadata={"model_name": "gpt-4o", "model_provider": "openai", "finish_reason": "stop"},
    )


def test_a_langchain_message_is_inclusive_already() -> None:
    """Cache reads and writes of `usage_metadata` are subsets, whatever the provider's own shape is."""
    details = {"cache_read": 3, "cache_creation": 0, "ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 1}
    reading = read_response(message(input_token_details=details, output_token_details={"reasoning": 4}))
    assert reading.usage == Usage(10, 5, 3, 3, 2, 1, reasoning_tokens=4)
    assert reading[1:6] == ("gpt-4o", "openai", None, None, ("stop",))


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_a_service_tier_renames_langchains_details(tier: str) -> None:
    """`flex_cache_read` is a cache read, and names the tier."""
    given = {f"{tier}_cache_read": 3, tier: 7}
    reading = read_response(message(input_token_details=given, output_token_details={f"{tier}_reasoning": 2, tier: 3}))
    assert reading.usage == Usage(10, 5, 3, reasoning_tokens=2)
    assert reading.service_tier == tier


def test_several_generations_repeat_one_usage() -> None:
    """With n > 1 the usage is that of the call: counted once."""
    generations = [ChatGeneration(message=message()), ChatGeneration(message=message())]
    assert usage(LLMResult(generations=[generations])) == Usage(10, 5)


def test_usage_in_llm_output_is_the_last_resort() -> None:
    """`llm_output` speaks where the message does not."""
    result = LLMResult(
        generations=[[ChatGeneration(message=AIMessage(content="hi"))]],
        llm_output={"token_usage": {"prompt_tokens": 3, "completion_tokens": 4}, "model_name": "gpt-4"},
    )
    assert read_response(result)[:2] == (Usage(3, 4), "gpt-4")
    assert usage(LLMResult(generations=[])) is None


def test_a_langchain_cache_hit_has_no_tokens() -> None:
    """LangChain's cache repeats the usage of the first call, marked by a cost of 0: nothing was billed."""
    reading = read_response(message(total_cost=0))
    assert (reading.usage, reading.cached) == (None, True)


@pytest.mark.parametrize(
    "about",
    [
        {
            "model_name": "gpt-4o",
            "model_provider": "openai",
            "finish_reason": "stop",
            "id": "c",
            "service_tier": "Flex",
        },
        {"model": "claude-x", "model_provider": "anthropic", "stop_reason": "end_turn", "id": "msg"},
        {"model_name": "gemini-x", "model_provider": "google_genai", "finish_reason": "STOP"},
        {"model_name": "gpt-4o"},
        {"finish_reason": "stop"},
        {},
    ],
)
def test_the_short_way_through_langchain_says_what_the_long_one_does(about: dict[str, Any]) -> None:
    """Results of chat models are read without looking for the layers; what is found is the same."""
    for details in ({}, {"flex_cache_read": 2, "flex": 8}, {"cache_read": 99}):
        answer = message(input_token_details=details)
        answer.response_metadata = about
        for response in (answer, LLMResult(generations=[[ChatGeneration(message=answer)]])):
            for provider in (None, "azure"):
                long = StreamReader(provider)
                long.feed(response)
                assert read_response(response, provider=provider) == long.reading()


def test_a_list_of_finished_messages_is_no_response() -> None:
    """An agent hands on its messages again and again: they were booked when they came."""
    assert usage([HumanMessage(content="x"), message()]) is None


# --- numbers that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [-1, 1.5, float("nan"), float("inf"), "12", True, Decimal("NaN"), Decimal("1.5"), 10**30, [], b"1"]
)
def test_what_is_no_count_is_unknown_and_flagged(bad: object) -> None:
    """Negative, fractional, NaN, infinite, text, bool and absurd numbers become None, and the usage inconsistent."""
    assert from_counts(input_tokens=bad, output_tokens=5) == (Usage(None, 5), True)


def test_numbers_of_subclasses_are_counts() -> None:
    """A subclass of int or float, and a whole Decimal, count; their own methods are not asked."""

    class Odd(int):
        def __le__(self, other: object) -> bool:
            raise ValueError

    assert from_counts(input_tokens=Odd(3), output_tokens=Decimal(4)) == (Usage(3, 4), False)
    assert from_counts(input_tokens=type("F", (float,), {})(3.0)) == (Usage(3), False)


CLAMPED = {
    "cache reads above the input": ({"input_tokens": 10, "cache_read_tokens": 99}, Usage(10, None, 10)),
    "reads and writes above the input": (
        {"input_tokens": 10, "cache_read_tokens": 7, "cache_write_tokens": 7},
        Usage(10, None, 7, 3),
    ),
    "the split above what was written": (
        {"input_tokens": 10, "cache_write_tokens": 4, "cache_write_5m_tokens": 9, "cache_write_1h_tokens": 3},
        Usage(10, None, None, 4, 1, 3),
    ),
    "reasoning above the output": ({"output_tokens": 5, "reasoning_tokens": 50}, Usage(None, 5, reasoning_tokens=5)),
    "audio above the output": ({"output_tokens": 5, "output_audio_tokens": 6}, Usage(None, 5, output_audio_tokens=5)),
    "cached audio above the audio": (
        {"input_tokens": 9, "cache_read_tokens": 9, "input_audio_tokens": 2, "cache_read_audio_tokens": 5},
        Usage(9, None, 9, input_audio_tokens=2, cache_read_audio_tokens=2),
    ),
}


@pytest.mark.parametrize("case", CLAMPED)
def test_details_above_their_total_are_cut_down(case: str) -> None:
    """A detail never exceeds its total; that it claimed to is flagged."""
    given, expected = CLAMPED[case]
    assert from_counts(**given) == (expected, True)


def test_an_unknown_name_is_flagged() -> None:
    """A count under a name that there is not is left out, and flagged."""
    assert from_counts(input_tokens=1, outputs=3) == (Usage(1), True)


def test_total_needs_both_sides() -> None:
    """A total of an unknown side is unknown."""
    assert Usage(3, 4).total_tokens == 7
    assert Usage(3, None).total_tokens is None


# --- hostile objects ------------------------------------------------------------------------------------------------


class Hostile:
    """Raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Fickle:
    """Answers while it is recognised, and raises when it is read."""

    def __init__(self) -> None:
        self._asked = 0

    @property
    def input_tokens(self) -> int:
        self._asked += 1
        if self._asked > 1:
            raise RuntimeError
        return 3


class HostileMapping(dict[str, Any]):
    """A dict that cannot be read."""

    def get(self, *_args: Any) -> Any:
        raise RuntimeError


def test_a_mock_is_read_but_not_followed_for_ever() -> None:
    """Of an object that answers to any name its own usage is read; what it wraps, without end, is not entered."""
    made = []

    class Counted(MagicMock):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(1)
            super().__init__(*args, **kwargs)

    mock = Counted()
    mock.usage.prompt_tokens, mock.usage.completion_tokens = 12, 3
    assert read_response(mock).usage == Usage(12, 3)
    assert len(made) < 200


def test_nothing_raises() -> None:
    """Whatever is passed, the answer is a reading."""
    deep: Any = {}
    for _ in range(5_000):
        deep = {"response": deep, "message": deep}
    for bad in (Hostile(), HostileMapping(usage=1), {"usage": Hostile()}, deep, MagicMock(), object(), [Hostile()]):
        assert read_response(bad).usage is None
        assert Usage.read(bad, provider="openai") is None
    reader = StreamReader()
    assert reader.feed(Hostile()) is False
    reader.feed({"usage": Fickle()})
    assert reader.reading() == read_response(Hostile()) == Reading()
    assert read_response({}, provider=3).provider is None  # type: ignore[arg-type]


def test_usage_read_is_the_short_way() -> None:
    """`Usage.read` gives the usage alone."""
    assert Usage.read(json.dumps(chat(prompt_tokens=1, completion_tokens=2)), provider="openai") == Usage(1, 2)


def test_a_number_of_any_size_is_read_at_once() -> None:
    """A `Decimal` with a huge exponent is not a count of tokens, and is refused without being written out."""
    began = time.process_time()
    texts = ("1E+999999", "-1E+999999", "1E-999999", "2E+1")
    assert [parse_token_count(Decimal(text)) for text in texts] == [None, None, None, 20]
    assert time.process_time() - began < 1
