"""A model behind Anthropic's SDK as an arm of `taskpilot-obs bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anthropic

from taskpilot_obs.compare.bench import provider_key
from taskpilot_obs_anthropic.clients import wrap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from taskpilot_obs.integration import Recorder

KEY: Final = "ANTHROPIC_API_KEY"


class AnthropicBenchModel:
    """A model that is asked by streamed messages."""

    provider = "anthropic"
    client = f"anthropic {anthropic.__version__}"

    def __init__(self, client: anthropic.AsyncAnthropic, model: str) -> None:
        self._client = client
        self._model = model
        self.base_url = str(client.base_url)

    async def ask(self, prompt: str, max_tokens: int) -> AsyncIterator[str]:
        """The pieces of the answer."""
        stream = await self._client.messages.create(
            model=self._model,
            max_tokens=max_tokens,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
        )
        async for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


def connect(model: str, *, base_url: str | None, recorder: Recorder, timeout_s: float) -> AnthropicBenchModel:
    """Connect to a model.

    Args:
        model: its name.
        base_url: of another server than Anthropic's, which needs no key.
        recorder: records the calls.
        timeout_s: after which a call fails.

    Raises:
        ConfigurationError: the key is missing.
    """
    key = provider_key(model, KEY, base_url=base_url)
    client = anthropic.AsyncAnthropic(api_key=key, base_url=base_url, max_retries=0, timeout=timeout_s)
    return AnthropicBenchModel(wrap(client, recorder=recorder), model)
