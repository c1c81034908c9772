"""A plugin of agents: hooks begin and end their runs, middleware wraps model calls and tools."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from strands.hooks import AfterInvocationEvent, AfterToolCallEvent, BeforeInvocationEvent
from strands.middleware import ExecuteToolStage, InvokeModelStage, ModelStopReason, ToolResultEvent
from strands.plugins import Plugin

from taskpilot_obs.integration import (
    CURRENT,
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    RefusedError,
    Status,
    check_input_async,
    check_output_async,
    current_run,
    get_recorder,
)
from taskpilot_obs_strands import reading

__all__ = ["ObservabilityPlugin"]

Next = Callable[[Any], AsyncGenerator[Any]]
_UNNAMED: Final = "agent"


class _Agent:
    """The run of an agent, and what was being handled when it began."""

    def __init__(self, run: ActiveInvocation) -> None:
        self.run = run
        self.fault = sys.exc_info()[1]


class ObservabilityPlugin(Plugin):  # type: ignore[misc]  # the framework may be missing where types are checked
    """Records and checks the runs of agents: `Agent(…, plugins=[ObservabilityPlugin()])`.

    A check in enforce mode that refuses aborts the run; the framework raises an `EventLoopException` whose
    `original_exception` is the `RefusedError`, or that itself.

    Args:
        recorder: where to; the default one when left out.
    """

    name = "taskpilot-obs"

    def __init__(self, recorder: Recorder | None = None) -> None:
        super().__init__()
        self._given = recorder
        self._agents: WeakKeyDictionary[Any, _Agent] = WeakKeyDictionary()

    def init_agent(self, agent: Any) -> None:
        """Attach to an agent; the framework calls it."""
        agent.add_hook(self._before, BeforeInvocationEvent)
        agent.add_hook(self._after, AfterInvocationEvent)
        agent.add_hook(_abort, AfterToolCallEvent)
        agent.add_middleware(InvokeModelStage, self._model)
        agent.add_middleware(ExecuteToolStage, self._tool)

    @property
    def _recorder(self) -> Recorder:
        return get_recorder() if self._given is None else self._given

    # --- agents ------------------------------------------------------------------------------------------------------

    async def _before(self, event: Any) -> None:
        name = event.agent.name or _UNNAMED
        run = current_run()
        if run is None or not run.is_open or (run.operation, run.name) != (Operation.AGENT, name):
            run = self._recorder.start("invoke_agent", name)  # otherwise the bridge has begun it
        self._agents[event.agent] = _Agent(run)
        content = [{"role": each["role"], "content": reading.texts_of(each)} for each in event.messages or ()]
        try:
            run.set_input(content)
            await check_input_async(run, content)
        except RefusedError as refusal:
            run.fail(refusal)
            raise

    async def _after(self, event: Any) -> None:
        known = self._agents.pop(event.agent, None)
        if known is None:
            return
        run, error = known.run, sys.exc_info()[1]
        if error is not None and error is not known.fault:
            run.fail(reading.cause_of(error))
        elif event.result is None:
            run.end_as(Status.ABANDONED)
        else:
            await self._finish(run, event.result)

    async def _finish(self, run: ActiveInvocation, result: Any) -> None:
        text = reading.texts_of(result.message)
        run.observe_output(text)
        try:
            await check_output_async(run, text)
        except RefusedError as refusal:
            run.fail(refusal)
            raise
        run.end_as(reading.status_of(result.stop_reason))

    def _above(self, agent: Any) -> Any:
        """The run of an agent, as the parent of what it does."""
        known = self._agents.get(agent)
        return CURRENT if known is None else known.run

    # --- model calls and tools ---------------------------------------------------------------------------------------

    async def _model(self, context: Any, next_fn: Next) -> AsyncGenerator[Any]:
        call = self._recorder.start_llm(
            model=reading.model_of(context.model),
            provider=reading.provider_of(context.model),
            parent=self._above(context.agent),
        )
        content = [{"role": each["role"], "content": each["content"]} for each in context.messages]
        try:
            call.set_input(content)
            await check_input_async(call, [context.system_prompt, content])
            call.set_streaming()
            async for event in _steps(call, next_fn(context)):
                if isinstance(event, ModelStopReason):
                    await _note_answer(call, event, context.model)
                elif "contentBlockDelta" in (event.get("event") or ()):
                    call.first_token()
                yield event
        except BaseException as error:
            call.fail(error)
            raise
        call.stop()

    async def _tool(self, context: Any, next_fn: Next) -> AsyncGenerator[Any]:
        run = self._recorder.start("execute_tool", str(context.tool_use["name"]), parent=self._above(context.agent))
        arguments = context.tool_use["input"]
        failure: BaseException | None = None
        is_error = False
        try:
            arguments = arguments if isinstance(arguments, dict) else {"input": arguments}
            run.set_input(arguments)
            await check_input_async(run, arguments=arguments)
            async for event in _steps(run, next_fn(context)):
                if isinstance(event, ToolResultEvent):
                    failure, is_error = event.exception, event.tool_result.get("status") == "error"
                    text = reading.texts_of(event.tool_result)
                    run.observe_output(text)
                    await check_output_async(run, text)
                yield event
        except BaseException as error:
            run.fail(error)
            raise
        if failure is not None:
            run.fail(failure)
        else:
            run.end_as(Status.ERROR if is_error else Status.SUCCESS, error_type="tool_error" if is_error else None)


def _abort(event: Any) -> None:
    """Raise what a check has refused: the framework makes a result of what middleware and tools raise."""
    if isinstance(event.exception, RefusedError):
        raise event.exception


async def _steps(run: ActiveInvocation, events: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    """The events of a stage; the run is current while each is made, and not while the consumer has it."""
    while True:
        step = run.attach()
        try:
            event = await anext(events)
        except StopAsyncIteration:
            return
        finally:
            run.detach(step)
        yield event


async def _note_answer(call: LlmInvocation, event: Any, model: Any) -> None:
    reading.write_usage(call, event.usage, model)
    call.record_answer(finish_reasons=(str(event.stop_reason),))
    text = reading.texts_of(event.message)
    call.observe_output(text)
    await check_output_async(call, text)
