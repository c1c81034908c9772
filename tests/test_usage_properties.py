"""What holds of the readers for every input that JSON can express."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.usage import StreamReader, Usage, envelopes, from_counts, read_response, shapes

KEYS = (
    *shapes.MARKS,
    *shapes.WRAPPERS,
    *shapes.USAGE_KEYS,
    *envelopes.MODEL_KEYS,
    *envelopes.CHOICE_KEYS,
    *("prompt_tokens_details", "input_token_details", "completion_tokens_details", "cached_tokens", "reasoning_tokens"),
    *("cacheReadInputTokens", "thoughtsTokenCount", "promptTokensDetails", "modality", "tokenCount", "total_tokens"),
    *("type", "data", "embedding", "predictions", "error", "bytes", "chunk", "ResponseMetadata", "HTTPHeaders"),
)
NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20),
    st.integers(0, 1_000),
    st.floats(),
    st.decimals(),
    st.booleans(),
    st.text(max_size=5),
)
JSON = st.recursive(
    st.none() | NUMBERS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inside, max_size=6),
    max_leaves=25,
)


def holds(usage: Usage | None) -> None:
    """No count is negative or no number, and no detail exceeds its total."""
    if usage is None:
        return
    assert all(value is None or (type(value) is int and value >= 0) for value in usage)
    given_tokens, generated = usage.input_tokens, usage.output_tokens
    if given_tokens is not None:
        assert (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0) <= given_tokens
        assert (usage.input_audio_tokens or 0) + (usage.input_image_tokens or 0) <= given_tokens
    if generated is not None:
        assert (usage.reasoning_tokens or 0) <= generated
    if usage.cache_write_tokens is not None:
        assert (usage.cache_write_5m_tokens or 0) + (usage.cache_write_1h_tokens or 0) <= usage.cache_write_tokens


@settings(max_examples=300)
@given(response=JSON, provider=st.sampled_from([None, "openai", "anthropic", "google", "bedrock"]))
def test_no_response_raises_or_reads_as_less_than_nothing(response: Any, provider: str | None) -> None:
    """Whatever JSON a provider sends, reading it gives whole, consistent, non-negative counts or None."""
    reading = read_response(response, provider=provider)
    holds(reading.usage)
    table = PriceTable()
    cost = table.price(
        reading.usage,
        provider="openai",
        request_model="gpt-4o",
        response_model=None,
        at_unix_ns=1_790_000_000_000_000_000,
    ).cost
    assert cost is None or cost >= 0


@settings(max_examples=200)
@given(events=st.lists(JSON, max_size=5))
def test_no_stream_raises_or_reads_as_less_than_nothing(events: list[Any]) -> None:
    """Whatever the events of a stream are, none raises, and no count is negative."""
    reader = StreamReader()
    for event in events:
        assert reader.feed(event) in (True, False)
    holds(reader.reading().usage)


@settings(max_examples=300)
@given(counts=st.dictionaries(st.sampled_from(Usage._fields), NUMBERS | st.none()))
def test_counts_of_any_kind_become_a_usage_that_holds(counts: dict[str, Any]) -> None:
    """`from_counts` keeps what is a count, and flags exactly when it left out or cut down something."""
    usage, inconsistent = from_counts(**counts)
    holds(usage)
    kept = all(
        value is None or (not isinstance(value, (bool, str)) and getattr(usage, name) == value)
        for name, value in counts.items()
        if not (isinstance(value, Decimal) and value.is_nan())
    )
    if not inconsistent:
        derived = usage.cache_write_tokens == (usage.cache_write_5m_tokens or 0) + (usage.cache_write_1h_tokens or 0)
        assert kept or derived
    assert from_counts(**usage._asdict()) == (usage, False)
