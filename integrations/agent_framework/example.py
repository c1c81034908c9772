"""An agent of Microsoft's Agent Framework with a tool, on a fake model: no key, no network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    Content,
    FunctionInvocationLayer,
    Message,
    MiddlewareFailure,
)
from taskpilot_obs_agent_framework import observability_middleware

from taskpilot_obs import configure, get_recorder, golden_signals
from taskpilot_obs.safety import DenyTools


class FakeClient(FunctionInvocationLayer, ChatMiddlewareLayer, BaseChatClient):  # type: ignore[misc]
    """Calls the tool, and then answers."""

    model = "gpt-4o-mini"

    def _inner_get_response(self, *, messages: Sequence[Any], options: Mapping[str, Any], **_: Any) -> Any:
        async def answer() -> Any:
            tool, done = options["tools"][0].name, messages[-1].role == "tool"
            call = Content.from_function_call(call_id="1", name=tool, arguments="{}")
            said = Message("assistant", ["Done." if done else call])
            return ChatResponse(messages=[said], usage_details={"input_token_count": 100, "output_token_count": 20})

        return answer()


def get_weather() -> str:
    """The weather."""
    return "sunny"


def delete_account() -> str:
    """Deletes the account."""
    raise AssertionError("the policy did not refuse")


async def main() -> None:
    """Run one agent that may, and one that may not, use its tool."""
    for tool in (get_weather, delete_account):
        agent = Agent(FakeClient(), name="Planner", tools=[tool], middleware=observability_middleware())
        try:
            print((await agent.run("Do what you can.")).text)
        except MiddlewareFailure as failure:
            print("refused:", failure)


if __name__ == "__main__":
    configure(policies=[DenyTools(["delete_account"])], mode="enforce")
    asyncio.run(main())
    get_recorder().drain()
    print("success rate:", golden_signals().success_rate)
