"""What the framework's objects state of a request and of its answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from taskpilot_obs.integration import LlmInvocation, Recorder, guarded

COMPONENT: Final = "pydantic_ai"
"""What has failed, where reading the framework's objects has."""

_DEFAULT_NAME: Final = "agent"
"""What the framework's own spans call an agent without a name."""
_SEVERAL: Final = "fallback:"
"""The beginning of the name of a model that asks one of several."""
_FAKES: Final = ("function", "test")
"""What the framework's models for tests call their provider."""


def agent_name(recorder: Recorder, context: Any) -> str:
    """The name of the agent that runs."""
    with guarded(COMPONENT, recorder.counters):  # an agent may be a class of the application
        return str(getattr(context.agent, "name", None) or _DEFAULT_NAME)
    return _DEFAULT_NAME


def start_call(recorder: Recorder, request: Any) -> LlmInvocation:
    """Begin a call of the model that a request asks for: unknown where the framework chooses one of several."""
    model = request.model
    name = provider = None
    with guarded(COMPONENT, recorder.counters):  # a model may be a class of the application
        name = getattr(model, "model_name", None)
        provider = getattr(model, "system", None)
    if not isinstance(name, str) or name.startswith(_SEVERAL):
        return recorder.start_llm(model=None)
    return recorder.start_llm(model=name, provider=None if provider in _FAKES else provider)


def messages_of(request: Any) -> list[dict[str, Any]]:
    """Instructions and messages, each as role and content."""
    parts = getattr(request.model_request_parameters, "instruction_parts", None) or ()
    system = [{"role": "system", "content": each} for each in _contents(parts)]
    return [*system, *({"role": _role(each), "content": _contents(each.parts)} for each in request.messages)]


def write_answer(call: LlmInvocation, response: Any) -> str:
    """Note what a model answered; returns its text."""
    usage = response.usage
    if usage.input_tokens or usage.output_tokens:  # zeros stand for what a provider did not state
        call.record_usage(
            input_tokens=usage.input_tokens or None,
            output_tokens=usage.output_tokens or None,
            cache_read_tokens=usage.cache_read_tokens or None,
            cache_write_tokens=usage.cache_write_tokens or None,
            reasoning_tokens=usage.details.get("reasoning_tokens"),
            input_audio_tokens=usage.input_audio_tokens or None,
            output_audio_tokens=usage.output_audio_tokens or None,
            cache_read_audio_tokens=usage.cache_audio_read_tokens or None,
        )
    answered_by = response.model_name
    call.record_request(model=answered_by, provider=response.provider_name)
    call.record_answer(
        model=answered_by,
        response_id=response.provider_response_id,
        finish_reasons=() if response.finish_reason is None else (str(response.finish_reason),),
        service_tier=(response.provider_details or {}).get("service_tier"),
    )
    text = "\n".join(each for each in _contents(response.parts) if isinstance(each, str))
    if text:
        call.observe_output(text)
    return text


def words_of(event: Any) -> str | None:
    """The words that an event of a stream adds to the answer; None where it adds none."""
    part = getattr(event, "part", None) if getattr(event, "event_kind", None) == "part_start" else None
    found = getattr(event, "delta", None) if part is None else part
    text = getattr(found, "content_delta" if part is None else "content", None)
    return text if isinstance(text, str) else None


def _role(message: Any) -> str:
    return "assistant" if message.kind == "response" else "user"


def _contents(parts: Iterable[Any]) -> list[Any]:
    found = (getattr(part, "content", None) for part in parts)
    return [content for content in found if content]
