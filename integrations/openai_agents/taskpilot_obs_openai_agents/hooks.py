"""Hooks of a run: policies, guardrails and budgets before agents, models and tools work, and before results leave."""

from __future__ import annotations

import json
from typing import Any

from agents import RunHooks

from taskpilot_obs.integration import (
    Operation,
    Recorder,
    Status,
    answer_limits,
    check_input_async,
    check_output_async,
    get_recorder,
    guarded,
    open_run,
)
from taskpilot_obs_openai_agents import model_calls

__all__ = ["ObservabilityHooks"]


class ObservabilityHooks(RunHooks):  # type: ignore[misc]  # the SDK may be missing where types are checked
    """Asks the configured checks: `Runner.run(agent, …, hooks=ObservabilityHooks())`. Needs `observe()`.

    A check in enforce mode that refuses aborts the run. For a tool the SDK raises a `UserError` whose cause is the
    `RefusedError`; for a model it raises the `RefusedError` itself, a budget's `BudgetExceededError` among them.

    Args:
        recorder: the recorder that `observe()` was given; the default one when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._given = recorder

    async def on_agent_start(self, context: Any, agent: Any) -> None:  # noqa: ARG002  the SDK's signature
        """Ask about what an agent is given."""
        run = open_run(Operation.AGENT)
        if run is not None:
            await check_input_async(run, getattr(context, "turn_input", None))

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:  # noqa: ARG002  the SDK's signature
        """Ask about what it answers."""
        run = open_run(Operation.AGENT)
        if run is not None:
            await check_output_async(run, output)

    async def on_llm_start(self, context: Any, agent: Any, system_prompt: Any, input_items: Any) -> None:
        """Ask about a model call, its budgets included; a refused call is recorded as `blocked` and not made."""
        above = open_run(Operation.AGENT)
        if above is None:
            return
        call = (self._given or get_recorder()).start_llm(model=model_calls.model_of(agent), parent=above)
        try:
            limits = answer_limits(getattr(agent, "model_settings", None), call.callsite.runtime.counters)
            await check_input_async(call, [system_prompt, input_items], arguments=limits)
        except BaseException as error:
            call.fail(error)
            raise
        with guarded("openai_agents", call.callsite.runtime.counters):
            model_calls.expect(above, call, context)

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:  # noqa: ARG002  the SDK's signature
        """End the call of a model that opens no span of its own, such as a class of the application."""
        above = open_run(Operation.AGENT)
        call = None if above is None else model_calls.claim_answered(above, context)
        if call is not None:
            call.end(Status.SUCCESS, response)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:  # noqa: ARG002  the SDK's signature
        """Ask about a tool's arguments; a refused tool does not run."""
        run = open_run(Operation.TOOL)
        if run is not None:
            await check_input_async(run, arguments=_arguments(context))

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:  # noqa: ARG002  likewise
        """Ask about a tool's result."""
        run = open_run(Operation.TOOL)
        if run is not None:
            await check_output_async(run, result)


def _arguments(context: Any) -> dict[str, object]:
    """What the model asks the tool to do; arguments that are not JSON are checked as a text."""
    text = getattr(context, "tool_arguments", None) or "{}"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {"arguments": text}
    return found if isinstance(found, dict) else {"arguments": found}
