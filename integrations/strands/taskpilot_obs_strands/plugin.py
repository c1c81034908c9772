"""A plugin of agents: hooks begin and end their runs, middleware wraps model calls and tools."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
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
    end_early,
    get_recorder,
    guarded,
    note_released,
    open_run,
)
from taskpilot_obs_strands import reading

__all__ = ["ObservabilityPlugin"]

Next = Callable[[Any], AsyncGenerator[Any]]
_UNNAMED: Final = "agent"
_COMPONENT: Final = "strands"
_TOOL_ERROR: Final = "tool_error"
"""The `error.type` of a tool that returned an error, and raised nothing."""


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
        name, content = _UNNAMED, event.messages
        with guarded(_COMPONENT, self._recorder.counters):  # an agent may be a class of the application
            name = str(event.agent.name or _UNNAMED)
        # The bridge may have begun it for the framework's span.
        run = open_run(Operation.AGENT, name) or self._recorder.start("invoke_agent", name)
        with guarded(_COMPONENT, self._recorder.counters):
            self._agents[event.agent] = _Agent(run)
            content = [{"role": each["role"], "content": reading.texts_of(each)} for each in event.messages or ()]
            run.set_input(content)
        await _or_end(run, check_input_async(run, content))

    async def _after(self, event: Any) -> None:
        known = self._agents.pop(event.agent, None)
        if known is None:
            return
        run, error = known.run, sys.exc_info()[1]
        if error is not None and error is not known.fault:
            await end_early(run, reading.cause_of(error))
        elif event.result is None:
            await end_early(run)
        else:
            await _or_end(run, check_output_async(run, _noted(run, event.result.message)))
            run.end_as(reading.status_of(event.result.stop_reason))

    def _above(self, agent: Any) -> Any:
        """The run of an agent, as the parent of what it does."""
        known = self._agents.get(agent)
        return CURRENT if known is None else known.run

    # --- model calls and tools ---------------------------------------------------------------------------------------

    async def _model(self, context: Any, next_fn: Next) -> AsyncGenerator[Any]:
        model = provider = None
        limits: dict[str, object] = {}
        with guarded(_COMPONENT, self._recorder.counters):  # a model may be a class of the application
            model, provider = reading.model_of(context.model), reading.provider_of(context.model)
            limits = reading.limits_of(context.model)
        call = self._recorder.start_llm(model=model, provider=provider, parent=self._above(context.agent))
        call.set_streaming()
        content: object = [context.system_prompt, context.messages]
        with guarded(_COMPONENT, self._recorder.counters):
            content = [context.system_prompt, *context.messages]
            call.set_input(content)
        try:
            await check_input_async(call, content, arguments=limits)
            async for event in _steps(call, next_fn(context)):
                if isinstance(event, ModelStopReason):
                    await check_output_async(call, _answered(call, event, context.model))
                elif "contentBlockDelta" in (event.get("event") or ()):
                    call.first_token()
                    self._note_words(call, context.agent, event["event"]["contentBlockDelta"])
                yield event
        except BaseException as error:
            await end_early(call, error)
            raise
        call.stop()

    def _note_words(self, call: LlmInvocation, agent: Any, delta: Any) -> None:
        """Note words that the application gets before the answer is complete, as those of the call and of its agent."""
        with guarded(_COMPONENT, call.callsite.runtime.counters):
            text = (delta.get("delta") or {}).get("text")
            known = self._agents.get(agent)
            for run in (call,) if known is None else (call, known.run):
                note_released(run, text or "")

    async def _tool(self, context: Any, next_fn: Next) -> AsyncGenerator[Any]:
        run = self._recorder.start("execute_tool", str(context.tool_use["name"]), parent=self._above(context.agent))
        given = context.tool_use["input"]
        arguments = given if isinstance(given, dict) else {"input": given}
        result: Any = None
        try:
            run.set_input(arguments)
            await check_input_async(run, arguments=arguments)
            async for event in _steps(run, next_fn(context)):
                if isinstance(event, ToolResultEvent):
                    result = event
                    await check_output_async(run, _noted(run, event.tool_result))
                yield event
        except BaseException as error:
            run.fail(error)
            raise
        _end_tool(run, result)


def _end_tool(run: ActiveInvocation, result: Any) -> None:
    if result is not None and result.exception is not None:
        run.fail(result.exception)
    elif result is not None and result.tool_result.get("status") == "error":
        run.end_as(Status.ERROR, error_type=_TOOL_ERROR)
    else:
        run.stop()


async def _or_end(run: ActiveInvocation, check: Awaitable[None]) -> None:
    """Await a check; a refusal or a cancellation ends the run, because a hook gets no second chance."""
    try:
        await check
    except BaseException as error:
        run.fail(error)
        raise


def _noted(run: ActiveInvocation, message: Any) -> object:
    """Note the text of a message as the output of a run; returns what to check, which is the message if unreadable."""
    with guarded(_COMPONENT, run.callsite.runtime.counters):
        text = reading.texts_of(message)
        run.observe_output(text)
        return text
    return message


def _answered(call: LlmInvocation, event: Any, model: Any) -> object:
    """Note what a model answered; returns what to check."""
    with guarded(_COMPONENT, call.callsite.runtime.counters):
        reading.write_usage(call, event.usage, model)
        call.record_answer(finish_reasons=(str(event.stop_reason),))
    return _noted(call, event.message)


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
