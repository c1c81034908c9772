"""Events of crewAI begin and end runs; its hooks ask the checks before models and tools work."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, cast

from crewai.events import LiteAgentExecutionCompletedEvent, LiteAgentExecutionErrorEvent, crewai_event_bus
from crewai.events.stream_context import _stream_sinks, add_stream_sink
from crewai.hooks.dispatch import HookAborted, InterceptionPoint, register
from crewai.llms.base_llm import _current_call_id

from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    RefusedError,
    Step,
    add_current_resolver,
    answer_limits,
    check_input,
    check_output,
    get_recorder,
    guarded,
    note_released,
    open_llm_call,
    open_run,
)
from taskpilot_obs_crewai import reading
from taskpilot_obs_crewai.open_runs import MOST_OPEN, Execution, OpenRun, OpenRuns, scope_of

__all__ = ["Observer", "observe"]

Make = Callable[[], ActiveInvocation | None]
_COMPONENT: Final = "crewai"

_begun: ContextVar[ActiveInvocation | None] = ContextVar("taskpilot_obs_crewai_begun", default=None)
"""What a hook has begun, until the event that reports it."""
_tool: ContextVar[tuple[ActiveInvocation, Step] | None] = ContextVar("taskpilot_obs_crewai_tool", default=None)
_execution: ContextVar[Execution | None] = ContextVar("taskpilot_obs_crewai_execution", default=None)


class Observer:
    """Records crews, flows, agents, tools and model calls of this process. `observe()` makes one and turns it on.

    The bus calls its handlers on threads of its own, in any order, without the exception. A sink of a context is called
    at once; each context in which a hook is called gets one.

    Args:
        recorder: where to; the default one when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._given = recorder
        self.runs = OpenRuns()

    @property
    def _recorder(self) -> Recorder:
        return get_recorder() if self._given is None else self._given

    def start(self) -> None:
        """Record from now on; once is enough for a process."""
        register(InterceptionPoint.EXECUTION_START, self._before_execution)
        register(InterceptionPoint.PRE_MODEL_CALL, self._before_model)
        register(InterceptionPoint.PRE_TOOL_CALL, self._before_tool)
        register(InterceptionPoint.POST_TOOL_CALL, self._after_tool)
        register(InterceptionPoint.POST_STEP, self._after_task)
        for kind in (LiteAgentExecutionCompletedEvent, LiteAgentExecutionErrorEvent):
            crewai_event_bus.on(kind)(self._handle)
        add_current_resolver(self.runs.innermost)
        self._listen()

    def _listen(self) -> None:
        if self._sink not in _stream_sinks.get():
            add_stream_sink(self._sink)

    def _handle(self, source: object, event: Any) -> None:
        """End an agent that began in a context without a sink; the bus copies the context of the event."""
        if self._sink not in _stream_sinks.get():
            self._sink(source, event)

    def _sink(self, source: object, event: Any) -> None:
        with guarded(_COMPONENT, self._recorder.counters):
            what, _, phase = str(event.type).rpartition("_")
            operation = reading.KINDS.get(what)
            if what == "llm_stream" and event.call_id in self.runs:
                call = cast(LlmInvocation, self.runs[event.call_id].run)
                call.first_token()
                note_released(self.runs.crew_of(call), event.chunk)
            elif operation is not None and not reading.is_internal(source, event):
                if phase == "started":
                    self._begin(source, event, operation)
                elif phase in reading.ENDS:
                    self._end(source, event, operation, phase)

    def _begin(self, source: Any, event: Any, operation: Operation) -> None:
        run, is_call = _begun.get(), operation is Operation.CHAT
        make: Make = partial(self._recorder.start, operation, reading.name_of(source, event))
        if is_call:
            make = partial(self._start_call, source, event.messages, event.stream)
        key = event.call_id if is_call else event.event_id
        if run is not None and run.is_open and run.operation is operation:
            _begun.set(None)
            self._keep(key, source, lambda: run)
        else:
            self._keep(key, source, make)

    def _keep(self, key: str, source: object, make: Make) -> ActiveInvocation | None:
        """Begin a run, unless it is known; it goes with this context, where no end of it is reported."""
        known = self.runs.get(key)
        run = make() if known is None else known.run
        if run is None or known is not None:
            return run
        self.runs[key] = OpenRun(run, source)
        if len(self.runs) > MOST_OPEN:
            self.runs.pop(next(iter(self.runs)), None)
        execution = _execution.get()
        if execution is None or not any(each in self.runs for each in execution):
            execution = Execution(self.runs)
            _execution.set(execution)
        execution.append(key)
        return run

    def _start_call(self, llm: Any, messages: Any, stream: object) -> LlmInvocation | None:
        if open_llm_call() is not None:  # another layer records the call
            return None
        model = provider = None
        with guarded(_COMPONENT, self._recorder.counters):  # a model may be a class of the application
            model, provider = llm.model, llm.provider
        call = self._recorder.start_llm(model=model, provider=provider)
        call.set_input(messages)
        if stream:
            call.set_streaming()
        return call

    def _end(self, source: object, event: Any, operation: Operation, phase: str) -> None:
        key = getattr(event, "call_id", None) or self.runs.key_of(event.started_event_id, source, operation)
        known = self.runs.pop(key, None)
        if known is not None:  # a failure is reported twice
            reading.end_run(known.run, event, phase)
            for each in self.runs.beneath(known.run) if phase == "failed" else ():
                self.runs.pop(each).run.end_as(known.run.status)  # no event reports an agent that a hook aborted

    def _before_execution(self, context: Any) -> None:
        """Listen, and begin an agent outside of a crew, whose start no sink may have seen."""
        with guarded(_COMPONENT, self._recorder.counters):
            self._listen()
            key, agent = scope_of("lite_agent_execution_started"), getattr(context.flow, "agent", None)
            if key is not None and agent is not None and key not in self.runs:  # nor will it see the end
                self.runs[key] = OpenRun(self._recorder.start(Operation.AGENT, str(agent.role).strip()), agent)

    def _before_model(self, context: Any) -> None:
        """Begin a model call and ask about it: crewAI reports its start later where an agent makes the call."""
        llm, messages = context.llm, context.messages
        make: Make = partial(self._start_call, llm, messages, getattr(llm, "stream", None))
        run = self._started(_current_call_id.get() if context.executor is None else None, llm, make)
        _ask(run, check_input, messages, arguments=answer_limits(llm, self._recorder.counters))

    def _before_tool(self, context: Any) -> None:
        """Begin a tool call, and ask about it; a refused tool does not run, and the model is told so."""
        make = partial(self._recorder.start, Operation.TOOL, context.tool_name)
        run = self._started(scope_of("tool_usage_started"), context.agent, make)
        if run is not None and run.is_open:
            run.set_input(context.tool_input)
            _ask(run, check_input, arguments=context.tool_input)
            _tool.set((run, run.attach()))  # until the hook behind the tool, which crewAI always calls

    def _started(self, key: str | None, source: object, make: Make) -> ActiveInvocation | None:
        """The run of a hook; where its event has yet to come, it waits for it."""
        with guarded(_COMPONENT, self._recorder.counters):
            self._listen()
            run = make() if key is None else self._keep(key, source, make)
            _begun.set(run if key is None else None)
            return run
        return None

    def _after_tool(self, context: Any) -> None:
        """Ask about a tool's result; a refusal aborts the crew, because the model would get it otherwise."""
        held = _tool.get()
        if held is not None:
            run, step = held
            _tool.set(None)
            run.detach(step)
            _ask(run, check_output, context.raw_tool_result)

    def _after_task(self, context: Any) -> None:
        """Ask about what a task came to, before the next one gets it."""
        if context.kind == "task":
            _ask(open_run(Operation.WORKFLOW), check_output, getattr(context.output, "raw", context.output))


_observers: Final[list[Observer]] = []


def observe(recorder: Recorder | None = None) -> Observer:
    """Record every crew, flow and agent of crewAI in this process; a second call of it changes nothing."""
    if not _observers:
        _observers.append(Observer(recorder))
        _observers[0].start()
    return _observers[0]


def _ask(run: ActiveInvocation | None, check: Callable[..., None], *asked: object, **further: object) -> None:
    """Ask about what goes on; refuse by the only exception of a hook that crewAI does not swallow."""
    if run is None or not run.is_open:
        return
    try:
        check(run, *asked, **further)
    except RefusedError as refusal:
        run.fail(refusal)
        raise HookAborted(str(refusal), source="taskpilot_obs") from refusal
