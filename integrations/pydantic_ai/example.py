"""An agent of Pydantic AI with a tool that it may and one that it may not call, on a fake model: no key, no network."""

from __future__ import annotations

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from taskpilot_obs_pydantic_ai import ObservabilityCapability

from taskpilot_obs import configure, get_recorder, golden_signals
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.safety import DenyTools


def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


def delete_account() -> str:
    """Deletes the account."""
    raise AssertionError("the policy did not refuse")


if __name__ == "__main__":
    configure(policies=[DenyTools(["delete_account"])], mode="enforce")
    for tool in (get_weather, delete_account):
        model = TestModel(model_name="gpt-4o-mini")
        agent = Agent(model, name="Planner", tools=[tool], capabilities=[ObservabilityCapability()])
        try:
            print(agent.run_sync("Do what you can.").output)
        except PolicyViolationError as refusal:
            print("refused:", refusal)
    get_recorder().drain()
    print("success rate:", golden_signals().success_rate)
