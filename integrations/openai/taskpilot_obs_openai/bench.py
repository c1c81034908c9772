"""A model behind OpenAI's SDK, or behind any server with OpenAI's interface, as an arm of `taskpilot-obs bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import openai

from taskpilot_obs.compare.bench import provider_key
from taskpilot_obs_openai.clients import wrap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from taskpilot_obs.integration import Recorder

KEY: Final = "OPENAI_API_KEY"


class OpenAIBenchModel:
    """A model that is asked by streamed chat completions."""

    provider = "openai"
    client = f"openai {openai.__version__}"

    def __init__(self, client: openai.AsyncOpenAI, model: str, *, is_openai: bool) -> None:
        self._client = client
        self._model = model
        self._is_openai = is_openai
        self.base_url = str(client.base_url)

    async def ask(self, prompt: str, max_tokens: int) -> AsyncIterator[str]:
        """The pieces of the answer."""
        limit = "max_completion_tokens" if self._is_openai else "max_tokens"  # other servers know the older name
        stream = await self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={limit: max_tokens},
        )
        async for chunk in stream:
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


def connect(model: str, *, base_url: str | None, recorder: Recorder, timeout_s: float) -> OpenAIBenchModel:
    """Connect to a model.

    Args:
        model: its name.
        base_url: of another server than OpenAI's, which needs no key.
        recorder: records the calls.
        timeout_s: after which a call fails.

    Raises:
        ConfigurationError: the key is missing.
    """
    key = provider_key(model, KEY, base_url=base_url)
    client = openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=timeout_s)
    return OpenAIBenchModel(wrap(client, recorder=recorder), model, is_openai=base_url is None)
