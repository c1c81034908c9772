"""Middleware of a server: tool calls of its clients are recorded, and asked about before and after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from mcp.shared.exceptions import MCPError

from taskpilot_obs.exceptions import GuardrailBlockedError, PolicyViolationError
from taskpilot_obs.integration import (
    ActiveInvocation,
    Operation,
    Recorder,
    RefusedError,
    Status,
    attached,
    check_input_async,
    check_output_async,
    get_recorder,
    guarded,
    open_run,
)

__all__ = ["REFUSED", "ObservabilityMiddleware"]

REFUSED: Final = -32010
"""The code of the `MCPError` that a client gets for a refused call."""
_CALL_TOOL: Final = "tools/call"
_TOOL_ERROR: Final = "tool_error"
"""What MCP's own spans state as `error.type`: the server turns a tool's exception into a result."""
_COMPONENT: Final = "mcp"


class ObservabilityMiddleware:
    """Records the tool calls of a server: `MCPServer("name", middleware=[ObservabilityMiddleware()])`.

    The OpenTelemetry bridge records the server's spans: beside it, only the checks are added.

    Args:
        recorder: where to; the default one when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._given = recorder

    async def __call__(self, ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """Handle one message of a client.

        Args:
            ctx: the request.
            call_next: handles it.

        Raises:
            MCPError: a check in enforce mode refused the call or its result; the cause is the `RefusedError`.
        """
        recorder = get_recorder() if self._given is None else self._given
        params = ctx.params or {}
        name = params.get("name")
        if ctx.method != _CALL_TOOL or not isinstance(name, str) or not recorder.enabled:
            return await call_next(ctx)
        known = open_run(Operation.TOOL, name)
        if known is not None:
            return await _checked(known, params, lambda: call_next(ctx))
        return await _recorded(recorder, name, params, lambda: call_next(ctx))


async def _recorded(
    recorder: Recorder, name: str, params: Mapping[str, Any], work: Callable[[], Awaitable[Any]]
) -> Any:
    run = recorder.start("execute_tool", name)
    with attached(run):
        result = await _checked(run, params, work)
    if _is_error(result):
        run.end_as(Status.ERROR, error_type=_TOOL_ERROR)
    else:
        run.stop()
    return result


async def _checked(run: ActiveInvocation, params: Mapping[str, Any], work: Callable[[], Awaitable[Any]]) -> Any:
    given = params.get("arguments")
    arguments = given if isinstance(given, Mapping) else {}
    try:
        run.set_input(arguments)
        await check_input_async(run, arguments=arguments)
        result = await work()
        with guarded(_COMPONENT, run.callsite.runtime.counters):
            run.observe_output(_output(result))
        await check_output_async(run, _output(result))
    except RefusedError as refusal:
        run.fail(refusal)
        raise _as_answer(refusal) from refusal
    return result


def _as_answer(refusal: RefusedError) -> MCPError:
    """What the client is told: which check, and the request, but no reason, which may quote what others said."""
    named: str | None = None
    if isinstance(refusal, PolicyViolationError):
        named = f"policy {refusal.policy!r}"
    elif isinstance(refusal, GuardrailBlockedError):
        named = f"guardrail {refusal.guardrail!r}"
    return MCPError(REFUSED, f"refused by {named or 'a check'}", {"request_id": refusal.request_id})


def _output(result: Any) -> Any:
    """The content, and the structured content beside it, which a client may read instead."""
    if isinstance(result, Mapping):
        content, structured = result.get("content"), result.get("structuredContent")
    else:
        content, structured = getattr(result, "content", None), getattr(result, "structured_content", None)
    if content is None and structured is None:
        return result  # of another shape: the checks read what it holds
    return content if structured is None else {"content": content, "structured_content": structured}


def _is_error(result: Any) -> bool:
    stated = result.get("isError") if isinstance(result, Mapping) else getattr(result, "is_error", False)
    return stated is True
