"""Microsoft Agent Framework."""

from __future__ import annotations

import asyncio
from typing import Any

from agent_framework import Agent
from agent_framework.openai import OpenAIChatCompletionClient
from taskpilot_obs_agent_framework import observability_middleware

from taskpilot_obs import observe_tool, observe_workflow


@observe_tool
def lookup() -> str:
    """Something decorated beneath the framework's tool."""
    return "sunny"


def get_weather(city: str) -> str:
    """The weather."""
    return lookup()


def agent(name: str = "Planner", tools: tuple[Any, ...] = (get_weather,), *, middleware: Any = None) -> Any:
    """An agent with one tool."""
    client = OpenAIChatCompletionClient(model="gpt-4o-mini")
    return Agent(client, "You plan.", name=name, tools=list(tools), middleware=middleware)


async def stream(*, middleware: Any = None) -> None:
    """A streamed run that is read to its end."""
    async for _ in agent(middleware=middleware).run("hi", stream=True):
        pass


@observe_workflow(name="outer")
async def nested() -> None:
    """Beneath a decorated workflow, an agent as the tool of another."""
    inner = agent("Researcher", ())
    await agent(tools=(inner.as_tool(name="research", description="r", arg_name="city"),)).run("hi")


async def crowd(*, middleware: Any = None) -> None:
    """Ten runs at once: twenty calls, seen by the framework and by OpenAI's instrumentor."""
    await asyncio.gather(*(agent(middleware=middleware).run("hi") for _ in range(10)))


SCENARIOS = {
    "ok": lambda: agent().run("hi"),
    "stream": stream,
    "fail": lambda: agent(tools=()).run("FAIL"),
    "cancel": lambda: agent(tools=()).run("HANG"),
    "nested": nested,
    "crowd": crowd,
    "native_stream": lambda: stream(middleware=observability_middleware()),
    "native_crowd": lambda: crowd(middleware=observability_middleware()),
}
