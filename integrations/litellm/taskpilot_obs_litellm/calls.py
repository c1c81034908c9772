"""What LiteLLM states about a call: what it asks, who serves it, when it ended, whether its usage was stated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from taskpilot_obs.integration import LlmInvocation, Operation, Status

_OPERATIONS: Final = {
    "embedding": Operation.EMBEDDINGS,
    **dict.fromkeys(("completion", "text_completion", "responses", "anthropic_messages"), Operation.CHAT),
}
STATES_USAGE: Final = {
    *("anthropic", "bedrock", "bedrock_converse", "cohere", "cohere_chat", "gemini", "mistral", "ollama"),
    *("ollama_chat", "vertex_ai", "vertex_ai_beta"),
}
"""Providers whose streams state usage without being asked; for the rest LiteLLM counts by itself."""


class HeldAttempt:
    """The last attempt of a call, kept by LiteLLM's own details of it.

    Cancelled calls and streams that are left call no callback. Their details are then dropped, and this with them.
    """

    def __init__(self, run: LlmInvocation) -> None:
        self.run = run

    def has_failed(self) -> bool:
        """Whether it has ended, and not as a success."""
        return self.run.ended and self.run.status is not Status.SUCCESS

    def __del__(self) -> None:
        self.run.end_as(Status.ABANDONED if self.run.streaming else Status.CANCELLED)

    def __deepcopy__(self, memo: object) -> None:
        """A copy of the details does not keep the call open."""


def operation_of(call_type: object) -> Operation | None:
    """The operation of a type of call (`acompletion`, `embedding`, …); None for what is not a call of a model."""
    name = str(getattr(call_type, "value", call_type))
    return _OPERATIONS.get(name) or _OPERATIONS.get(name.removeprefix("a"))


def is_async(details: Mapping[str, Any]) -> bool:
    """Whether a hook sees the response before the caller does."""
    name = str(details.get("call_type"))
    return name.startswith("a") and name != "anthropic_messages"


def is_streamed(details: Mapping[str, Any]) -> bool:
    """Whether the answer is a stream."""
    return bool(details.get("stream") or (details.get("optional_params") or {}).get("stream"))


def states_usage(details: Mapping[str, Any]) -> bool:
    """Whether the usage comes from the provider: LiteLLM counts tokens itself where a stream does not state them."""
    name = str(details.get("call_type")).removeprefix("a")
    provider = details.get("custom_llm_provider")
    if not is_streamed(details) or provider in STATES_USAGE or name in ("responses", "nthropic_messages"):
        return True
    options = details.get("stream_options") or (details.get("optional_params") or {}).get("stream_options") or {}
    return bool(options.get("include_usage"))


def content_of(arguments: Mapping[str, Any]) -> object:
    """What the model is given."""
    return arguments.get("messages") or arguments.get("input") or arguments.get("prompt") or None


def unix_ns(moment: object) -> int | None:
    """A time of LiteLLM's, in local time, as nanoseconds since the Unix epoch."""
    return int(moment.timestamp() * 1e9) if isinstance(moment, datetime) else None


def note_document(run: LlmInvocation, details: Mapping[str, Any]) -> object:
    """Record the provider's own answer, where it is one document that states usage; returns it, else None."""
    said = details.get("original_response")
    if run.operation is not Operation.CHAT or not isinstance(said, str) or not said.startswith("{"):
        return None
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return None
    if _counts_tokens(answer):
        run.read_later(answer)  # a copy of our own: the application does not have it
        run.observe_output(answer)
        return answer
    run.record_response(answer)
    return None if run.usage is None else answer


def _counts_tokens(answer: Mapping[str, Any]) -> bool:
    """Whether an answer certainly states tokens; where it does not seem to, they may be elsewhere."""
    usage = answer.get("usage") or answer.get("usageMetadata")
    return isinstance(usage, dict) and any(type(count) is int and count > 0 for count in usage.values())


def note_answer(run: LlmInvocation, response: Any, details: Mapping[str, Any]) -> None:
    """Record a response, without a usage that LiteLLM made up."""
    if details.get("cache_hit") is True:
        run.set_cached(True)
    if is_streamed(details) and (at := unix_ns(details.get("completion_start_time"))):
        run.first_token(at_unix_ns=at)
    if states_usage(details):
        run.record_response(response)
        return
    run.set_attribute("usage_not_stated", True)  # noqa: FBT003  an attribute's value
    reasons = [getattr(choice, "finish_reason", None) for choice in getattr(response, "choices", None) or ()]
    run.record_answer(model=getattr(response, "model", None), response_id=getattr(response, "id", None))
    run.record_answer(finish_reasons=[reason for reason in reasons if reason])
