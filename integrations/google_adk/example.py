"""An agent of Google ADK with a tool that it may and one that it may not call, on a fake model: no key, no network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types
from taskpilot_obs_google_adk import ObservabilityPlugin

from taskpilot_obs import configure, get_recorder, golden_signals
from taskpilot_obs.safety import DenyTools


class FakeModel(BaseLlm):  # type: ignore[misc]  # the framework may be missing where types are checked
    """Calls the tool, and then answers."""

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncGenerator[Any]:  # noqa: ARG002, FBT001, FBT002  the framework's signature
        """One answer."""
        done = any(part.function_response for each in llm_request.contents for part in each.parts)
        call = types.FunctionCall(name=next(iter(llm_request.tools_dict)), args={})
        part = types.Part(text="Done.") if done else types.Part(function_call=call)
        usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=100, candidates_token_count=20)
        yield LlmResponse(content=types.Content(role="model", parts=[part]), usage_metadata=usage)


def get_weather() -> str:
    """The weather."""
    return "sunny"


def delete_account() -> str:
    """Deletes the account."""
    raise AssertionError("the policy did not refuse")


async def ask(tool: Any) -> None:
    """Run an agent with a tool."""
    agent = LlmAgent(name="Planner", model=FakeModel(model="gemini-2.5-flash"), tools=[tool])
    runner = InMemoryRunner(agent=agent, app_name="app", plugins=[ObservabilityPlugin()])
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    message = types.Content(role="user", parts=[types.Part(text="Do what you can.")])
    async with aclosing(runner.run_async(user_id="u", session_id=session.id, new_message=message)) as events:
        async for event in events:
            parts = event.content.parts if event.content else ()
            print(*(part.text for part in parts if part.text), end="")
    print()


async def main() -> None:
    """Run one agent that may, and one that may not, use its tool."""
    await ask(get_weather)
    try:
        await ask(delete_account)
    except RuntimeError as error:
        print("refused:", error.__cause__)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # the framework logs a refusal with its stack
    configure(policies=[DenyTools(["delete_account"])], mode="enforce")
    asyncio.run(main())
    get_recorder().drain()
    print("success rate:", golden_signals().success_rate)
