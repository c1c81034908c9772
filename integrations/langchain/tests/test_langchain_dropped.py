"""What LangChain's packages drop is never booked as complete: each way is partial, and the documented table is true."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from _replay import ReplayServer, exchange
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_openai import ChatOpenAI
from openai import ContentFilterFinishReasonError, LengthFinishReasonError
from pydantic import BaseModel, SecretStr, ValidationError
from taskpilot_obs_langchain import ObservabilityHandler
from taskpilot_obs_langchain.dropped import WAYS, Way

from taskpilot_obs.records import Invocation, Pricing
from taskpilot_obs.testing import Captured

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the SDKs' own, about their own
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of pydantic, about bodies that models outgrew
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of clients that LangChain keeps open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # raised when they are collected
]

DOCS = Path(__file__).parents[3] / "docs" / "langchain.md"
KEY = SecretStr("none")
BETA = ["context-management-2025-06-27"]
LS = {
    "anthropic": ("anthropic", "claude-sonnet-4-5"),
    "aws.bedrock": ("amazon_bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    "mistral_ai": ("mistral", "voxtral-small-latest"),
    "deepseek": ("deepseek", "deepseek-chat"),
    "moonshotai": ("moonshot", "kimi-k2-0905-preview"),
    "together": ("together", "moonshotai/Kimi-K2-Instruct-0905"),
    "databricks": ("databricks", "claude-sonnet-4-5"),
    "litellm": ("litellm", "anthropic/claude-sonnet-4-5"),
    "groq": ("groq", "moonshotai/kimi-k2-instruct-0905"),
    "fireworks": ("fireworks", "accounts/fireworks/models/kimi-k2-instruct-0905"),
    "perplexity": ("perplexity", "sonar-pro"),
    "x_ai": ("xai", "grok-4-fast"),
    "openrouter": ("openrouter", "anthropic/claude-sonnet-4.5"),
    "deepinfra": ("deepinfra", "moonshotai/Kimi-K2-Instruct-0905"),
}


def answer(way: Way, usage: dict[str, Any], *, content: Any = "Yes.", **about: Any) -> None:
    """One call as LangChain announces it, answered with this usage."""
    handler, run_id = ObservabilityHandler(), uuid4()
    provider, model = LS[way.providers[0]]
    metadata = {"ls_provider": provider, "ls_model_name": model}
    handler.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run_id, metadata=metadata)
    if way.streamed:
        handler.on_llm_new_token("Y", run_id=run_id, chunk=ChatGenerationChunk(message=AIMessageChunk(content="Y")))
    message = AIMessage(content, usage_metadata=usage, response_metadata={"model_name": model, **about})
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run_id)


def label(way: Way) -> str:
    return f"{way.model_class} at {way.providers[0]}, {'streamed' if way.streamed else 'whole'}"


@pytest.mark.parametrize("way", WAYS, ids=label)
def test_what_a_package_drops_is_not_booked_as_complete(way: Way, seen: Captured[Invocation]) -> None:
    """Where a number that has its own price is dropped, the call is partial or has no price; never fully priced."""
    written = {"cache_creation": 40} if way.dropped == ("cache_write_1h_tokens",) else {}
    usage = {"input_tokens": 100, "output_tokens": 5, "total_tokens": 105, "input_token_details": written}
    answer(way, usage)
    (run,) = seen
    assert run.usage is not None
    assert run.usage[:2] == (100, 5)
    assert run.pricing in (Pricing.PARTIAL, Pricing.UNPRICED)


def test_what_is_handed_on_is_complete(seen: Captured[Invocation]) -> None:
    """A stream that states its cache reads, or wrote nothing into the cache, is priced in full."""
    usage = {"input_tokens": 100, "output_tokens": 5, "total_tokens": 105}
    answer(WAYS[0], usage | {"input_token_details": {"cache_read": 60, "cache_creation": 0}})
    deepseek = next(way for way in WAYS if way.providers == ("deepseek",))
    answer(deepseek, usage | {"input_token_details": {"cache_read": 60}})
    assert [(run.pricing, run.price_gap) for run in seen] == [(Pricing.PRICED, None)] * 2


def test_a_zero_beside_an_answer_is_unknown(seen: Captured[Invocation]) -> None:
    """LangChain's 0 stands where the provider stated nothing: an answer takes tokens, so the usage is missing."""
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    answer(WAYS[0], usage)
    answer(WAYS[0], {"input_tokens": 10, "output_tokens": 0, "total_tokens": 10})
    nothing, half = seen
    assert (nothing.is_usage_missing, nothing.pricing) == (True, Pricing.UNPRICED)
    assert (half.usage and half.usage.output_tokens, half.pricing) == (None, Pricing.UNPRICED)


def test_blocks_of_an_answer_tell_what_is_billed_besides(seen: Captured[Invocation]) -> None:
    """A server's tool, or a fallback to another model, is seen in the content where the usage is not handed on."""
    usage = {"input_tokens": 100, "output_tokens": 5, "total_tokens": 105, "input_token_details": {"cache_read": 0}}
    for block in ({"type": "server_tool_use", "name": "web_search"}, {"type": "fallback"}):
        answer(WAYS[0], usage, content=[block, {"type": "text", "text": "Yes."}])
    assert [run.price_gap for run in seen] == ["server_tools", "other_model"]


def test_mistral_does_not_name_the_model_that_answered(seen: Captured[Invocation]) -> None:
    """ChatMistralAI repeats the requested model in whole answers, so the answering one stays unknown."""
    mistral = next(way for way in WAYS if way.providers == ("mistral_ai",))._replace(streamed=False)
    answer(mistral, {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}, model_provider="mistralai")
    (run,) = seen
    assert (run.response_model, run.model) == (None, "voxtral-small-latest")


MISTRAL = {"id": "m", "created": 1, "model": "mistral-large-2512"}
MISTRAL_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 5,
    "total_tokens": 105,
    "prompt_tokens_details": {"cached_tokens": 64},
}


def through_mistral(said: Any) -> None:
    """One call of LangChain's client of Mistral to a server that says this."""
    client: Any = pytest.importorskip("langchain_mistralai")
    with ReplayServer([exchange(said)]) as server:
        model = client.ChatMistralAI(
            model_name="mistral-large-latest", api_key=KEY, base_url=server.url(0), max_retries=1
        )
        config: Any = {"callbacks": [ObservabilityHandler()]}
        if isinstance(said, list):
            list(model.stream("hello", config))
        else:
            model.invoke("hello", config)


def test_mistral_over_http(seen: Captured[Invocation]) -> None:
    """ChatMistralAI's whole answers are priced with what was cached; its streams lose that, and are partial."""
    message = {"role": "assistant", "content": "Yes."}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    through_mistral({**MISTRAL, "object": "chat.completion", "choices": choices, "usage": MISTRAL_USAGE})
    deltas = (
        [{"index": 0, "delta": message, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    )
    chunks = [{**MISTRAL, "object": "chat.completion.chunk", "choices": delta} for delta in deltas]
    through_mistral([chunks[0], {**chunks[1], "usage": MISTRAL_USAGE}])
    whole, streamed = seen
    assert [(run.usage and run.usage[:3], run.response_model) for run in seen] == [
        ((100, 5, 64), None),
        ((100, 5, None), "mistral-large-2512"),
    ]
    assert (whole.pricing, whole.price_gap) == (Pricing.PRICED, None)
    assert (streamed.pricing, streamed.price_gap) == (Pricing.PARTIAL, "details_dropped")


class Place(BaseModel):
    """What a structured answer must be."""

    city: str


ASYNC = (False, True)
RAISED_ON = {"length": "{", "content_filter": "", "stop": "no JSON"}


@pytest.mark.parametrize("asynchronous", ASYNC)
@pytest.mark.parametrize(("reason", "content"), RAISED_ON.items(), ids=RAISED_ON)
def test_an_answer_that_the_client_cannot_take_is_booked(
    reason: str, content: str, asynchronous: bool, seen: Captured[Invocation]
) -> None:
    """Structured output that is cut, filtered or no JSON raises on HTTP 200; the call has the usage of the answer."""
    choices = [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": content}}]
    usage = {"prompt_tokens": 4_000, "completion_tokens": 16_000, "total_tokens": 20_000}
    said = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": choices, "usage": usage}
    with ReplayServer([exchange(said)]) as server:
        options: dict[str, Any] = {"api_key": KEY, "base_url": server.url(0), "max_retries": 0}
        config: Any = {"callbacks": [ObservabilityHandler()]}

        async def ask_later() -> None:
            async with httpx.AsyncClient() as client:  # LangChain's own would stay open behind the loop
                model = ChatOpenAI(model="gpt-4o", http_async_client=client, **options)
                await model.with_structured_output(Place, method="json_schema").ainvoke("hello", config)

        def ask() -> None:
            model = ChatOpenAI(model="gpt-4o", **options)
            model.with_structured_output(Place, method="json_schema").invoke("hello", config)

        with pytest.raises((LengthFinishReasonError, ContentFilterFinishReasonError, ValidationError)):
            asyncio.run(ask_later()) if asynchronous else ask()
    call = next(run for run in seen if run.name == "gpt-4o")
    assert (call.status, call.usage and call.usage[:2], call.cost) == ("error", (4_000, 16_000), Decimal("0.17"))


ASKED: dict[str, tuple[dict[str, Any], str | None]] = {
    "a place": ({"inference_geo": "us"}, "surcharge"),
    "any place": ({"inference_geo": "global"}, None),
    "a speed": ({"model_kwargs": {"extra_body": {"speed": "fast"}}}, "surcharge"),
    "other models": ({"model_kwargs": {"extra_body": {"fallbacks": ["claude-haiku-4-5"]}}}, "other_model"),
    "compactions": (
        {"betas": BETA, "context_management": {"edits": [{"type": "compact_20260112"}]}},
        "details_dropped",
    ),
    "edits without a bill": ({"betas": BETA, "context_management": {"edits": [{"type": "clear_tool_uses"}]}}, None),
}


@pytest.mark.parametrize(("options", "gap"), ASKED.values(), ids=ASKED)
def test_a_stream_of_anthropic_does_not_repeat_what_costs_more(
    options: dict[str, Any], gap: str | None, seen: Captured[Invocation]
) -> None:
    """What was asked for, and is nowhere in a streamed answer of ChatAnthropic, makes its cost partial."""
    start: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-sonnet-4-5",
    }
    start |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
    said = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Yes."}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"input_tokens": 10, "output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    with ReplayServer([exchange(said)]) as server:
        named: Any = {"model": "claude-sonnet-4-5", "api_key": KEY, "base_url": server.url(0), "max_retries": 0}
        model = ChatAnthropic(**named, **options)
        list(model.stream("hello", {"callbacks": [ObservabilityHandler()]}))
    (run,) = seen
    assert run.usage is not None
    assert run.usage[:2] == (10, 5)
    assert (run.pricing, run.price_gap) == (Pricing.PRICED if gap is None else Pricing.PARTIAL, gap)


def table() -> str:
    """The table of the documentation."""
    lines = ["| class | provider | way | dropped |", "| --- | --- | --- | --- |"]
    for way in WAYS:
        dropped = [f"`{name}`" for name in way.dropped] + ["the cost"] * way.cost_dropped
        mode = "streamed" if way.streamed else "whole"
        lines.append(f"| `{way.model_class}` | {', '.join(way.providers)} | {mode} | {', '.join(dropped)} |")
    return "\n".join(lines)


def test_the_documented_table_is_that_of_the_ways() -> None:
    """`docs/langchain.md` lists what is dropped, as these tests prove it."""
    assert table() in DOCS.read_text(encoding="utf-8"), table()
