"""Hooks of a run: policies and guardrails before agents and tools work, and before results are handed out."""

from __future__ import annotations

import json
from typing import Any

from agents import RunHooks

from taskpilot_obs.integration import (
    ActiveInvocation,
    Operation,
    check_input_async,
    check_output_async,
    current_run,
)

__all__ = ["ObservabilityHooks"]


class ObservabilityHooks(RunHooks):  # type: ignore[misc]  # the SDK may be missing where types are checked
    """Asks the configured checks: `Runner.run(agent, …, hooks=ObservabilityHooks())`. Needs `observe()`.

    A check in enforce mode that refuses aborts the run: the SDK raises a `UserError` whose cause is the `RefusedError`.
    """

    async def on_agent_start(self, context: Any, agent: Any) -> None:  # noqa: ARG002  the SDK's signature
        """Ask about what an agent is given."""
        run = _current(Operation.AGENT)
        if run is not None:
            await check_input_async(run, getattr(context, "turn_input", None))

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:  # noqa: ARG002  the SDK's signature
        """Ask about what it answers."""
        run = _current(Operation.AGENT)
        if run is not None:
            await check_output_async(run, output)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:  # noqa: ARG002  the SDK's signature
        """Ask about a tool's arguments; a refused tool does not run."""
        run = _current(Operation.TOOL)
        if run is not None:
            await check_input_async(run, arguments=_arguments(context))

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:  # noqa: ARG002  likewise
        """Ask about a tool's result."""
        run = _current(Operation.TOOL)
        if run is not None:
            await check_output_async(run, result)


def _current(operation: Operation) -> ActiveInvocation | None:
    run = current_run()
    return run if run is not None and run.operation is operation else None


def _arguments(context: Any) -> dict[str, object]:
    """What the model asks the tool to do; arguments that are not JSON are checked as a text."""
    text = getattr(context, "tool_arguments", None) or "{}"
    try:
        found = json.loads(text)
    except ValueError:
        return {"arguments": text}
    return found if isinstance(found, dict) else {"arguments": found}
