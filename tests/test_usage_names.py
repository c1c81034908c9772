"""Every spelling of a count that a provider or framework uses is read as that count."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from taskpilot_obs.semconv import PriceGap
from taskpilot_obs.usage import StreamReader, Usage, read_response

INCLUSIVE = {"input_tokens": 100, "output_tokens": 50}
CHAT = {"prompt_tokens": 100, "completion_tokens": 50}
BESIDE = {
    "cache_read_tokens": ("cache_read_tokens", "cache_read_input_token_count"),
    "cache_write_tokens": ("cache_write_tokens", "cache_creation_input_token_count"),
    "cache_write_5m_tokens": ("cache_write_5m_tokens",),
    "cache_write_1h_tokens": ("cache_write_1h_tokens",),
    "input_audio_tokens": ("input_audio_tokens",),
    "input_image_tokens": ("input_image_tokens",),
    "reasoning_tokens": ("reasoning_tokens", "output_reasoning_tokens", "reasoning_output_token_count"),
    "output_audio_tokens": ("output_audio_tokens",),
    "output_image_tokens": ("output_image_tokens",),
    "cache_read_audio_tokens": ("cache_audio_read_tokens", "cache_read_audio_tokens"),
}
"""Beside inclusive totals: pydantic-ai, agent-framework, OpenTelemetry, genai-prices."""
CONTAINERS = {
    ("cache_read_tokens", "cached_tokens"): (
        *[(CHAT, name) for name in ("prompt_tokens_details", "prompt_token_details", "input_tokens_details")],
        *[(INCLUSIVE, name) for name in ("input_token_details", "input_tokens_details", "prompt_tokens_details")],
    ),
    ("reasoning_tokens", "reasoning_tokens"): (
        *[(CHAT, f"{name}_details") for name in ("completion_tokens", "completion_token", "output_tokens")],
        *[(INCLUSIVE, name) for name in ("output_token_details", "output_tokens_details", "details")],
    ),
}
"""Details in an object beneath the totals."""
TOTALS = [
    ({"input_token_count": 100, "output_token_count": 50}, (100, 50)),
    ({"input_token_count": 100, "generated_token_count": 50}, (100, 50)),
    ({"inputTokens": 100, "outputTokens": 50}, (100, 50)),
    ({"inputTokenCount": 100, "outputTokenCount": 50}, (100, 50)),
    ({"promptTokenCount": 100, "candidatesTokenCount": 50}, (100, 50)),
    ({"prompt_token_count": 100, "candidates_token_count": 50}, (100, 50)),
    ({"promptTokenCount": 100, "candidatesTokenCount": 40, "thoughtsTokenCount": 10}, (100, 50)),
    ({"prompt_token_count": 100, "candidates_token_count": 40, "thoughts_token_count": 10}, (100, 50)),
    ({"promptTokenCount": 90, "toolUsePromptTokenCount": 10, "candidatesTokenCount": 50}, (100, 50)),
    ({"prompt_token_count": 90, "tool_use_prompt_token_count": 10, "candidates_token_count": 50}, (100, 50)),
    ({"inputTokens": 80, "cacheReadInputTokens": 15, "cacheWriteInputTokens": 5, "outputTokens": 50}, (100, 50)),
    (
        {"inputTokenCount": 80, "cacheReadInputTokenCount": 15, "cacheWriteInputTokenCount": 5, "outputTokenCount": 50},
        (100, 50),
    ),
]


@pytest.mark.parametrize(("field", "name"), [(field, name) for field, names in BESIDE.items() for name in names])
def test_a_detail_beside_the_totals_has_several_names(field: str, name: str) -> None:
    """A detail beside inclusive totals is read under each of its names."""
    usage = read_response({**INCLUSIVE, name: 7}).usage
    assert usage is not None
    assert (usage[:2], getattr(usage, field)) == ((100, 50), 7)


@pytest.mark.parametrize(
    ("field", "key", "totals", "container"),
    [(*names, *where) for names, places in CONTAINERS.items() for where in places],
)
def test_a_detail_beneath_the_totals_has_several_places(
    field: str, key: str, totals: dict[str, int], container: str
) -> None:
    """A detail in an object is read under each name of the object."""
    usage = read_response({"model": "m", "usage": {**totals, container: {key: 7}}}).usage
    assert usage is not None
    assert (usage[:2], getattr(usage, field)) == ((100, 50), 7)


@pytest.mark.parametrize(("stated", "expected"), TOTALS, ids=[", ".join(stated) for stated, _ in TOTALS])
def test_totals_have_several_names(stated: dict[str, int], expected: tuple[int, int]) -> None:
    """Input and output are read in each spelling, with what the provider counts apart added."""
    usage = read_response({"usage": stated}).usage
    assert usage is not None
    assert usage[:2] == expected


@pytest.mark.parametrize("name", ["service_tier", "serviceTier", "service_tier_used"])
def test_a_tier_has_several_names(name: str) -> None:
    """The tier that was charged is read under each of its names."""
    assert read_response({"model": "m", "usage": {**CHAT, name: "flex"}}).service_tier == "flex"


@pytest.mark.parametrize("name", ["trafficType", "traffic_type"])
def test_the_traffic_of_vertex_is_a_tier(name: str) -> None:
    """Vertex states its tier as the type of the traffic."""
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, name: "ON_DEMAND_FLEX"}
    assert read_response({"usageMetadata": usage}).service_tier == "flex"


@pytest.mark.parametrize(
    "fees", [{"num_search_queries": 2}, {"citation_tokens": 9}, {"output_token_details": {"citation_tokens": 9}}]
)
def test_searches_of_perplexity_are_billed_apart(fees: dict[str, Any]) -> None:
    """Searches and citations of Perplexity cost more than tokens, so that a price by tokens has a gap."""
    body = {"model": "other", "usage": {**CHAT, **fees}}
    assert read_response(body, provider="perplexity").gap is PriceGap.FEES
    assert read_response({"model": "other", "usage": CHAT}, provider="perplexity").gap is None


@pytest.mark.parametrize(
    "line", ["data: [DONE]", "event: x", "id: 7", "retry: 3", ": ping", "[DONE]", " [DONE]\n", " ", ""]
)
def test_the_framing_of_a_stream_is_no_content(line: str) -> None:
    """Lines of an event stream that hold no answer are not the first token; a piece of text is."""
    assert StreamReader().feed(line) is False
    assert StreamReader().feed("hello") is True


def test_one_request_is_not_a_sum() -> None:
    """A usage that counts its requests sums several calls only where it counts more than one."""
    assert [read_response({**INCLUSIVE, "requests": number}).sums for number in (0, 1, 2, 3)] == [0, 0, 2, 3]


def test_details_of_anthropics_messages_are_read() -> None:
    """Thoughts are read beneath the output; a gateway's inclusive details turn the totals into inclusive ones."""
    counts = {"input_tokens": 100, "output_tokens": 50, "cache_read_input_tokens": 20}
    message = {"type": "message", "role": "assistant", "model": "m"}
    thought = read_response({**message, "usage": {**counts, "output_tokens_details": {"thinking_tokens": 7}}}).usage
    assert thought == Usage(120, 50, 20, reasoning_tokens=7)
    for name in ("input_tokens_details", "input_token_details"):
        inclusive = read_response({**message, "usage": {**counts, name: {"cached_tokens": 20}}}).usage
        assert inclusive == Usage(100, 50, 20)


def test_bedrocks_chunks_are_opened() -> None:
    """An event of Bedrock holds the provider's own event as bytes, beneath `chunk` or alone."""
    event = json.dumps({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}})
    for chunk in ({"chunk": {"bytes": event.encode()}}, {"bytes": event.encode()}):
        assert read_response([chunk]).usage == Usage(3, None)


def test_bytes_that_are_not_base64_are_left_alone() -> None:
    """A chunk whose text only resembles base64 is not decoded, so that it states no tokens by accident."""
    event = json.dumps({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}})
    encoded = base64.b64encode(event.encode()).decode()
    assert read_response([{"bytes": encoded}]).usage == Usage(3, None)
    assert read_response([{"bytes": f"!{encoded}"}]).usage is None


def test_tokens_of_a_modality_have_several_names() -> None:
    """Interactions of Gemini name the tokens of a modality shorter than its other answers do."""
    for name in ("tokenCount", "token_count", "tokens"):
        stated = {"total_input_tokens": 100, "total_output_tokens": 5}
        usage = {**stated, "input_tokens_by_modality": [{"modality": "audio", name: 40}]}
        assert read_response({"usage": usage}).usage == Usage(100, 5, input_audio_tokens=40)


def test_a_stated_length_counts_before_a_list_of_tokens() -> None:
    """Text generation inference may state the prompt's length, its tokens or both."""
    made = {"generated_tokens": 3}
    assert read_response({"details": {**made, "input_length": 7, "prefill": [1, 2]}}).usage == Usage(7, 3)
    assert read_response({"details": {**made, "prefill": [1, 2]}}).usage == Usage(2, 3)
    assert read_response({"details": {**made, "prefill": []}}).usage == Usage(None, 3)


def test_the_end_of_a_long_stream_of_cohere_is_read() -> None:
    """Behind any number of words, the event that ends the stream states why, with or without a response in it."""
    reader = StreamReader("cohere")
    for _ in range(6):
        reader.feed({"event_type": "text-generation", "text": "a"})
    reader.feed({"event_type": "stream-end", "finish_reason": "MAX_TOKENS"})
    assert reader.reading().finish_reasons == ("MAX_TOKENS",)


def test_the_provider_that_a_message_states_is_its_provider() -> None:
    """LangChain states the provider beside the model, whose own name may tell nothing."""
    about = {"model_name": "m", "model_provider": "google_genai"}
    assert read_response({"response_metadata": about, "usage_metadata": CHAT}).provider == "gcp.gemini"
    assert read_response({"response_metadata": {"model_name": "m"}, "usage_metadata": CHAT}).provider is None


def test_an_update_of_agent_framework_with_text_is_content() -> None:
    """A part of an update is content if it is text or a piece of a tool call."""
    for part, is_content in (({"text": "hi"}, True), ({"arguments": "{"}, True), ({"usage_details": {}}, False)):
        assert StreamReader(None).feed({"contents": [part]}) is is_content


@pytest.mark.parametrize("name", ["cache_creation", "cache_creation_token_details"])
def test_the_lifetimes_of_a_cache_write_have_two_names(name: str) -> None:
    """Gateways put Anthropic's split of cache writes beneath the prompt's details, under either name."""
    split = {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10}
    details = {"cached_tokens": 5, "cache_creation_tokens": 30, name: split}
    usage = read_response({"usage": {**CHAT, "prompt_tokens_details": details}}).usage
    assert usage == Usage(100, 50, 5, 30, cache_write_5m_tokens=20, cache_write_1h_tokens=10)
