"""What crewAI's events and objects state: names, usage, and the exceptions that its errors stand for."""

from __future__ import annotations

import sys
from typing import Any, Final

from crewai.hooks.dispatch import HookAborted

from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Status,
    note_sound_dropped,
    register_status,
    unwrap_refusal,
)

KINDS: Final = {
    "crew_kickoff": Operation.WORKFLOW,
    "flow": Operation.WORKFLOW,
    "agent_execution": Operation.AGENT,
    "lite_agent_execution": Operation.AGENT,
    "tool_usage": Operation.TOOL,
    "llm_call": Operation.CHAT,
}
"""By what an event's type begins with; its last word is the phase."""
ENDS: Final = {"completed", "finished", "paused", "failed", "error"}
_COUNTS: Final = {  # our names of counts, where they differ from crewAI's
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "cached_prompt_tokens": "cache_read_tokens",
    "cache_creation_tokens": "cache_write_tokens",
}
_KNOWN: Final = {"input_tokens", "output_tokens", "reasoning_tokens", *_COUNTS}

register_status("crewai.hooks.dispatch.HookAborted", Status.BLOCKED)


def name_of(source: Any, event: Any) -> str:
    """The name of a crew, flow, agent or tool; an agent's is its role."""
    stated = (getattr(event, name, None) for name in ("tool_name", "crew_name", "flow_name"))
    return str(next(filter(None, stated), None) or getattr(source, "role", type(source).__name__)).strip()


def is_internal(source: object, event: Any) -> bool:
    """Whether a flow is one of the framework's own: it runs its agents as flows."""
    return str(event.type).startswith("flow_") and type(source).__module__.startswith("crewai.")


def end_run(run: ActiveInvocation, event: Any, phase: str) -> None:
    """End a run as its last event states."""
    failure = getattr(event, "failure", None)
    if phase in ("failed", "error"):
        _fail(run, event)
    elif failure is not None:  # a tool that returned, and reported that it has failed
        run.end_as(Status.ERROR, error_type=str(getattr(failure.reason, "value", failure.reason)))
    else:
        if isinstance(run, LlmInvocation):
            _write_answer(run, event)
        run.observe_output(str(getattr(event, "output", None) or getattr(event, "response", None) or ""))
        run.end_as(Status.INTERRUPTED if phase == "paused" else Status.SUCCESS)


def _fail(run: ActiveInvocation, event: Any) -> None:
    """Fail by the event's exception, or the one in flight: a text is all that most events have of it."""
    flying, stated = sys.exc_info()[1], event.error
    if isinstance(stated, BaseException):
        run.fail(unwrap_refusal(stated))
    elif flying is not None and (isinstance(flying, HookAborted) or str(flying) in str(stated)):
        run.fail(unwrap_refusal(flying))
    else:
        run.end_as(Status.ERROR, error_type=str(event.type), error_message=str(stated))


def _write_answer(call: LlmInvocation, event: Any) -> None:
    found = {_COUNTS.get(name, name): count for name, count in (event.usage or {}).items() if name in _KNOWN}
    if any(found.values()):  # zeros alone stand for what a provider did not state
        call.record_usage(**found)
        note_sound_dropped(call)
    reasons = [event.finish_reason] if event.finish_reason else []
    call.record_answer(response_id=event.response_id, finish_reasons=reasons)
