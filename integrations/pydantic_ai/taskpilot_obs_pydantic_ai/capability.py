"""A capability of agents: each run, model request and tool call is recorded, and asked about before and after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering, Instrumentation
from pydantic_ai.exceptions import AgentRunError

from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    Status,
    answer_limits,
    check_input_async,
    check_output_async,
    check_released_async,
    current_run,
    end_early,
    expect_request_elsewhere,
    get_recorder,
    guarded,
    is_content_read,
    note_released,
)
from taskpilot_obs_pydantic_ai import reading

__all__ = ["ObservabilityCapability"]

R = TypeVar("R")
_Run = TypeVar("_Run", bound=ActiveInvocation)
_CUT_SHORT: Final = ("incomplete", "interrupted")
"""States of responses that did not come to their end."""
_NOTHING: Final[Mapping[str, object]] = {}


class _Streams:
    """What is known of the streamed requests of an agent's run."""

    def __init__(self, agent: ActiveInvocation | None = None) -> None:
        self.agent = agent
        self.call: LlmInvocation | None = None
        """The request that is being answered."""
        self.released = False
        """Whether an answer was handed out as it came."""
        self.left = False
        """Whether the application stopped reading one."""
        self.cut: list[ActiveInvocation] = []
        """Requests whose task the framework has cancelled: how the run ends shows why."""

    def note(self, text: str) -> None:
        """Note words that the application gets, of the request and of its agent."""
        for run in (self.agent, self.call):
            if run is not None:
                note_released(run, text)

    def end_cut(self, error: BaseException) -> None:
        """End the requests that were cut off, as the run that they belong to has ended."""
        for call in self.cut:
            if isinstance(error, asyncio.CancelledError | AgentRunError):
                call.fail(error)
            else:  # the application raised where it reads
                call.end_as(Status.ABANDONED)


_streams: ContextVar[_Streams | None] = ContextVar("taskpilot_obs_pydantic_ai_streams", default=None)
_by_run: WeakValueDictionary[str, _Streams] = WeakValueDictionary()
"""By the framework's ID of the run: a stream is read in another context than the one in which its run began."""


@dataclass
class ObservabilityCapability(AbstractCapability[Any]):  # type: ignore[misc]  # may be missing where types are checked
    """Records and checks the runs of an agent: `Agent(…, capabilities=[ObservabilityCapability()])`.

    A check in enforce mode that refuses aborts the run by its `RefusedError`.

    Args:
        recorder: where to; the default one when left out.
    """

    recorder: Recorder | None = None
    _: KW_ONLY
    id: str | None = "taskpilot_obs"
    """Of the agent and of its run there is one."""

    def get_ordering(self) -> Any:
        """Outside of everything, the framework's spans too, so that the bridge finds each run around its span."""
        return CapabilityOrdering(position="outermost", wraps=[Instrumentation])

    async def wrap_run(self, ctx: Any, *, handler: Callable[[], Awaitable[R]]) -> R:
        """Record the agent."""
        run = self._begin(lambda recorder: recorder.start(Operation.AGENT, reading.agent_name(recorder, ctx)))
        if run is None:
            return await handler()
        with guarded(reading.COMPONENT, run.callsite.runtime.counters):
            if ctx.conversation_id:
                run.set_attribute("conversation", str(ctx.conversation_id))
        streams = _Streams(run)
        outer = _streams.set(streams)
        _by_run[ctx.run_id] = streams
        try:
            return await _observe(run, handler, _write_output, content=ctx.prompt, streams=streams)
        finally:
            with suppress(ValueError):  # another context has nothing to undo
                _streams.reset(outer)

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Callable[[Any], Awaitable[R]]) -> R:
        """Record a call of a model; budgets are asked as well."""
        run = self._begin(lambda recorder: reading.start_call(recorder, request_context))
        if run is None:
            return await handler(request_context)
        content, limits = request_context.messages, _NOTHING
        if is_content_read(run):
            with guarded(reading.COMPONENT, run.callsite.runtime.counters):
                content = reading.messages_of(request_context)
            limits = answer_limits(request_context.model_settings, run.callsite.runtime.counters)
        streams = None
        if request_context.streaming:
            run.set_streaming()
            expect_request_elsewhere(run)  # Pydantic AI calls this in a task of its own, and not around the request
            streams = _streams.get() or _Streams()
            streams.released, streams.call = True, run
        return await _observe(
            run,
            lambda: handler(request_context),
            reading.write_answer,
            content=content,
            arguments=limits,
            streams=streams,
        )

    @property
    def has_wrap_run_event_stream(self) -> bool:
        """Whether runs must be streamed for this capability; they need not, as it only looks at what is streamed."""
        return False

    async def wrap_run_event_stream(self, ctx: Any, *, stream: Any) -> AsyncGenerator[Any, None]:
        """Note what the application reads of a stream, in case that it is left or cut."""
        streams = _by_run.get(ctx.run_id)
        try:
            async for event in stream:
                if streams is not None and (text := reading.words_of(event)):
                    streams.note(text)
                yield event
        finally:
            if hasattr(stream, "aclose"):
                await stream.aclose()

    async def prepare_model_request(self, ctx: Any, request_context: R) -> R:
        """Count the attempts of a request beyond the first."""
        run = current_run()
        if isinstance(run, LlmInvocation) and getattr(request_context, "attempt", 1) > 1:
            run.retry()
        return request_context

    async def wrap_tool_execute(
        self,
        ctx: Any,
        *,
        call: Any,
        tool_def: Any,
        args: dict[str, Any],
        handler: Callable[[Any], Awaitable[R]],
    ) -> R:
        """Record a tool call; a refused tool does not run."""
        run = self._begin(lambda recorder: recorder.start(Operation.TOOL, call.tool_name))
        if run is None:
            return await handler(args)
        return await _observe(run, lambda: handler(args), _write_result, arguments=args)

    def _begin(self, start: Callable[[Recorder], _Run]) -> _Run | None:
        recorder = get_recorder() if self.recorder is None else self.recorder
        return start(recorder) if recorder.enabled else None


async def _observe(
    run: _Run,
    work: Callable[[], Awaitable[R]],
    write: Callable[[_Run, R], object],
    *,
    content: object = None,
    arguments: Mapping[str, object] = _NOTHING,
    streams: _Streams | None = None,
) -> R:
    step = run.attach()
    try:
        run.set_input(arguments if content is None else content)
        await check_input_async(run, content, arguments=arguments)
        result = await work()
        output: object = result  # as it is, where it cannot be read
        with guarded(reading.COMPONENT, run.callsite.runtime.counters):
            output = write(run, result)
        await check_output_async(run, output, released=streams is not None and streams.released)
        _end(run, result, streams)
    except BaseException as error:
        await _fail(run, error, streams)
        raise
    finally:
        run.detach(step)
    return result


def _end(run: ActiveInvocation, result: object, streams: _Streams | None) -> None:
    if streams is not None and isinstance(run, LlmInvocation) and getattr(result, "state", None) in _CUT_SHORT:
        streams.left = True
        run.end_as(Status.ABANDONED)
    else:
        run.stop()


async def _fail(run: ActiveInvocation, error: BaseException, streams: _Streams | None) -> None:
    cancelled = isinstance(error, asyncio.CancelledError)
    if streams is None:
        run.fail(error)
    elif isinstance(run, LlmInvocation) and cancelled:
        streams.cut.append(run)
        await check_released_async(run)
    else:
        streams.end_cut(error)
        # The framework cancels a run whose stream is left.
        await end_early(run, None if cancelled and streams.left else error)


def _write_output(run: ActiveInvocation, result: Any) -> object:
    run.observe_output(result.output)
    return result.output


def _write_result(run: ActiveInvocation, result: object) -> object:
    run.observe_output(result)
    return result
