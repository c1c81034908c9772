"""A crew with a tool that it may and one that it may not call, on a fake model: no key, no network."""

from __future__ import annotations

import os

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "CREWAI_TESTING": "true"}

from typing import Any

from crewai import Agent, BaseLLM, Crew, Task
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import llm_call_context
from crewai.tools import tool
from taskpilot_obs_crewai import observe

from taskpilot_obs import configure
from taskpilot_obs.safety import DenyTools
from taskpilot_obs.testing import capture_invocations

STEPS = [
    'Action: get_weather\nAction Input: {"city": "Paris"}',
    'Action: delete_account\nAction Input: {"user": "jane"}',
    "Thought: I now know the final answer\nFinal Answer: It is sunny.",
]


class FakeLLM(BaseLLM):  # type: ignore[misc]  # the framework may be missing where types are checked
    """Calls both tools, and then answers."""

    asked: int = 0

    def call(self, messages: Any, *_: Any, from_task: Any = None, from_agent: Any = None, **__: Any) -> str:
        """One answer, reported as crewAI's own classes report theirs."""
        with llm_call_context():
            self._emit_call_started_event(messages, from_task=from_task, from_agent=from_agent)
            answer = STEPS[self.asked % len(STEPS)]
            self.asked += 1
            usage = {"prompt_tokens": 100, "completion_tokens": 20}
            self._emit_call_completed_event(answer, LLMCallType.LLM_CALL, from_task, from_agent, messages, usage)
        return answer


@tool("get_weather")  # type: ignore[untyped-decorator]
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@tool("delete_account")  # type: ignore[untyped-decorator]
def delete_account(user: str) -> str:
    """Deletes the account of a user."""
    raise AssertionError(f"the policy did not refuse: {user}")


if __name__ == "__main__":
    configure(policies=[DenyTools(["delete_account"])], mode="enforce")
    observe()
    planner = Agent(
        role="Planner",
        goal="Answer.",
        backstory="-",
        llm=FakeLLM(model="gpt-4o-mini"),
        tools=[get_weather, delete_account],
    )
    task = Task(description="How is the weather?", expected_output="A sentence", agent=planner)
    with capture_invocations() as seen:
        print(Crew(agents=[planner], tasks=[task], name="support").kickoff().raw)
        print([(run.name, run.status.value, run.usage and run.usage[:2]) for run in seen])
