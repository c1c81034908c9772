"""Arms: what a benchmark compares. A model behind its provider's SDK, or any callable."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from taskpilot_obs.compare.bench.checkers import imported
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.providers.names import canonical

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder

CONNECTORS: Final = "taskpilot_obs.bench"
"""Entry points by which integrations offer models: each is a function like `Connector`, under the provider's name."""

Said = str | Awaitable[Any] | Iterator[str] | AsyncIterator[str]
Ask = Callable[..., Any]
"""Takes the prompt, and `max_tokens` if it has such a parameter; returns the answer as a text, or in pieces."""


class ConnectedModel(Protocol):
    """What a connector returns."""

    provider: str
    base_url: str
    client: str
    """The SDK with its version."""

    def ask(self, prompt: str, max_tokens: int) -> AsyncIterator[str]:
        """The pieces of the answer; the SDK must not retry."""

    async def aclose(self) -> None:
        """Close the connections of the client."""


class Connector(Protocol):
    """The function behind an entry point of the group `taskpilot_obs.bench`."""

    def __call__(self, model: str, *, base_url: str | None, recorder: Recorder, timeout_s: float) -> ConnectedModel:
        """Connect to a model; a missing key is a `ConfigurationError` that names its environment variable."""


def provider_key(model: str, *variables: str, base_url: str | None) -> str:
    """The key for a model's provider, from the environment; another server than the provider's needs none.

    Args:
        model: its name, for the message.
        variables: the environment variables that may hold the key, the most usual first.
        base_url: of another server.

    Raises:
        ConfigurationError: the key is missing.
    """
    found = next((key for name in variables if (key := os.environ.get(name))), "none" if base_url else None)
    if found is None:
        raise ConfigurationError(f"set {variables[0]} to ask {model}")
    return found


class Spec(NamedTuple):
    """An arm as it was written: `[NAME=]PROVIDER/MODEL[@BASE_URL]` or `[NAME=]MODULE:FUNCTION`."""

    name: str
    provider: str | None
    model: str
    base_url: str | None


class ArmDescription(NamedTuple):
    """What a report says about an arm."""

    provider: str | None
    model: str | None
    base_url: str | None
    client: str | None


NOT_DESCRIBED: Final = ArmDescription(None, None, None, None)


class ConnectedArm(NamedTuple):
    """An arm that can be asked."""

    name: str
    ask: Ask
    described: ArmDescription = NOT_DESCRIBED
    close: Callable[[], Awaitable[None]] | None = None


def spec_of(text: str) -> Spec:
    """Parse an arm.

    Raises:
        ConfigurationError: it is neither a model of a provider nor a function.
    """
    name, named, rest = text.partition("=")
    if not named or "/" in name or ":" in name:  # the sign belongs to the address
        name, rest = "", text
    if "/" not in rest.partition("@")[0]:
        if ":" not in rest:
            raise ConfigurationError(f"arm {text!r}: write PROVIDER/MODEL, PROVIDER/MODEL@BASE_URL or MODULE:FUNCTION")
        return Spec(name or rest, None, rest, None)
    provider, _, model = rest.partition("/")
    model, _, base_url = model.partition("@") if "@http" in model else (model, "", "")
    if not provider or not model:
        raise ConfigurationError(f"arm {text!r}: write PROVIDER/MODEL, such as openai/gpt-4o-mini")
    return Spec(name or f"{provider}/{model}", provider, model, base_url or None)


def connected(spec: Spec, recorder: Recorder, timeout_s: float) -> ConnectedArm:
    """Connect an arm.

    Args:
        spec: the arm.
        recorder: records the calls of a provider's SDK.
        timeout_s: after which the SDK gives up.

    Raises:
        ConfigurationError: the provider is unknown, its key is missing, or the function cannot be imported.
        MissingExtraError: the provider's SDK is not installed.
    """
    if spec.provider is None:
        ask = imported(spec.model, f"arm {spec.name!r}: write MODULE:FUNCTION")
        return ConnectedArm(spec.name, ask, NOT_DESCRIBED._replace(client=spec.model))
    connect = _connector(spec.provider)
    model = connect(spec.model, base_url=spec.base_url, recorder=recorder, timeout_s=timeout_s)
    described = ArmDescription(model.provider, spec.model, model.base_url, model.client)
    return ConnectedArm(spec.name, model.ask, described, model.aclose)


def unconnected(spec: Spec) -> ConnectedArm:
    """An arm that could not be connected, with what its price depends on."""

    def refuse(_: str) -> str:
        raise ConfigurationError(f"arm {spec.name!r} is not connected")

    if spec.provider is None:
        return ConnectedArm(spec.name, refuse)
    return ConnectedArm(spec.name, refuse, ArmDescription(canonical(spec.provider), spec.model, spec.base_url, None))


def _connector(provider: str) -> Connector:
    found = {point.name: point for point in entry_points(group=CONNECTORS)}
    if provider not in found:
        raise ConfigurationError(
            f"provider {provider!r}: allowed are {', '.join(sorted(found))}; for any server with OpenAI's interface "
            "write openai/MODEL@http://HOST/v1"
        )
    try:
        connector: Connector = found[provider].load()
    except ImportError as error:
        extra = found[provider].value.partition(":")[0].removeprefix("taskpilot_obs_").partition(".")[0]
        raise MissingExtraError(f"provider {provider!r}", extra.replace("_", "-")) from error
    return connector


def takes_max_tokens(ask: Ask) -> bool:
    """Whether a callable can be given `max_tokens`."""
    try:
        parameters = inspect.signature(ask).parameters.values()
    except (TypeError, ValueError):  # a built-in
        return False
    return any(each.name == "max_tokens" or each.kind is each.VAR_KEYWORD for each in parameters)
