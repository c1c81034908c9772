"""What a request of OpenAI's SDK asks a model, and who serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from openai import AsyncOpenAI, OpenAI

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.integration import ModelRequest, Operation, Recorder, get_recorder, wrap_sdk_client
from taskpilot_obs.providers.names import provider_at

if TYPE_CHECKING:
    from collections.abc import Mapping

C = TypeVar("C", OpenAI, AsyncOpenAI)

_OPERATIONS: Final = {
    "/chat/completions": Operation.CHAT,
    "/completions": Operation.CHAT,
    "/embeddings": Operation.EMBEDDINGS,
    "/responses": Operation.CHAT,
    "/responses/compact": Operation.CHAT,
}
"""By how a path ends: an address may be whole, and Azure's name a deployment."""
_SAID: Final = ("instructions", "messages", "input", "prompt")
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_OPENAI_HOST: Final = "api.openai.com"


def wrap(client: C, *, recorder: Recorder | None = None) -> C:
    """Record the model calls of a client: chat completions, completions, responses and embeddings.

    Args:
        client: `OpenAI`, `AsyncOpenAI`, `AzureOpenAI` or `AsyncAzureOpenAI`; changed in place. Wrapping it
            again does nothing. Clients that `with_options` and `copy` make of it are wrapped too.
        recorder: records the calls; the default recorder when left out.

    Returns:
        The very client.

    Raises:
        ConfigurationError: the object is not a client of OpenAI's SDK.
    """
    if not isinstance(client, OpenAI | AsyncOpenAI):
        raise ConfigurationError(f"wrap() takes a client of the openai package, got {type(client).__name__}")
    return wrap_sdk_client(client, _asked, recorder or get_recorder(), is_async=isinstance(client, AsyncOpenAI))


def _asked(client: OpenAI | AsyncOpenAI, path: str, body: Mapping[str, Any]) -> ModelRequest | None:
    """What a request asks a model; None for files, lists and all else."""
    operation = next((found for end, found in _OPERATIONS.items() if path.endswith(end)), None)
    if operation is None:
        return None
    model = body.get("model")
    model = model if isinstance(model, str) else None
    host = client.base_url.host
    return ModelRequest(
        model,
        "openai" if host == _OPENAI_HOST else provider_at(str(client.base_url), model),
        operation,
        [body[name] for name in _SAID if body.get(name) is not None],
        {name: body[name] for name in _LIMITS if name in body},
    )
