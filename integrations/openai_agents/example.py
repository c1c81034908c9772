"""An agent of the OpenAI Agents SDK with a tool, on a fake model: no key, no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from taskpilot_obs_openai_agents import ObservabilityHooks, observe

from taskpilot_obs import get_recorder, golden_signals


class FakeModel(Model):  # type: ignore[misc]  # the SDK may be missing where types are checked
    """Calls the tool, and then answers."""

    asked = 0

    async def get_response(self, *_: Any, **__: Any) -> Any:
        """One answer."""
        self.asked += 1
        text = ResponseOutputText(type="output_text", text="It is sunny.", annotations=[])
        message = ResponseOutputMessage(id="1", type="message", role="assistant", status="completed", content=[text])
        call = ResponseFunctionToolCall(type="function_call", call_id="1", name="get_weather", arguments="{}")
        return ModelResponse(output=[call if self.asked == 1 else message], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """Not used here."""
        raise NotImplementedError


@function_tool  # type: ignore[untyped-decorator]
def get_weather() -> str:
    """The weather."""
    return "sunny"


if __name__ == "__main__":
    observe(replace=True)
    agent = Agent(name="Planner", model=FakeModel(), tools=[get_weather])
    print(asyncio.run(Runner.run(agent, "How is the weather?", hooks=ObservabilityHooks())).final_output)
    get_recorder().drain()
    print("success rate:", golden_signals().success_rate)
