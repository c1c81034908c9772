"""What has a price of its own, by way of frameworks: tokens of audio, and the service tier that a provider charged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Final

import httpx2
import pytest
from _bridged import openai_spans_bridged
from _provider import answering
from openai import AsyncOpenAI

from taskpilot_obs.integration import get_recorder
from taskpilot_obs.records import Invocation, Operation, Pricing, Usage
from taskpilot_obs.testing import Captured

MODEL: Final = "gpt-audio"
STATED: Final = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 30},
}
WHOLE: Final = Usage(100, 50, cache_read_tokens=20, input_audio_tokens=60, reasoning_tokens=5, output_audio_tokens=30)


async def by_wrapped_client(client: AsyncOpenAI) -> None:
    from taskpilot_obs_openai import wrap

    await wrap(client).chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])


async def by_agent_framework(client: AsyncOpenAI) -> None:
    from agent_framework import Agent
    from agent_framework.openai import OpenAIChatCompletionClient
    from taskpilot_obs_agent_framework import observability_middleware

    model = OpenAIChatCompletionClient(model=MODEL, async_client=client)
    await Agent(model, middleware=observability_middleware()).run("hi")


async def by_pydantic_ai(client: AsyncOpenAI) -> None:
    from taskpilot_obs_pydantic_ai import ObservabilityCapability

    await ask_pydantic_ai(client, ObservabilityCapability())


async def by_spans_of_pydantic_ai(client: AsyncOpenAI) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from pydantic_ai.capabilities import Instrumentation
    from pydantic_ai.models.instrumented import InstrumentationSettings
    from taskpilot_obs_opentelemetry import GenAiBridge

    spans = TracerProvider()
    spans.add_span_processor(GenAiBridge())
    await ask_pydantic_ai(client, Instrumentation(InstrumentationSettings(tracer_provider=spans)))
    spans.shutdown()


async def ask_pydantic_ai(client: AsyncOpenAI, capability: Any) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
    await Agent(model, capabilities=[capability]).run("hi")


async def by_langchain(client: AsyncOpenAI) -> None:
    from langchain_openai import ChatOpenAI
    from taskpilot_obs_langchain import ObservabilityHandler

    chat = client.chat.completions
    model = ChatOpenAI(model=MODEL, api_key="k", client=chat, async_client=chat, callbacks=[ObservabilityHandler()])
    await model.ainvoke("hi")


async def by_openai_agents(client: AsyncOpenAI) -> None:
    import agents
    from taskpilot_obs_openai_agents import observe

    observe(replace=True)
    try:
        model = agents.OpenAIChatCompletionsModel(MODEL, client)
        await agents.Runner.run(agents.Agent(name="Planner", model=model), "hi")
    finally:
        agents.set_trace_processors([])


def call_by(
    ask: Callable[[AsyncOpenAI], Awaitable[None]], seen: Captured[Invocation], answers: httpx2.AsyncClient | None = None
) -> Invocation:
    async def run() -> None:
        async with AsyncOpenAI(api_key="k", http_client=answers or answering(STATED), max_retries=0) as client:
            await ask(client)

    asyncio.run(run())
    (call,) = (each for each in seen if each.operation is Operation.CHAT)
    return call


@pytest.mark.parametrize(
    "ask", [by_wrapped_client, by_agent_framework, by_pydantic_ai, by_spans_of_pydantic_ai, by_langchain]
)
def test_audio_is_handed_on(ask: Callable[[AsyncOpenAI], Awaitable[None]], seen: Captured[Invocation]) -> None:
    """Tokens of audio arrive as the provider states them, so that none is priced as text."""
    assert call_by(ask, seen).usage == WHOLE


def test_audio_that_a_framework_drops(seen: Captured[Invocation]) -> None:
    """OpenAI Agents drop how many tokens were audio: the cost of an audio model is partial."""
    call = call_by(by_openai_agents, seen)
    assert call.usage is not None
    assert (call.usage[:2], call.usage.input_audio_tokens, call.pricing) == ((100, 50), None, Pricing.PARTIAL)


FLEX: Final = ("gpt-5-mini-2025-08-07", Decimal("0.000625"))
"""The model that answers, and what 1,000 input and 500 output tokens cost at half the price."""


def answer_at_flex(request: httpx2.Request) -> httpx2.Response:
    """Answer a chat completion, whole or streamed, and state the tier `flex`."""
    base = {"id": "c-1", "created": 1, "model": FLEX[0], "service_tier": "flex"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    said = {"role": "assistant", "content": "hi"}
    if not json.loads(request.content).get("stream"):
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        return httpx2.Response(200, json={**base, "object": "chat.completion", "choices": [choice], "usage": usage})
    chunk = {**base, "object": "chat.completion.chunk"}
    first = {**chunk, "choices": [{"index": 0, "delta": said, "finish_reason": "stop"}]}
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in (first, {**chunk, "choices": [], "usage": usage}))
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=body + "data: [DONE]\n\n")


async def streamed_by_agent_framework(client: AsyncOpenAI) -> None:
    from agent_framework import Agent
    from agent_framework.openai import OpenAIChatCompletionClient
    from taskpilot_obs_agent_framework import observability_middleware

    model = OpenAIChatCompletionClient(model="gpt-5-mini", async_client=client)
    async for _ in Agent(model, middleware=observability_middleware()).run("hi", stream=True):
        pass


async def with_spans_beneath(client: AsyncOpenAI) -> None:
    with openai_spans_bridged(get_recorder()):
        await by_agent_framework(client)


async def by_spans_of_openai(client: AsyncOpenAI) -> None:
    with openai_spans_bridged(get_recorder()):
        await client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    "ask",
    [
        by_wrapped_client,
        by_pydantic_ai,
        by_langchain,
        streamed_by_agent_framework,
        with_spans_beneath,
        by_spans_of_openai,
    ],
)
def test_the_tier_is_handed_on(ask: Callable[[AsyncOpenAI], Awaitable[None]], seen: Captured[Invocation]) -> None:
    """A call costs what its tier costs, as far as the framework or a span beneath it hands the tier on."""
    call = call_by(ask, seen, httpx2.AsyncClient(transport=httpx2.MockTransport(answer_at_flex)))
    assert (call.response_model, call.cost) == FLEX
