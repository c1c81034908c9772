"""What Google's SDK asks a model. A call is one request: automatic function calling makes several of one question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.genai import Client
from google.genai.models import AsyncModels, Models

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.integration import (
    ModelRequest,
    Operation,
    Recorder,
    call_model,
    call_model_async,
    expect_calls,
    get_recorder,
    guarded,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_GEMINI, _VERTEX = "gcp.gemini", "gcp.vertex_ai"
_SAID: Final = ("contents", "content", "batch_contents")
_LIMIT: Final = "max_output_tokens"


def wrap(client: Client, *, recorder: Recorder | None = None) -> Client:
    """Record the model calls of a client: content, streams, chats and embeddings, those of `client.aio` too.

    Args:
        client: changed in place; wrapping it again does nothing.
        recorder: records the calls; the default recorder when left out.

    Returns:
        The client that was given.

    Raises:
        ConfigurationError: the object is not a client of Google's SDK.
    """
    if not isinstance(client, Client):
        raise ConfigurationError(f"wrap() takes a client of the google-genai package, got {type(client).__name__}")
    observer = recorder or get_recorder()
    provider = _VERTEX if client.vertexai else _GEMINI
    for models, observed in ((client.models, _ObservedModels), (client.aio.models, _ObservedAsyncModels)):
        target: Any = models
        # The SDK has no hook around a call, and its chats hold this object: only a subclass sees each request.
        target.__class__ = observed
        target.observed_by = observer
        target.provider = provider
    expect_calls(observer)
    return client


def _asked(models: Any, operation: Operation, asked: Mapping[str, Any]) -> ModelRequest:
    """What is asked; where the configuration cannot be read, the checks get it as it is."""
    with guarded("google_genai", models.observed_by.counters):
        return _read(models, operation, asked)
    said = [asked[name] for name in ("config", *_SAID) if asked.get(name) is not None]
    return ModelRequest(_model_of(asked), models.provider, operation, said)


def _read(models: Any, operation: Operation, asked: Mapping[str, Any]) -> ModelRequest:
    config = asked.get("config")
    said = (
        _option(config, "system_instruction"),
        *(asked.get(name) for name in _SAID),
        _option(_option(config, "http_options"), "extra_body"),
        _option(models._api_client._http_options, "extra_body"),  # noqa: SLF001  of the client; no public reader
    )
    limit = _option(config, _LIMIT)
    return ModelRequest(
        _model_of(asked),
        models.provider,
        operation,
        [each for each in said if each is not None],
        {} if limit is None else {_LIMIT: limit},
    )


def _model_of(asked: Mapping[str, Any]) -> str | None:
    model = asked.get("model")
    return model.rpartition("/")[2] if isinstance(model, str) else None


def _option(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, dict) else getattr(config, name, None)


class _ObservedModels(Models):
    observed_by: Recorder
    provider: str

    def _generate_content(self, **asked: Any) -> Any:
        send = super()._generate_content
        return call_model(self.observed_by, _asked(self, Operation.CHAT, asked), lambda: send(**asked))

    def _generate_content_stream(self, **asked: Any) -> Any:
        send = super()._generate_content_stream
        return call_model(self.observed_by, _asked(self, Operation.CHAT, asked), lambda: send(**asked))

    def _embed_content(self, **asked: Any) -> Any:
        send = super()._embed_content
        return call_model(self.observed_by, _asked(self, Operation.EMBEDDINGS, asked), lambda: send(**asked))


class _ObservedAsyncModels(AsyncModels):
    observed_by: Recorder
    provider: str

    async def _generate_content(self, **asked: Any) -> Any:
        send = super()._generate_content
        return await call_model_async(self.observed_by, _asked(self, Operation.CHAT, asked), lambda: send(**asked))

    async def _generate_content_stream(self, **asked: Any) -> Any:
        send = super()._generate_content_stream
        return await call_model_async(self.observed_by, _asked(self, Operation.CHAT, asked), lambda: send(**asked))

    async def _embed_content(self, **asked: Any) -> Any:
        send = super()._embed_content
        return await call_model_async(
            self.observed_by, _asked(self, Operation.EMBEDDINGS, asked), lambda: send(**asked)
        )
