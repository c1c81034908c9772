"""What a request of Anthropic's SDK asks a model, and who serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from anthropic._base_client import AsyncAPIClient, SyncAPIClient

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.integration import ModelRequest, Recorder, get_recorder, wrap_sdk_client

if TYPE_CHECKING:
    from collections.abc import Mapping

C = TypeVar("C", bound=SyncAPIClient | AsyncAPIClient)

_MESSAGES: Final = "/v1/messages"
_SAID: Final = ("system", "messages")
_CLOUDS: Final = (("Bedrock", "aws.bedrock"), ("Vertex", "gcp.vertex_ai"))
"""What the names of the classes tell that send Anthropic's protocol to a cloud."""


def wrap(client: C, *, recorder: Recorder | None = None) -> C:
    """Record the model calls of a client: messages, created, streamed or parsed.

    Args:
        client: `Anthropic`, `AsyncAnthropic`, or the SDK's clients for Bedrock and Vertex; changed in place.
            Wrapping it again does nothing. Clients that `with_options` and `copy` make of it are wrapped too.
        recorder: records the calls; the default recorder when left out.

    Returns:
        The very client.

    Raises:
        ConfigurationError: the object is not a client of Anthropic's SDK.
    """
    if not isinstance(client, SyncAPIClient | AsyncAPIClient):
        raise ConfigurationError(f"wrap() takes a client of the anthropic package, got {type(client).__name__}")
    return wrap_sdk_client(client, _asked, recorder or get_recorder(), is_async=isinstance(client, AsyncAPIClient))


def _asked(client: SyncAPIClient | AsyncAPIClient, path: str, body: Mapping[str, Any]) -> ModelRequest | None:
    """What a request asks a model; None for the counting of tokens, batches, files and all else."""
    if not path.endswith(_MESSAGES):
        return None
    model, name = body.get("model"), type(client).__name__
    return ModelRequest(
        model if isinstance(model, str) else None,
        next((provider for part, provider in _CLOUDS if part in name), "anthropic"),
        content=[body[part] for part in _SAID if body.get(part) is not None],
        arguments={"max_tokens": body["max_tokens"]} if "max_tokens" in body else {},
    )
