"""Google's Agent Development Kit."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai import types
from taskpilot_obs_google_adk import ObservabilityPlugin

from taskpilot_obs import observe_tool

os.environ.update(GOOGLE_API_KEY="x", GOOGLE_GEMINI_BASE_URL=os.environ["ANTHROPIC_BASE_URL"])


@observe_tool
def lookup() -> str:
    """Something decorated beneath the framework's tool."""
    return "sunny"


def get_weather(city: str) -> str:
    """The weather."""
    return lookup()


async def ask(text: str = "hi", *, native: bool = True, tools: tuple[Any, ...] = (get_weather,)) -> None:
    """Run an agent with one tool."""
    agent = LlmAgent(name="Planner", model="gemini-2.5-flash", instruction="You plan.", tools=list(tools))
    plugins = [ObservabilityPlugin()] if native else []
    runner = InMemoryRunner(agent=agent, app_name="app", plugins=plugins)
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    message = types.Content(role="user", parts=[types.Part(text=text)])
    async with aclosing(runner.run_async(user_id="u", session_id=session.id, new_message=message)) as events:
        async for _ in events:
            pass


async def crowd() -> None:
    """Ten runs at once: twenty calls, seen by plugin and framework."""
    await asyncio.gather(*(ask() for _ in range(10)))


SCENARIOS = {
    "ok": lambda: ask(native=False),
    "native": ask,
    "native_crowd": crowd,
    "native_fail": lambda: ask("FAIL", tools=()),
}
