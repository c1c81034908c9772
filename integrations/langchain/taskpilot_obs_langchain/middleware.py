"""The verdicts of LangChain's own guardrails, recognised by how their nodes end.

| middleware | decision |
| --- | --- |
| `PIIMiddleware` | guardrail: passed (`redacted` where it changed a text), or blocked |
| `ModelCallLimitMiddleware`, `ToolCallLimitMiddleware` | policy: deny, when a limit is reached |
| `HumanInTheLoopMiddleware` | policy: require_approval, one for each tool call that waits |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs.integration import register_status
from taskpilot_obs.records import CheckResult, DecisionKind, Stage, Status, Verdict

if TYPE_CHECKING:
    from taskpilot_obs.integration import Recorder

_PII: Final = "PIIMiddleware"
_LIMITS: Final = frozenset({"ModelCallLimitMiddleware", "ToolCallLimitMiddleware"})
_APPROVAL: Final = "HumanInTheLoopMiddleware"
_KNOWN: Final = _LIMITS | {_PII, _APPROVAL}

for _refusal in (
    "_redaction.PIIDetectionError",
    "model_call_limit.ModelCallLimitExceededError",
    "tool_call_limit.ToolCallLimitExceededError",
):
    register_status(f"langchain.agents.middleware.{_refusal}", Status.BLOCKED)


class Hook(NamedTuple):
    """A node that is a hook of a guardrail."""

    name: str
    """`PIIMiddleware[email]`."""
    middleware: str
    """`PIIMiddleware`."""
    stage: Stage


@lru_cache(maxsize=500)
def hook_of(node: str) -> Hook | None:
    """The guardrail whose hook a node is (`PIIMiddleware[email].before_model`); None for any other node."""
    name, _, hook = node.rpartition(".")
    middleware = name.partition("[")[0]
    if middleware not in _KNOWN:
        return None
    return Hook(name, middleware, Stage.OUTPUT if hook.startswith("after") else Stage.INPUT)


def report(recorder: Recorder, hook: Hook, outcome: object) -> None:
    """Record what a guardrail's node decided, recognised by what it raised or changed in the agent's state."""
    if isinstance(outcome, BaseException):
        _report_error(recorder, hook, outcome)
    else:
        _report_update(recorder, hook, outcome)


def _report_update(recorder: Recorder, hook: Hook, outputs: object) -> None:
    update = outputs if isinstance(outputs, Mapping) else {}
    if hook.middleware == _PII:
        recorder.record_decision(
            hook.name,
            Verdict.ALLOW,
            kind=DecisionKind.GUARDRAIL,
            stage=hook.stage,
            attributes={"redacted": True} if update.get("messages") else None,
        )
    elif hook.middleware in _LIMITS and (update.get("jump_to") == "end" or update.get("messages")):
        tools = _refused_tools(update.get("messages"))
        for tool in tools or (None,):
            recorder.record_decision(
                hook.name, Verdict.DENY, result=CheckResult.BLOCKED, reason="limit reached", tool=tool
            )


def _report_error(recorder: Recorder, hook: Hook, error: BaseException) -> None:
    if hook.middleware == _APPROVAL:
        for tool in _awaiting(error):
            recorder.record_decision(hook.name, Verdict.REQUIRE_APPROVAL, tool=tool)
    elif type(error).__name__ == "PIIDetectionError":
        recorder.record_guardrail_block(hook.name, stage=hook.stage, reason=getattr(error, "pii_type", None))
    elif type(error).__name__.endswith("LimitExceededError"):
        recorder.record_decision(
            hook.name,
            Verdict.DENY,
            result=CheckResult.BLOCKED,
            reason="limit reached",
            tool=getattr(error, "tool_name", None),
        )


def _refused_tools(messages: Any) -> tuple[str | None, ...]:
    """The tools whose calls were answered with an error instead of being made."""
    refused = (message for message in messages or () if getattr(message, "status", None) == "error")
    return tuple(getattr(message, "name", None) for message in refused)


def _awaiting(error: BaseException) -> Iterable[str | None]:
    """The tools that an interrupt asks a human about."""
    interrupts = error.args[0] if error.args and isinstance(error.args[0], tuple | list) else ()
    for interrupt in interrupts:
        asked = getattr(interrupt, "value", None)
        for request in asked.get("action_requests", ()) if isinstance(asked, Mapping) else ():
            name = request.get("name") if isinstance(request, Mapping) else None
            yield name if isinstance(name, str) else None
