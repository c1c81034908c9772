"""An agent of Strands with a tool that it may and one that it may not call, on a fake model: no key, no network."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from strands import Agent, tool
from strands.models import Model
from strands.types.exceptions import EventLoopException
from taskpilot_obs_strands import ObservabilityPlugin

from taskpilot_obs import configure, get_recorder, golden_signals
from taskpilot_obs.safety import DenyTools


class FakeModel(Model):  # type: ignore[misc]  # the framework may be missing where types are checked
    """Calls the tool, and then answers."""

    def get_config(self) -> dict[str, Any]:
        """What the plugin reads the model's name from."""
        return {"model_id": "gpt-4o-mini"}

    def update_config(self, **_: Any) -> None:
        """Nothing to change."""

    def structured_output(self, *_: Any, **__: Any) -> Any:
        """Not used here."""
        raise NotImplementedError

    async def stream(self, messages: Any, tool_specs: Any = None, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """One answer."""
        done = any("toolResult" in block for block in messages[-1]["content"])
        yield {"messageStart": {"role": "assistant"}}
        if done:
            yield {"contentBlockDelta": {"delta": {"text": "Done."}}}
        else:
            use = {"toolUseId": "1", "name": tool_specs[0]["name"]}
            yield {"contentBlockStart": {"start": {"toolUse": use}}}
            yield {"contentBlockDelta": {"delta": {"toolUse": {"input": "{}"}}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn" if done else "tool_use"}}
        yield {"metadata": {"usage": {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120}, "metrics": {}}}


@tool  # type: ignore[untyped-decorator]
def get_weather() -> str:
    """The weather."""
    return "sunny"


@tool  # type: ignore[untyped-decorator]
def delete_account() -> str:
    """Deletes the account."""
    raise AssertionError("the policy did not refuse")


if __name__ == "__main__":
    logging.getLogger("strands").setLevel(logging.CRITICAL)  # it logs a refusal with its stack
    configure(policies=[DenyTools(["delete_account"])], mode="enforce")
    for each in (get_weather, delete_account):
        agent = Agent(
            model=FakeModel(), name="Planner", tools=[each], plugins=[ObservabilityPlugin()], callback_handler=None
        )
        try:
            print(str(agent("Do what you can.")).strip())
        except EventLoopException as error:
            print("refused:", error.original_exception)
    get_recorder().drain()
    print("success rate:", golden_signals().success_rate)
