"""A plugin of runners: callbacks before and after agents, model calls and tools."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final
from weakref import ref

from google.adk.plugins.base_plugin import BasePlugin

from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    Status,
    answer_limits,
    check_input_async,
    check_output_async,
    current_run,
    get_recorder,
    guarded,
    is_content_read,
    note_released,
    open_run,
    unwrap_refusal,
)
from taskpilot_obs_google_adk.open_runs import CurrentRun, InvocationRuns

__all__ = ["ObservabilityPlugin"]

_reader: ContextVar[ref[asyncio.Task[Any]] | None] = ContextVar("taskpilot_obs_google_adk_reader", default=None)
"""The application's task, which reads the events; the runner's own tasks inherit it."""
_COMPONENT: Final = "google_adk"


class ObservabilityPlugin(BasePlugin):  # type: ignore[misc]  # the framework may be missing where types are checked
    """Records and checks all agents of a runner: `InMemoryRunner(agent=…, plugins=[ObservabilityPlugin()])`.

    A check in enforce mode that refuses aborts the invocation: the framework raises a `RuntimeError` whose cause is the
    `RefusedError`.

    Args:
        recorder: where to; the default one when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        super().__init__(name="taskpilot_obs")
        self._given = recorder
        self._runs = InvocationRuns()

    @property
    def open(self) -> int:
        """How many invocations have runs that have not ended."""
        return len(self._runs)

    @property
    def _recorder(self) -> Recorder:
        return get_recorder() if self._given is None else self._given

    # --- agents ------------------------------------------------------------------------------------------------------

    async def before_agent_callback(self, *, agent: Any, callback_context: Any) -> None:
        """Begin the run of an agent, and ask the input checks about what it is given."""
        invocation = callback_context.invocation_id
        run = open_run(Operation.AGENT, agent.name)  # the bridge may have begun it for the framework's span
        if run is None:
            above = self._runs.above(invocation, agent)
            run = self._recorder.start(Operation.AGENT, agent.name, parent=above)
        run.set_attribute("conversation", str(callback_context.session.id))
        entry = CurrentRun(run, None, agent.name)
        content = _texts(callback_context.user_content)
        await _checked_input(entry, content)
        self._runs.add(invocation, ("agent", agent.name), entry)

    async def after_agent_callback(self, *, agent: Any, callback_context: Any) -> None:
        """End the run of an agent; the framework calls this for a cancelled one as well."""
        flying = sys.exc_info()[1]
        if not isinstance(flying, asyncio.CancelledError):
            await self._end_agent(callback_context.invocation_id, agent.name, None)
        elif _is_reader_cancelled():
            await self._end_agent(callback_context.invocation_id, agent.name, flying)
        # Otherwise the application has closed the events, for which the runner cancels its own task: see after_run.

    async def on_agent_error_callback(self, *, agent: Any, callback_context: Any, error: Exception) -> None:
        """End the run of an agent with the status of its exception."""
        await self._end_agent(callback_context.invocation_id, agent.name, unwrap_refusal(error))

    async def before_run_callback(self, *, invocation_context: Any) -> None:
        """Note the task that reads the events."""
        task = asyncio.current_task()
        _reader.set(None if task is None else ref(task))

    async def after_run_callback(self, *, invocation_context: Any) -> None:
        """End what the invocation has left open."""
        await self._runs.close_all(invocation_context.invocation_id)

    async def _end_agent(self, invocation: str, name: str, error: BaseException | None) -> None:
        if error is None:
            await self._end_unmade(invocation, name)
        entry = await self._runs.pop_agent(invocation, name, error)
        if entry is not None:
            await entry.close(error)

    # --- model calls -------------------------------------------------------------------------------------------------

    async def before_model_callback(self, *, callback_context: Any, llm_request: Any) -> None:
        """Begin an LLM call; ask checks and budgets, which may refuse it."""
        invocation, agent = callback_context.invocation_id, callback_context.agent_name
        recorder = self._recorder
        run = recorder.start_llm(model=llm_request.model, parent=self._parent(invocation, agent))
        call = CurrentRun(run, None, agent)
        if is_content_read(run):
            content: object = [llm_request.config, llm_request.contents]  # as they are, where they cannot be read
            with guarded(_COMPONENT, recorder.counters):
                content = _asked(llm_request)
            await _checked_input(call, content, answer_limits(llm_request.config, recorder.counters))
        self._runs.add(invocation, ("llm", agent), call)

    async def after_model_callback(self, *, callback_context: Any, llm_response: Any) -> None:
        """Note a piece of a stream, or end the call."""
        invocation = callback_context.invocation_id
        known = self._runs.get(invocation, ("llm", callback_context.agent_name))
        if known is None or not isinstance(known.run, LlmInvocation):
            return
        if llm_response.partial:
            known.run.first_token()
            with guarded(_COMPONENT, self._recorder.counters):
                note_released(known.run, _texts(llm_response.content))
            return
        self._runs.drop(invocation, known)
        with guarded(_COMPONENT, self._recorder.counters):
            _write_answer(known.run, llm_response)
        answer: object = llm_response  # as it is, where its text cannot be read
        with guarded(_COMPONENT, self._recorder.counters):
            answer = _write_text(known.run, llm_response)
        await _checked_output(known, answer)
        if llm_response.error_code and llm_response.content is None:
            known.run.end_as(Status.ERROR, error_type=str(llm_response.error_code))
        await known.close()

    async def on_model_error_callback(self, *, callback_context: Any, llm_request: Any, error: Exception) -> None:
        """End an LLM call with the status of its exception."""
        known = self._runs.pop(callback_context.invocation_id, ("llm", callback_context.agent_name))
        if known is not None:
            await known.close(unwrap_refusal(error))

    async def on_event_callback(self, *, invocation_context: Any, event: Any) -> None:
        """End the call that the application has answered: the event that has the answer is all that is reported."""
        if not event.partial:
            await self._end_unmade(invocation_context.invocation_id, event.author)

    async def _end_unmade(self, invocation: str, agent: str) -> None:
        """End a call that an agent's own `before_model_callback` has answered: nothing was sent, nothing is billed."""
        known = self._runs.get(invocation, ("llm", agent))
        if known is None or not isinstance(known.run, LlmInvocation) or known.run.first_token_ns:
            return
        self._runs.drop(invocation, known)
        known.run.set_cached(True)
        await known.close()

    def _parent(self, invocation: str, agent: str) -> ActiveInvocation | None:
        above = self._runs.get(invocation, ("agent", agent))
        return current_run() if above is None else above.run

    # --- tools -------------------------------------------------------------------------------------------------------

    async def before_tool_callback(self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any) -> None:
        """Begin a tool call, and ask the input checks; a refused tool does not run."""
        invocation, agent = tool_context.invocation_id, tool_context.agent_name
        run, step = open_run(Operation.TOOL, tool.name), None
        if run is None:
            run = self._recorder.start(Operation.TOOL, tool.name, parent=self._parent(invocation, agent))
            step = run.attach()  # until the end: the tool runs in this very task
        entry = CurrentRun(run, step, agent)
        await _checked_input(entry, None, tool_args)
        self._runs.add(invocation, ("tool", str(tool_context.function_call_id)), entry)

    async def after_tool_callback(
        self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any, result: Any
    ) -> None:
        """End a tool call, unless the output checks withhold its result."""
        known = self._runs.pop(tool_context.invocation_id, ("tool", str(tool_context.function_call_id)))
        if known is not None:
            known.run.observe_output(result)
            await _checked_output(known, result)
            await known.close()

    async def on_tool_error_callback(
        self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any, error: BaseException
    ) -> None:
        """End a tool call with the status of its exception."""
        known = self._runs.pop(tool_context.invocation_id, ("tool", str(tool_context.function_call_id)))
        if known is not None:
            await known.close(unwrap_refusal(error))


def _is_reader_cancelled() -> bool:
    reader = _reader.get()
    task = None if reader is None else reader()
    return task is None or task.cancelled() or task.cancelling() > 0


async def _checked_input(entry: CurrentRun, content: object, arguments: Mapping[str, object] | None = None) -> None:
    given = arguments or {}
    entry.run.set_input(given if content is None else content)
    try:
        await check_input_async(entry.run, content, arguments=given)
    except BaseException as error:  # a refusal, or the caller's cancellation: no callback follows
        await entry.close(error)
        raise


async def _checked_output(entry: CurrentRun, result: object) -> None:
    try:
        await check_output_async(entry.run, result)
    except BaseException as error:  # a refusal, or the caller's cancellation: no callback follows
        await entry.close(error)
        raise


def _asked(request: Any) -> list[Any]:
    """What a model is given."""
    config = request.config
    system = [{"role": "system", "content": config.system_instruction}] if config.system_instruction else []
    said = ({"role": each.role, "content": _said(each)} for each in request.contents)
    return [*system, *said]


def _texts(content: Any) -> str:
    """The text of a content's parts."""
    parts = (content.parts if content is not None else None) or ()
    return "\n".join(part.text for part in parts if part.text)


def _said(content: Any) -> object:
    """What a content's parts say to a model: its text; tools' arguments and results too where it has any."""
    parts = content.parts or ()
    called = [each.args for part in parts if (each := part.function_call) is not None and each.args]
    answered = [each.response for part in parts if (each := part.function_response) is not None and each.response]
    tools, text = [*called, *answered], _texts(content)
    return [text, *tools] if tools else text


def _write_answer(call: LlmInvocation, response: Any) -> None:
    if response.usage_metadata is not None:
        call.read_later(response.usage_metadata)
    reason = response.finish_reason
    call.record_answer(model=response.model_version, finish_reasons=() if reason is None else (reason.name,))


def _write_text(call: LlmInvocation, response: Any) -> str:
    text = _texts(response.content)
    if text:
        call.observe_output(text)
    return text
