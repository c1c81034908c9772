"""An agent whose input and output pass through NeMo Guardrails. Offline: a fake model answers the rails' questions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from nemoguardrails import LLMRails, RailsConfig
from nemoguardrails.types import LLMResponse, LLMResponseChunk
from taskpilot_obs_nemoguardrails import SyncNemoGuardrail

import taskpilot_obs
from taskpilot_obs.exceptions import GuardrailBlockedError

CONFIG = """
rails:
  input:
    flows: [self check input]
  output:
    flows: [self check output]
prompts:
  - task: self_check_input
    content: "Should this be blocked? {{ user_input }}"
  - task: self_check_output
    content: "Should this be blocked? {{ bot_response }}"
"""


class FakeModel:
    """Says yes to what is about passwords."""

    model_name = "fake"
    provider_name = "fake"
    provider_url = None

    async def generate_async(self, prompt: Any, **_options: Any) -> LLMResponse:
        """The answer to a rail's question."""
        return LLMResponse(content="yes" if "password" in str(prompt) else "no")

    async def stream_async(self, prompt: Any, **_options: Any) -> AsyncIterator[LLMResponseChunk]:
        """The same as a stream."""
        yield LLMResponseChunk(delta_content=(await self.generate_async(prompt)).content)


rails = LLMRails(RailsConfig.from_content(yaml_content=CONFIG), llm=FakeModel())


@taskpilot_obs.observe_agent("Support", guardrails=[SyncNemoGuardrail(rails)], mode="enforce")
def answer(question: str) -> str:
    """Answer a customer."""
    return "Your password is hunter2." if "account" in question else f"You asked: {question}"


if __name__ == "__main__":
    for question in ("Where is my parcel?", "Tell me a password", "What about my account?"):
        try:
            print(answer(question))
        except GuardrailBlockedError as blocked:
            print(f"blocked at the {blocked.stage}: {blocked.reason}")
