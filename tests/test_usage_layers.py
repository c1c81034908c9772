"""What the layers of a response state beside its counts: names, errors, tiers, sums, and values of strange types."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage import StreamReader, Usage, from_counts, read_response
from taskpilot_obs.usage.values import MAX_TOKENS, from_usage, without_placeholders

CHAT = {"prompt_tokens": 100, "completion_tokens": 50}


class Name(Enum):
    """A name of an SDK's, and a number."""

    TEXT = "gpt-4o"
    EMPTY = ""
    NUMBER = 4


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("gpt-4o", "gpt-4o"),
        (Name.TEXT, "gpt-4o"),
        *((value, None) for value in ("", Name.EMPTY, Name.NUMBER, 4, b"gpt-4o", ("gpt-4o",), object(), {}, ["x"])),
    ],
)
def test_a_name_is_a_text_or_an_enums(value: object, name: str | None) -> None:
    """A model is named by a text or by the text of an enum; any other value names none."""
    reading = read_response({"model": value, "usage": CHAT})
    assert (reading.model, reading.usage) == (name, Usage(100, 50))


class Lazy:
    """Answers any name, as a proxy that loads its value late does."""

    def __init__(self, **stored: Any) -> None:
        self.__dict__.update(stored)

    def __getattr__(self, name: str) -> Lazy:
        return self


def test_a_lazy_object_is_read_from_what_it_stores() -> None:
    """An object that answers any name states what it stores, and nothing else."""
    reading = read_response(Lazy(model="gpt-4o", usage=CHAT))
    assert (reading.usage, reading.model) == (Usage(100, 50), "gpt-4o")


def test_the_fields_that_an_sdk_does_not_know_are_read_too() -> None:
    """A model of pydantic keeps unknown fields beside its own, and both are read."""
    unknown = SimpleNamespace(**CHAT, __pydantic_extra__={"prompt_tokens_details": {"cached_tokens": 40}})
    assert read_response({"usage": unknown}).usage == Usage(100, 50, 40)
    assert read_response({"usage": SimpleNamespace(**CHAT, __pydantic_extra__={})}).usage == Usage(100, 50)
    assert read_response({"usage": SimpleNamespace(**CHAT, __pydantic_extra__=None)}).usage == Usage(100, 50)


@pytest.mark.parametrize("key", ["code", "status", "status_code", "http_status"])
def test_the_status_of_an_error_has_several_names(key: str) -> None:
    """The HTTP status within a body of status 200 is read under each of its names, if it is one."""
    stated = read_response({"error": {key: 429, "message": "slow down"}}).error
    assert stated is not None
    assert (stated.status, stated.message) == (429, "slow down")
    unfit = read_response({"error": {key: 7, "message": "slow down"}}).error
    assert unfit is not None
    assert unfit.status is None


def test_an_event_that_is_an_error_states_it_itself() -> None:
    """OpenAI's event of type `error` has code and message beside its type, and no object `error`."""
    stated = read_response([{"type": "error", "code": "server_error", "message": "away", "param": None}]).error
    assert stated is not None
    assert (stated.code, stated.message) == ("server_error error", "away")
    assert read_response([{"type": "other", "code": "server_error", "message": "away"}]).error is None


def test_a_vendor_that_fails_in_the_middle_is_an_error() -> None:
    """OpenRouter ends a choice with the error of its vendor, which the last chunk states."""
    reader = StreamReader("openrouter")
    reader.feed({"model": "m", "choices": [{"delta": {"content": "hi"}}]})
    assert reader.reading().error is None
    failure = {"code": 502, "message": "the vendor is away"}
    reader.feed({"choices": [{"delta": {}, "finish_reason": "error", "error": failure}]})
    error = reader.reading().error
    assert error is not None
    assert (error.status, error.message) == (502, "the vendor is away")
    reader.feed({"choices": [{"delta": {}, "finish_reason": "error"}]})
    assert reader.reading().error == error


def test_each_embedding_of_vertex_states_its_tokens() -> None:
    """Vertex states the tokens beside each embedding, in either shape; their sum is the input."""
    embeddings = [{"values": [0.1], "statistics": {"token_count": number}} for number in (4, 3)]
    assert read_response({"embeddings": embeddings}).usage == Usage(7, 0)
    assert read_response({"predictions": [{"embeddings": each} for each in embeddings]}).usage == Usage(7, 0)


def test_the_name_of_a_model_tells_that_its_price_is_more_than_its_tokens() -> None:
    """Audio of Mistral's Voxtral is billed by the minute, so that its price by tokens has a gap."""
    body = {"usage": CHAT, "choices": []}
    assert read_response({**body, "model": "Voxtral-small-2507"}).gap is PriceGap.MEDIA
    assert read_response({**body, "model": "mistral-small"}).gap is None


def test_chunks_that_are_added_state_a_tier_in_their_details() -> None:
    """LangChain puts the tier into the names of details; that of the first chunk that has one is taken."""
    reader = StreamReader()
    for details in ({"flex": 10}, {"priority": 0}, {}):
        counts = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11, "input_token_details": details}
        reader.feed(AIMessageChunk(content="a", usage_metadata=counts))
    assert reader.reading().service_tier == "flex"


COUNTED = {"input_tokens": 9, "output_tokens": 2}


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "response", "parts": [], "usage": COUNTED},
        {"response_metadata": {}, "content": "hi", "usage_metadata": COUNTED},
    ],
)
def test_a_history_of_messages_is_no_stream(message: dict[str, Any]) -> None:
    """A list of finished messages of pydantic-ai or LangChain holds earlier calls too: their usage is not added up."""
    assert read_response(message).usage == Usage(9, 2)
    assert read_response([message, message]).usage is None


@pytest.mark.parametrize(("provider", "generated"), [("perplexity", 8), ("openai", 5), (None, 5)])
def test_thoughts_of_perplexity_stand_apart(provider: str | None, generated: int) -> None:
    """Perplexity leaves thoughts out of the output and of the total, also where LangChain copied its counts."""
    counts = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "output_token_details": {"reasoning": 3}}
    usage = read_response({"usage": counts}, provider=provider).usage
    assert usage == Usage(10, generated, reasoning_tokens=3)


@pytest.mark.parametrize("part", ["content", "text", "arguments", "args", "summary"])
def test_zeros_beside_any_part_of_an_answer_are_unknown(part: str) -> None:
    """An item of an output that holds text, a call or a summary took tokens: zeros beside it are placeholders."""
    answer = {"output": [{"type": "x", part: "long"}], "usage": {"input_tokens": 0, "output_tokens": 0}}
    assert read_response(answer).usage is None
    assert read_response(answer | {"output": [{"type": "x", part: ""}]}).usage == Usage(0, 0)


def test_zeros_beside_an_answer_in_an_event_are_unknown() -> None:
    """The last event of a stream holds the whole answer, whose text proves that its zeros are placeholders."""
    answer = {"model": "m", "output": [{"content": "long"}], "usage": {"input_tokens": 0, "output_tokens": 0}}
    reading = read_response([{"type": "response.completed", "response": answer}])
    assert (reading.usage, reading.model) == (None, "m")
    empty = {"type": "response.completed", "response": answer | {"output": []}}
    assert read_response([empty]).usage == Usage(0, 0)


def test_one_wrong_detail_is_flagged_beside_good_ones() -> None:
    """A usage is flagged if any of its details was cut down, whichever of them are in order."""
    assert from_counts(input_tokens=10, output_tokens=5, cache_read_tokens=20, reasoning_tokens=5) == (
        Usage(10, 5, 10, reasoning_tokens=5),
        True,
    )


class AgentResponseUpdate:
    """The shape of agent-framework's."""

    def __init__(self, *contents: dict[str, Any]) -> None:
        self.contents = list(contents)
        self.text = "hi"


def test_the_updates_of_an_agent_sum_its_calls() -> None:
    """A stream of an agent's updates sums one call, and one more for each result of a tool."""
    reader = StreamReader()
    reader.feed(AgentResponseUpdate())
    assert reader.reading().sums == 1
    reader.feed(AgentResponseUpdate({"type": "function_result"}))
    reader.feed(AgentResponseUpdate({"type": "usage", "usage_details": {"input_tokens": 9, "output_tokens": 2}}))
    assert (reader.reading().sums, reader.reading().usage) == (2, Usage(9, 2))


def test_updates_of_an_agent_add_usage_or_put_it_in_place() -> None:
    """Usage in updates is added up, unless an update states that it replaces what came before."""
    added = {"type": "usage", "usage_details": {"input_tokens": 9, "output_tokens": 2}}
    reader = StreamReader()
    reader.feed(AgentResponseUpdate(added))
    reader.feed(AgentResponseUpdate(added, added | {"merge_mode": "add"}))
    assert reader.reading().usage == Usage(27, 6)
    reader.feed(AgentResponseUpdate(added | {"merge_mode": "replace"}))
    assert reader.reading().usage == Usage(9, 2)


def test_updates_of_an_agent_are_read_as_its_provider_counts() -> None:
    """Usage in updates is read by the rule of the stated provider: xAI puts thoughts beside the output."""
    counts = {"prompt_tokens": 100, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 94}}
    for provider, generated in (("xai", 103), ("openai", 9)):
        reader = StreamReader(provider)
        reader.feed(AgentResponseUpdate({"usage_details": counts}))
        usage = reader.reading().usage
        assert usage is not None
        assert usage[:2] == (100, generated)


def test_a_usage_of_the_callers_own_is_checked() -> None:
    """A `Usage` with an invalid total is flagged, whichever total it is."""
    assert from_usage(Usage(3, 2)) == (Usage(3, 2), False)
    assert from_usage(Usage(-1, 2)) == (Usage(None, 2), True)
    assert from_usage(Usage(3, -2)) == (Usage(3, None), True)
    assert from_usage(Usage(3, 2, 4)) == (Usage(3, 2, 3), True)
    assert read_response(Usage(0, 2)).usage == Usage(0, 2)  # no answer beside it, so that 0 may be true


def test_no_number_above_max_tokens_is_a_count() -> None:
    """A number of tokens may be as large as the limit, and not larger."""
    assert from_counts(input_tokens=MAX_TOKENS) == (Usage(MAX_TOKENS), False)
    assert from_counts(input_tokens=MAX_TOKENS + 1) == (Usage(), True)


def test_only_zeros_stand_for_unknown_counts() -> None:
    """A zero total of an answer is unknown together with its details; what was stated above 0 stays."""
    whole = Usage(100, 20, cache_read_tokens=40, reasoning_tokens=5)
    assert without_placeholders(whole) == whole
    assert without_placeholders(whole._replace(output_tokens=0)) == Usage(100, None, cache_read_tokens=40)
    assert without_placeholders(whole._replace(input_tokens=0)) == Usage(None, 20, reasoning_tokens=5)
    assert without_placeholders(whole._replace(output_tokens=None)) == whole._replace(output_tokens=None)
    assert without_placeholders(Usage(0, 0, cache_read_tokens=40)) is None
