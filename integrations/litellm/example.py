"""LiteLLM with a mocked answer: no key, no network. A call is recorded, another refused."""

from __future__ import annotations

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # LiteLLM would fetch prices when it is imported

import litellm
from taskpilot_obs_litellm import observe

from taskpilot_obs import configure, track_agent
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.safety import DenyWords
from taskpilot_obs.testing import capture_invocations


async def ask(text: str) -> str:
    """One question to a model."""
    answer = await litellm.acompletion(
        model="openai/gpt-4o-mini", messages=[{"role": "user", "content": text}], mock_response="It is sunny."
    )
    return str(answer.choices[0].message.content)


async def main() -> None:
    """Two questions of an agent."""
    async with track_agent("Planner"):
        print(await ask("How is the weather?"))
        try:
            await ask("drop table users")
        except PolicyViolationError as refused:
            print("refused:", refused)


if __name__ == "__main__":
    configure(policies=[DenyWords(["drop table"])], mode="enforce")
    observe()
    with capture_invocations() as seen:
        asyncio.run(main())
        print([(run.name, run.status.value, run.usage and run.usage[:2]) for run in seen])
