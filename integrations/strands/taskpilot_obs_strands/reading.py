"""What the framework's objects state: models, usage, and the exceptions that others hide."""

from __future__ import annotations

from typing import Any, Final

from strands.types.exceptions import EventLoopException

from taskpilot_obs.integration import LlmInvocation, Status, answer_limits, note_sound_dropped

_PROVIDERS: Final = {
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "ollama": "ollama",
    "openai": "openai",
    "openai_responses": "openai",
}
"""By the framework's module of the model's class."""
_WITHOUT_CACHED: Final = frozenset({"anthropic", "bedrock"})
"""Modules whose input tokens leave out those of the cache, as their providers do."""
_STATUSES: Final = {
    "cancelled": Status.CANCELLED,
    "guardrail_intervened": Status.BLOCKED,
    "interrupt": Status.INTERRUPTED,
}
"""By the reason why an agent stopped."""


def cause_of(error: BaseException) -> BaseException:
    """The exception that one of the framework's event loop stands for."""
    while isinstance(error, EventLoopException):
        error = error.original_exception
    return error


def status_of(stop_reason: object) -> Status:
    """How an agent ended."""
    return _STATUSES.get(str(stop_reason), Status.SUCCESS)


def model_of(model: Any) -> str | None:
    """The model that is asked."""
    stated = model.get_config().get("model_id")
    return stated if isinstance(stated, str) else None


def limits_of(model: Any) -> dict[str, object]:
    """How long an answer may be: classes state it in their configuration, or in its `params`."""
    config = model.get_config()
    return {**answer_limits(config.get("params")), **answer_limits(config)}


def provider_of(model: Any) -> str | None:
    """Who serves it, as far as its class says."""
    return _PROVIDERS.get(_module(model))


def write_usage(call: LlmInvocation, usage: Any, model: Any) -> None:
    """Note the tokens of a call."""
    given, output = usage.get("inputTokens"), usage.get("outputTokens")
    if not given and not output:  # zeros stand for what a provider did not state
        return
    read, write = usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")
    if given is not None and _module(model) in _WITHOUT_CACHED:
        given += (read or 0) + (write or 0)
    call.record_usage(input_tokens=given, output_tokens=output, cache_read_tokens=read, cache_write_tokens=write)
    note_sound_dropped(call)


def texts_of(message: Any) -> str:
    """The text of a message or of a tool's result, whose data counts as text."""
    said = (block.get("text") or block.get("json") for block in message.get("content") or ())
    return "\n".join(each if isinstance(each, str) else str(each) for each in said if each)


def _module(model: Any) -> str:
    home = next((each.__module__ for each in type(model).__mro__ if each.__module__.startswith("strands.models.")), "")
    return home.rpartition(".")[2]
