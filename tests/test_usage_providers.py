"""Answers of many providers, written after their documentation and SDKs: what each states, and what must not matter.

The cases are in `usage_cases.jsonl`, one a line: the response (a list is a stream's events), the provider where a
caller must name it, the usage that is right (what is not named is unknown), and what else the reading says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic._models as anthropic_models
import openai._models as openai_models
import pytest
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from anthropic.types.messages import MessageBatchIndividualResponse
from google.genai.types import EmbedContentResponse, GenerateContentResponse, LiveServerMessage
from openai.types import CreateEmbeddingResponse, ImagesResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from test_usage_properties import holds

from taskpilot_obs.usage import Reading, StreamReader, Usage, read_response

CASES: dict[str, dict[str, Any]] = {
    case["case"]: case
    for case in map(json.loads, Path(__file__).with_name("usage_cases.jsonl").read_text(encoding="utf-8").splitlines())
}
STREAMS = {name: case for name, case in CASES.items() if isinstance(case["response"], list)}
STRINGS_COUNT = {"usage strings"}
"""OpenAI's SDK makes numbers of texts that are numbers."""

every_case = pytest.mark.parametrize("name", CASES)
every_stream = pytest.mark.parametrize("name", STREAMS)


def right(case: dict[str, Any]) -> Usage | None:
    return None if case["usage"] is None else Usage(**case["usage"])


def read(case: dict[str, Any], provider: str | None = None) -> Reading:
    return read_response(case["response"], provider=provider or case["provider"])


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of decoded JSON with every part changed, the innermost first."""
    if isinstance(value, dict):
        return change({key: changed(one, change) for key, one in value.items()})
    if isinstance(value, list):
        return change([changed(one, change) for one in value])
    return change(value)


@every_case
def test_an_answer_reads_as_it_is_documented(name: str) -> None:
    """Usage, model, provider, tier, cost, gap and finish reasons of every answer; flagged only where that is stated."""
    case = CASES[name]
    reading = read(case)
    assert reading.usage == right(case)
    expected = {"inconsistent": False, "gap": None, "cost": None, **case["says"]}
    found = reading._asdict() | {"cost": None if reading.cost is None else str(reading.cost)}
    assert {key: found[key] for key in expected} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in expected.items()
    }
    holds(reading.usage)


@every_case
def test_any_name_of_the_provider_reads_the_same(name: str) -> None:
    """Where the answer says enough for itself, a provider that the caller names, or misnames, changes no number."""
    case = CASES[name]
    if case["provider"] is None:
        for provider in ("openai", "some-gateway"):
            assert read(case, provider).usage == right(case)


@every_case
def test_what_nobody_knows_changes_nothing(name: str) -> None:
    """Fields that no reader has heard of, of any type and at any depth, are harmless."""
    unknown = {"x_new": 7, "x_details": {"tokens_of_a_kind": 9, "list": [{"n": 1}]}, "x_text": "12", "x_null": None}
    case = CASES[name]
    response = changed(case["response"], lambda part: {**part, **unknown} if isinstance(part, dict) else part)
    assert read_response(response, provider=case["provider"]) == read(case)


@every_case
def test_numbers_as_texts_are_never_other_numbers(name: str) -> None:
    """Counts that come as texts are unknown, and where they were the usage that is flagged."""
    case = CASES[name]
    response = changed(case["response"], lambda part: str(part) if type(part) in (int, float) else part)
    reading = read_response(response, provider=case["provider"])
    wrong = {key: value for key, value in (reading.usage or Usage())._asdict().items() if value}
    assert not wrong
    assert reading.inconsistent or case["usage"] is None or not any(case["usage"].values())


@every_case
def test_negative_numbers_are_unknown(name: str) -> None:
    """Counts below zero are never booked, nor taken off others."""
    case = CASES[name]
    response = changed(case["response"], lambda part: -1 - part if type(part) in (int, float) else part)
    reading = read_response(response, provider=case["provider"])
    holds(reading.usage)
    assert not any((reading.usage or Usage())[:2])


@every_stream
def test_events_one_by_one_read_as_the_list_of_them(name: str) -> None:
    """A stream reads the same event by event, as a list, and as the text of an event stream."""
    case = STREAMS[name]
    reader = StreamReader(case["provider"])
    for event in case["response"]:
        reader.feed(event)
    assert reader.reading() == read(case)
    if not any(isinstance(event, dict) and {"data", "chunk"} & event.keys() for event in case["response"]):
        text = "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in case["response"]) + "data: [DONE]\n\n"
        assert read_response(text, provider=case["provider"]) == read(case)


@every_stream
def test_a_stream_that_is_cut_states_less_and_never_more(name: str) -> None:
    """After each event the counts hold and are not beyond those of the whole; repeating events changes nothing."""
    case = STREAMS[name]
    whole = right(case) or Usage()
    reader = StreamReader(case["provider"])
    for event in case["response"]:
        reader.feed(event)
        reader.feed(event)
        usage = reader.reading().usage
        holds(usage)
        for so_far, at_last in zip((usage or Usage())[:2], whole[:2], strict=True):
            assert so_far is None or at_last is None or so_far <= at_last
    assert reader.reading() == read(case)


def starts(*kinds: str) -> Callable[[dict[str, Any]], bool]:
    return lambda first: str(first.get("type", first.get("object", ""))).startswith(kinds)


def has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda first: all(key in first for key in keys)


SDK_TYPES: tuple[tuple[Callable[[dict[str, Any]], bool], Any, Any], ...] = (
    (has("choices", "id", "object", "created"), ChatCompletion, ChatCompletionChunk),
    (starts("response"), Response, ResponseStreamEvent),
    (starts("list"), CreateEmbeddingResponse, None),
    (has("data", "created"), ImagesResponse, None),
    (starts("message"), BetaMessage, BetaRawMessageStreamEvent),
    (has("custom_id", "result"), MessageBatchIndividualResponse, None),
    (has("usageMetadata", "candidates"), GenerateContentResponse, GenerateContentResponse),
    (has("usageMetadata", "promptFeedback"), GenerateContentResponse, None),
    (has("embeddings", "metadata"), EmbedContentResponse, None),
    (has("usage_metadata"), LiveServerMessage, None),
)
"""How a body, or the first event of a stream, looks; what the SDK makes of it, and what of each event."""


def sdk_type(case: dict[str, Any]) -> Any:
    """The type that the provider's SDK makes of a body or of an event; None for what none of those here does."""
    response = case["response"]
    first = response[0] if isinstance(response, list) else response
    if not isinstance(first, dict) or case["case"] in STRINGS_COUNT or "delta" in first:
        return None
    found = next((types for looks, *types in SDK_TYPES if looks(first)), (None, None))
    return found[isinstance(response, list)]


def made(kind: Any, body: Any) -> object:
    """The SDK's own object."""
    if kind in (EmbedContentResponse, LiveServerMessage):
        return kind.model_validate(body)
    if kind is GenerateContentResponse:
        return kind._from_response(response=body, kwargs={})
    module = anthropic_models if "anthropic" in str(kind) else openai_models
    return module.construct_type(type_=kind, value=body)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_sdks_own_objects_read_as_their_bodies() -> None:
    """What the SDKs of OpenAI, Anthropic and Google make of a body, or of each event, reads as that does."""
    compared = 0
    for name, case in CASES.items():
        kind = sdk_type(case)
        if kind is None:
            continue
        response = case["response"]
        objects = [made(kind, event) for event in response] if isinstance(response, list) else made(kind, response)
        assert read_response(objects, provider=case["provider"]) == read(case), name
        compared += 1
    assert compared > 75
