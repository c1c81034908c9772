"""What the framework's objects state: texts, answers with their usage, and the errors that others hide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent_framework import MiddlewareFailure
from agent_framework.exceptions import ChatClientException

from taskpilot_obs.integration import ActiveInvocation, LlmInvocation, RefusedError, Status, guarded, register_status

COMPONENT: Final = "agent_framework"

register_status("agent_framework._middleware.MiddlewareTermination", Status.INTERRUPTED)
register_status("agent_framework._middleware.MiddlewareFailure", Status.BLOCKED)
register_status("agent_framework.exceptions.UserInputRequiredException", Status.INTERRUPTED)


def cause_of(error: BaseException) -> BaseException:
    """The refusal or the provider's exception that an exception of the framework stands for."""
    cause = error.__cause__
    if isinstance(error, MiddlewareFailure) and isinstance(cause, RefusedError):
        return cause
    return cause if isinstance(error, ChatClientException) and cause is not None else error


def agent_name(agent: Any) -> str:
    """The name of an agent; its class where it has none, because IDs would be labels without bound."""
    return str(getattr(agent, "name", None) or type(agent).__name__)


def model_of(context: Any) -> str | None:
    """The model that a request asks for: that of its options, or of the client."""
    stated = (context.options or {}).get("model") or getattr(context.client, "model", None)
    return stated if isinstance(stated, str) else None


def provider_of(client: Any) -> str | None:
    """The provider that a client names; None for one that names none, or "unknown"."""
    stated = getattr(client, "OTEL_PROVIDER_NAME", None)
    return stated if isinstance(stated, str) and stated != "unknown" else None


def messages_of(context: Any) -> list[dict[str, str]]:
    """Instructions and messages, as role and text."""
    instructions = (context.options or {}).get("instructions")
    above = [] if not isinstance(instructions, str) else [{"role": "system", "content": instructions}]
    return [*above, *({"role": str(each.role), "content": text_of(each.contents)} for each in context.messages)]


def text_of(value: Any) -> str:
    """The text of a response, of contents or of a tool's result."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return "\n".join(filter(None, map(text_of, value)))
    found = getattr(value, "text", None) or getattr(value, "result", None)
    return text_of(found) if isinstance(found, str | list | tuple) else ""


def arguments_of(context: Any) -> dict[str, object]:
    """What the model asks a tool to do."""
    return dict(context.arguments) if isinstance(context.arguments, Mapping) else context.arguments.model_dump()


def write_result(run: ActiveInvocation, result: Any) -> object:
    """Note what a run came to; returns its text, and the result itself where that cannot be read, for the checks."""
    text = result
    if isinstance(run, LlmInvocation):
        with guarded(COMPONENT, run.callsite.runtime.counters):
            _write_answer(run, result)
    with guarded(COMPONENT, run.callsite.runtime.counters):
        text = text_of(result)
        if text:
            run.observe_output(text)
    return text


def _write_answer(call: LlmInvocation, response: Any) -> None:
    usage = getattr(response, "usage_details", None) or {}
    if usage.get("input_token_count") or usage.get("output_token_count"):  # zeros stand for what was not stated
        call.record_usage(usage)
    reason = getattr(response, "finish_reason", None)
    call.record_answer(
        model=getattr(response, "model", None),
        response_id=getattr(response, "response_id", None),
        finish_reasons=() if reason is None else (str(reason),),
        service_tier=_service_tier_of(response),
    )


def _service_tier_of(response: Any) -> str | None:
    """The tier that the provider charged, which the framework leaves in the provider's own answer or events."""
    raw = getattr(response, "raw_representation", None)
    stated = (getattr(each, "service_tier", None) for each in reversed(raw if isinstance(raw, list) else [raw]))
    return next((tier for tier in stated if isinstance(tier, str)), None)
