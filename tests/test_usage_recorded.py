"""Recorded exchanges with real providers, through the readers and the price table."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic._models as anthropic_models
import openai._models as openai_models
import pytest
from _figures import measured
from _recorded import VARIABLE, Exchange, events_of, exchanges
from anthropic.types import Message
from genai_prices import extract_usage
from google.genai.types import GenerateContentResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.usage import Reading, StreamReader, Usage, read_response

FIELDS = {
    "input_total": "input_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "input_audio": "input_audio_tokens",
    "input_image": "input_image_tokens",
    "output_total": "output_tokens",
    "reasoning": "reasoning_tokens",
    "output_audio": "output_audio_tokens",
    "output_image": "output_image_tokens",
}
NOT_AS_TRUTH = {
    "writer/palmyra-x4": (
        "an OpenAI-shaped body that states 40 and 300 tokens; the recording took it for one of Cohere's and notes none"
    ),
}
PRICED_AT = datetime(2026, 11, 20, tzinfo=UTC)
"""The agreed costs are those of today's price lists, whenever the exchange was recorded."""
CHANGED_SINCE = {
    "openai.gpt-5.6-luna": "cost five times as much before 2026-07-30",
    "mistral-medium-latest": "named another model, at another price, until it was moved on",
}


def truth_of(exchange: Exchange) -> dict[str, int | None] | None:
    truth: dict[str, int | None] | None = exchange["truth"]
    return truth


def read(exchange: Exchange) -> Reading:
    reader = StreamReader(exchange["provider"])
    for event in events_of(exchange):
        reader.feed(event)
    return reader.reading()


def as_truth(usage: Usage | None) -> dict[str, int | None] | None:
    return None if usage is None else {name: getattr(usage, field) for name, field in FIELDS.items()}


def excepted(exchange: Exchange) -> bool:
    return exchange["kind"] == "cohere.chat" and f"{exchange['provider']}/{exchange['request_model']}" in NOT_AS_TRUTH


def wrong(found: list[tuple[Any, ...]]) -> str:
    return "\n".join(str(one) for one in found)


@pytest.mark.promise("exact-tokens")
def test_tokens_equal_what_the_provider_stated() -> None:
    """Every recorded body and stream reads as the tokens that the provider stated, None where it stated none."""
    differing = [
        (exchange["index"], exchange["provider"], truth_of(exchange), as_truth(read(exchange).usage))
        for exchange in exchanges()
        if as_truth(read(exchange).usage) != truth_of(exchange) and not excepted(exchange)
    ]
    assert not differing, wrong(differing)
    measured("exact-tokens", data=Path(os.environ[VARIABLE]).read_bytes(), exchanges=len(exchanges()))


def test_no_recorded_usage_is_inconsistent() -> None:
    """No provider's numbers are taken for contradictory, so nothing was added or left out by mistake."""
    assert [exchange["index"] for exchange in exchanges() if read(exchange).inconsistent] == []


def test_the_shape_is_recognised_without_the_providers_name() -> None:
    """A response reads the same whether or not the caller says who sent it."""
    for exchange in exchanges():
        reader = StreamReader()
        for event in events_of(exchange):
            reader.feed(event)
        assert reader.reading().usage == read(exchange).usage, exchange["index"]


def test_a_whole_body_reads_as_the_stream_of_its_one_event() -> None:
    """`read_response` and `StreamReader` agree on every body, decoded or as text, and on a list of events."""
    for exchange in exchanges():
        events, expected = events_of(exchange), read(exchange)
        if exchange["streaming"]:
            assert read_response(events, provider=exchange["provider"]) == expected
        else:
            assert read_response(events[0], provider=exchange["provider"]) == expected
            assert read_response(json.dumps(events[0]), provider=exchange["provider"]).usage == expected.usage


def test_the_response_model_is_read() -> None:
    """The model that answered is read from every body that names it."""
    differing = [
        (exchange["index"], exchange["response_model"], read(exchange).model)
        for exchange in exchanges()
        if exchange["response_model"] not in (None, read(exchange).model)
    ]
    assert not differing, wrong(differing)


def test_streams_show_their_first_token_and_errors_show_none() -> None:
    """Every recorded stream has an event with content before its last one; a body that is an error has none."""
    for exchange in exchanges():
        reader = StreamReader(exchange["provider"])
        content = [reader.feed(event) for event in events_of(exchange)]
        if exchange["streaming"]:
            assert any(content), exchange["index"]
        elif "error-object-in-body" in exchange["oddities"]:
            assert not any(content), exchange["index"]
            assert reader.reading().finish_reasons == ("error",)


def cost(table: PriceTable, exchange: Exchange, at: datetime) -> float | None:
    reading = read(exchange)
    price = table.price(
        reading.usage,
        provider=exchange["provider"],
        request_model=exchange["request_model"],
        response_model=reading.model,
        at_unix_ns=int(at.timestamp()) * 1_000_000_000,
        service_tier=reading.service_tier,
    )
    return None if price.cost is None else float(price.cost)


def test_costs_equal_what_two_price_tables_agree_on() -> None:
    """Every exchange whose price is agreed on costs that, within a thousandth."""
    table = PriceTable()
    for exchange in exchanges():
        agreed = exchange["cost"]["consensus_usd"]
        if agreed is not None:
            assert cost(table, exchange, PRICED_AT) == pytest.approx(agreed, rel=1e-3), exchange["index"]


def test_costs_at_the_time_of_the_call_differ_only_where_a_price_changed() -> None:
    """Priced at the time of its recording, an exchange costs the agreed price too, where that has not changed."""
    table = PriceTable()
    for exchange in exchanges():
        agreed, recorded = exchange["cost"]["consensus_usd"], exchange["recorded_at"]
        if agreed is None or recorded is None or exchange["request_model"] in CHANGED_SINCE:
            continue
        at = datetime.fromisoformat(recorded)
        assert cost(table, exchange, at) == pytest.approx(agreed, rel=1e-3), exchange["index"]


@pytest.mark.promise("exact-tokens")
def test_no_usage_has_no_cost() -> None:
    """The cost of an exchange without usage is unknown, never 0."""
    table = PriceTable()
    for exchange in exchanges():
        if truth_of(exchange) is None and not excepted(exchange):
            assert cost(table, exchange, PRICED_AT) is None


def sdk_object(exchange: Exchange) -> object | None:
    """The object that the provider's own SDK makes of a body; None for what has no SDK here."""
    body = events_of(exchange)[0]
    match exchange["kind"]:
        case "chat.completions":
            return openai_models.construct_type(type_=ChatCompletion, value=body)
        case "responses":
            return openai_models.construct_type(type_=Response, value=body)
        case "messages":
            return anthropic_models.construct_type(type_=Message, value=body)
        case "generateContent":
            if isinstance(body["usageMetadata"].get("trafficType"), int):
                return None  # enums as numbers come from a protobuf client, not from this SDK
            return GenerateContentResponse._from_response(response=body, kwargs={})
    return None


def test_the_sdks_own_objects_read_as_their_bodies_do() -> None:
    """Objects of the SDKs of OpenAI, Anthropic and Google say what the JSON says that they were made of."""
    compared = 0
    for exchange in exchanges():
        if exchange["mode"] != "json" or exchange["status"] != 200 or excepted(exchange):
            continue
        made = sdk_object(exchange)
        if made is not None:
            expected, found = read(exchange), read_response(made, provider=exchange["provider"])
            if exchange["kind"] == "generateContent":
                expected = expected._replace(service_tier=found.service_tier)  # Google's SDK drops the field
            assert found == expected, exchange["index"]
            compared += 1
    assert compared > 50


EXTRACTORS = {
    ("openai", "chat.completions"): ("openai", "chat"),
    ("openai", "responses"): ("openai", "responses"),
    ("anthropic", "messages"): ("anthropic", "default"),
    ("google", "generateContent"): ("google", "default"),
}


def test_the_price_tables_own_readers_agree() -> None:
    """Where the price table's library can read a body too, it finds the same totals."""
    compared = 0
    for exchange in exchanges():
        extractor = EXTRACTORS.get((exchange["provider"], exchange["kind"]))
        usage = read(exchange).usage
        if extractor is None or exchange["mode"] != "json" or usage is None:
            continue
        provider, flavor = extractor
        extracted = extract_usage(events_of(exchange)[0], provider_id=provider, api_flavor=flavor).usage
        assert (extracted.input_tokens, extracted.output_tokens) == usage[:2], exchange["index"]
        assert extracted.cache_read_tokens == (usage.cache_read_tokens or 0)
        compared += 1
    assert compared > 30
