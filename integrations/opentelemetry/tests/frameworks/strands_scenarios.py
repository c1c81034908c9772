"""Strands Agents."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2  # noqa: F401  its lazy import in a thread of the framework would race with that of the client
from strands import Agent, tool
from strands.models.openai import OpenAIModel
from taskpilot_obs_strands import ObservabilityPlugin

from taskpilot_obs import observe_tool


@observe_tool
def lookup() -> str:
    """Something decorated beneath the framework's tool."""
    return "sunny"


@tool
def get_weather(city: str) -> str:
    """The weather."""
    return lookup()


def agent(tools: tuple[Any, ...] = (get_weather,), *, native: bool = True) -> Any:
    """An agent with one tool."""
    model = OpenAIModel(client_args={"max_retries": 0}, model_id="gpt-4o-mini")
    used = [ObservabilityPlugin()] if native else []
    return Agent(model=model, tools=list(tools), name="Planner", plugins=used, callback_handler=None)


async def crowd() -> None:
    """Ten runs at once: twenty calls, seen by plugin, framework and OpenAI's instrumentor."""
    await asyncio.gather(*(agent().invoke_async("hi") for _ in range(10)))


SCENARIOS = {
    "ok": lambda: agent(native=False).invoke_async("hi"),
    "native": lambda: agent().invoke_async("hi"),
    "native_crowd": crowd,
    "native_fail": lambda: agent(()).invoke_async("FAIL"),
}
