"""Pydantic AI."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from taskpilot_obs_pydantic_ai import ObservabilityCapability

from taskpilot_obs import observe_tool, observe_workflow


@observe_tool
def lookup() -> str:
    """Something decorated beneath the framework's tool."""
    return "sunny"


def get_weather(city: str) -> str:
    """The weather."""
    return lookup()


def agent(name: str = "Planner", tools: tuple[Any, ...] = (get_weather,), *, native: bool = False) -> Any:
    """An agent with one tool."""
    used = [ObservabilityCapability()] if native else []
    return Agent(OpenAIChatModel("gpt-4o-mini"), name=name, tools=list(tools), capabilities=used)


async def stream(*, native: bool = False) -> None:
    """A streamed run that is read to its end."""
    async with agent(native=native).run_stream("hi") as result:
        async for _ in result.stream_text():
            pass


@observe_workflow(name="outer")
async def nested() -> None:
    """Beneath a decorated workflow, an agent in the tool of another."""
    inner = agent("Researcher", ())

    async def research(city: str) -> str:
        return str((await inner.run(city)).output)

    await agent(tools=(research,)).run("hi")


async def crowd(*, native: bool = False) -> None:
    """Ten runs at once: twenty calls, seen by the framework and by OpenAI's instrumentor."""
    await asyncio.gather(*(agent(native=native).run("hi") for _ in range(10)))


SCENARIOS = {
    "ok": lambda: agent().run("hi"),
    "stream": stream,
    "fail": lambda: agent(tools=()).run("FAIL"),
    "cancel": lambda: agent(tools=()).run("HANG"),
    "nested": nested,
    "crowd": crowd,
    "native_stream": lambda: stream(native=True),
    "native_crowd": lambda: crowd(native=True),
}
