"""An agent of Haystack with a tool, on a fake model: no key, no network."""

from __future__ import annotations

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from typing import Any

from haystack import component
from haystack.components.agents import Agent
from haystack.dataclasses import ChatMessage, ToolCall
from haystack.tools import tool
from taskpilot_obs_haystack import observe

from taskpilot_obs.testing import capture_invocations


@component
class FakeGenerator:
    """Calls the tool, and then answers."""

    asked = 0

    @component.output_types(replies=list[ChatMessage])  # type: ignore[untyped-decorator]  # Haystack may be missing
    def run(self, messages: list[ChatMessage], tools: Any = None) -> dict[str, Any]:  # noqa: ARG002  Haystack's names
        """One answer."""
        self.asked += 1
        meta = {"model": "gpt-4o-mini", "usage": {"prompt_tokens": 100, "completion_tokens": 20}}
        call = ToolCall(tool_name="get_weather", arguments={"city": "Paris"})
        if self.asked == 1:
            return {"replies": [ChatMessage.from_assistant(tool_calls=[call], meta=meta)]}
        return {"replies": [ChatMessage.from_assistant("It is sunny.", meta=meta)]}


@tool  # type: ignore[untyped-decorator]
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


if __name__ == "__main__":
    observe()
    agent = Agent(chat_generator=FakeGenerator(), tools=[get_weather])
    with capture_invocations() as seen:
        print(agent.run(messages=[ChatMessage.from_user("How is the weather?")])["messages"][-1].text)
        print([(run.name, run.status.value, run.usage and run.usage[:2]) for run in seen])
