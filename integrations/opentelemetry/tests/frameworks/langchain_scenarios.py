"""LangChain: our handler and OpenAI's instrumentor see the same calls, in synchronous and asynchronous code."""

from __future__ import annotations

import asyncio

import openai
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from taskpilot_obs_langchain import ObservabilityHandler

CONFIG = {"callbacks": [ObservabilityHandler()]}


def get_weather(city: str) -> str:
    """The weather."""
    return "sunny"


def model() -> ChatOpenAI:
    """A model that does not retry."""
    return ChatOpenAI(model="gpt-4o-mini", max_retries=0)


async def plain(text: str = "hi") -> None:
    """One asynchronous call."""
    await model().ainvoke(text, config=CONFIG)


async def sync() -> None:
    """One synchronous call."""
    model().invoke("hi", config=CONFIG)


async def agent() -> None:
    """An agent of two calls and a tool."""
    made = create_agent(model(), [get_weather], name="Planner")
    await made.ainvoke({"messages": [("user", "hi")]}, config=CONFIG)


async def direct() -> None:
    """A call past LangChain."""
    async with openai.AsyncOpenAI() as client:
        await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])


async def crowd() -> None:
    """Twenty calls at once: of agents, plain, and past LangChain."""
    await asyncio.gather(*(agent() for _ in range(5)), *(plain() for _ in range(4)), *(direct() for _ in range(6)))


async def failing() -> None:
    """Ten failures at once, none of which has a response ID."""
    await asyncio.gather(*(plain("FAIL") for _ in range(10)), return_exceptions=True)


SCENARIOS = {"ok": agent, "sync": sync, "plain": plain, "crowd": crowd, "failing": failing}
