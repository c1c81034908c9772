"""A Gemini model behind Google's SDK as an arm of `taskpilot-obs bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import google.genai
from google.genai import types

from taskpilot_obs.compare.bench import provider_key
from taskpilot_obs_google_genai.clients import wrap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from taskpilot_obs.integration import Recorder

KEYS: Final = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_ADDRESS: Final = "https://generativelanguage.googleapis.com/"
_MS: Final = 1_000


class GeminiBenchModel:
    """A model that is asked by streamed content."""

    provider = "gcp.gemini"
    client = f"google-genai {google.genai.__version__}"

    def __init__(self, client: google.genai.Client, model: str, base_url: str) -> None:
        self._client = client
        self._model = model
        self.base_url = base_url

    async def ask(self, prompt: str, max_tokens: int) -> AsyncIterator[str]:
        """The pieces of the answer."""
        stream = await self._client.aio.models.generate_content_stream(
            model=self._model, contents=prompt, config={"max_output_tokens": max_tokens}
        )
        async for chunk in stream:
            yield chunk.text or ""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aio.aclose()
        self._client.close()


def connect(model: str, *, base_url: str | None, recorder: Recorder, timeout_s: float) -> GeminiBenchModel:
    """Connect to a model.

    Args:
        model: its name.
        base_url: of another server than Google's, which needs no key.
        recorder: records the calls.
        timeout_s: after which a call fails.

    Raises:
        ConfigurationError: the key is missing.
    """
    key = provider_key(model, *KEYS, base_url=base_url)
    options = types.HttpOptions(base_url=base_url, timeout=int(timeout_s * _MS))
    client = google.genai.Client(api_key=key, vertexai=False, http_options=options)
    return GeminiBenchModel(wrap(client, recorder=recorder), model, base_url or _ADDRESS)
