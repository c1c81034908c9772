"""Clients whose model calls are recorded: a call is one `request` of the client, whatever method or helper makes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from openai import AsyncOpenAI, OpenAI
from openai._base_client import BaseClient

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.integration import (
    ModelRequest,
    Operation,
    Recorder,
    call_model,
    call_model_async,
    count_attempt,
    expect_calls,
    get_recorder,
)
from taskpilot_obs.providers.names import provider_at

if TYPE_CHECKING:
    from openai._models import FinalRequestOptions

C = TypeVar("C", OpenAI, AsyncOpenAI)

_OPERATIONS: Final = {
    "/chat/completions": Operation.CHAT,
    "/completions": Operation.CHAT,
    "/embeddings": Operation.EMBEDDINGS,
    "/responses": Operation.CHAT,
}
_SAID: Final = ("instructions", "messages", "input", "prompt")
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_RETRIES: Final = "x-stainless-retry-count"
_RAW: Final = "X-Stainless-Raw-Response"
"""The header by which `with_raw_response` and `with_streaming_response` ask for a response object."""
_OPENAI_HOST: Final = "api.openai.com"


def wrap(client: C, *, recorder: Recorder | None = None) -> C:
    """Record the model calls of a client: chat completions, completions, responses and embeddings.

    Args:
        client: `OpenAI`, `AsyncOpenAI`, `AzureOpenAI` or `AsyncAzureOpenAI`; changed in place, and harmlessly again.
            Clients that `with_options` and `copy` make of it are wrapped too.
        recorder: records the calls; the default recorder when left out.

    Returns:
        The very client.

    Raises:
        ConfigurationError: it is no client of OpenAI's SDK.
    """
    if not isinstance(client, OpenAI | AsyncOpenAI):
        raise ConfigurationError(f"wrap() takes a client of the openai package, got {type(client).__name__}")
    if not isinstance(client, _Observed):
        # The SDK has no middleware, and its resources hold the client: only a subclass sees each request, copies too.
        client.__class__ = _observed_class(cast(Any, type(client)))
    cast(_Observed, client).recorder = recorder
    expect_calls(recorder or get_recorder())
    return client


@cache
def _observed_class(plain: Any) -> Any:
    observed = _ObservedAsync if issubclass(plain, AsyncOpenAI) else _ObservedSync
    return type(plain.__name__, (observed, plain), {"__module__": plain.__module__, "__doc__": plain.__doc__})


class _Observed(BaseClient[Any, Any]):
    """What clients of both kinds share."""

    recorder: Recorder | None = None

    def copy(self, **options: Any) -> Any:
        """As the SDK does; the copy is recorded likewise."""
        made = super().copy(**options)  # type: ignore[misc]  # a class that is mixed into a client
        made.recorder = self.recorder
        return made

    with_options = copy


class _ObservedSync(_Observed):
    def request(self, cast_to: Any, options: FinalRequestOptions, **kwargs: Any) -> Any:
        """Send a request, with its retries; recorded where it asks a model."""
        send = super().request  # type: ignore[misc]  # as above
        asked = _asked(self, options)
        if asked is None:
            return send(cast_to, options, **kwargs)
        return call_model(
            self.recorder or get_recorder(),
            asked,
            lambda: send(cast_to, options, **kwargs),
            _reader(options),
        )

    def _prepare_request(self, request: Any) -> None:
        """The SDK's hook that runs once per attempt."""
        super()._prepare_request(request)  # type: ignore[misc]  # as above
        _count(request)


class _ObservedAsync(_Observed):
    async def request(self, cast_to: Any, options: FinalRequestOptions, **kwargs: Any) -> Any:
        """Send a request, with its retries; recorded where it asks a model."""
        send = super().request  # type: ignore[misc]  # as above
        asked = _asked(self, options)
        if asked is None:
            return await send(cast_to, options, **kwargs)
        return await call_model_async(
            self.recorder or get_recorder(),
            asked,
            lambda: send(cast_to, options, **kwargs),
            _reader(options),
        )

    async def _prepare_request(self, request: Any) -> None:
        """The SDK's hook that runs once per attempt."""
        await super()._prepare_request(request)  # type: ignore[misc]  # as above
        _count(request)


def _count(request: Any) -> None:
    if request.headers.get(_RETRIES, "0") != "0":
        count_attempt()


def _asked(client: _Observed, options: FinalRequestOptions) -> ModelRequest | None:
    """What a request asks a model; None for files, lists and all else."""
    operation = _OPERATIONS.get(options.url.partition("?")[0])
    body = options.json_data
    if operation is None or options.method.lower() != "post" or not isinstance(body, dict):
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


def _reader(options: FinalRequestOptions) -> Callable[[Any], Any]:
    """How to read what the client returns: a model of the SDK, a stream, or the response object that holds either."""
    headers = options.headers
    raw = headers.get(_RAW) if isinstance(headers, dict) else None
    return _RESPONSES.get(raw, _unread)


def _itself(answer: Any) -> Any:
    return answer


def _parsed(response: Any) -> Any:
    """The SDK keeps what it has parsed, so that the application gets the same object."""
    return response.parse()


def _unread(_: Any) -> None:
    """The application reads the body by itself, perhaps never: the usage stays unknown."""


_RESPONSES: Final[dict[str | None, Callable[[Any], Any]]] = {None: _itself, "true": _parsed, "raw": _parsed}
