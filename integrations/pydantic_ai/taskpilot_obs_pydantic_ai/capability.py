"""A capability of agents: each run, model request and tool call is recorded, and asked about before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Final, TypeVar

from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering, Instrumentation
from pydantic_ai.exceptions import AgentRunError

from taskpilot_obs.integration import (
    ActiveInvocation,
    LlmInvocation,
    Operation,
    Recorder,
    Status,
    check_input_async,
    check_output_async,
    current_run,
    get_recorder,
    guarded,
)
from taskpilot_obs_pydantic_ai import reading

__all__ = ["ObservabilityCapability"]

R = TypeVar("R")
_Run = TypeVar("_Run", bound=ActiveInvocation)
_WHERE: Final = "pydantic_ai"
_CUT_SHORT: Final = ("incomplete", "interrupted")
"""States of responses that did not come to their end."""
_NOTHING: Final[Mapping[str, object]] = {}


@dataclass
class ObservabilityCapability(AbstractCapability[Any]):  # type: ignore[misc]  # may be missing where types are checked
    """Records and checks the runs of an agent: `Agent(…, capabilities=[ObservabilityCapability()])`.

    A check in enforce mode that refuses aborts the run by its `RefusedError`.

    Args:
        recorder: where to; the default one when left out.
    """

    recorder: Recorder | None = None
    _streamed: bool = field(default=False, init=False, repr=False)
    """Whether an answer of this run was handed out as it came."""
    _left: bool = field(default=False, init=False, repr=False)
    """Whether the application stopped reading one."""
    _cut: list[ActiveInvocation] = field(default_factory=list, init=False, repr=False)
    """Streamed requests whose task the framework has cancelled: how the run ends shows why."""
    _: KW_ONLY
    id: str | None = "taskpilot_obs"
    """Of the agent and of its run there is one."""

    def get_ordering(self) -> Any:
        """Outside of everything, the framework's spans too, so that the bridge finds each run around its span."""
        return CapabilityOrdering(position="outermost", wraps=[Instrumentation])

    async def for_run(self, ctx: Any) -> ObservabilityCapability:
        """Make the capability of one run."""
        return replace(self)

    async def wrap_run(self, ctx: Any, *, handler: Callable[[], Awaitable[R]]) -> R:
        """Record the agent."""
        run = self._begin(lambda recorder: recorder.start("invoke_agent", reading.agent_name(ctx)))
        if run is None:
            return await handler()
        with guarded(_WHERE, run.callsite.runtime.counters):
            if ctx.conversation_id:
                run.set_attribute("conversation", str(ctx.conversation_id))
        return await self._observe(run, handler, _write_output, content=ctx.prompt)

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Callable[[Any], Awaitable[R]]) -> R:
        """Record a call of a model; budgets are asked as well."""
        run = self._begin(
            lambda recorder: recorder.start_llm(
                model=reading.model_of(request_context), provider=reading.provider_of(request_context)
            )
        )
        if run is None:
            return await handler(request_context)
        content, limits = request_context.messages, _NOTHING
        with guarded(_WHERE, run.callsite.runtime.counters):
            content, limits = reading.messages_of(request_context), reading.limits_of(request_context)
        if request_context.streaming:
            self._streamed = True
            run.set_streaming()
        return await self._observe(
            run,
            lambda: handler(request_context),
            reading.write_answer,
            content=content,
            arguments=limits,
            released=request_context.streaming,
        )

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
        run = self._begin(lambda recorder: recorder.start("execute_tool", call.tool_name))
        if run is None:
            return await handler(args)
        return await self._observe(run, lambda: handler(args), _write_result, arguments=args)

    # --- the same for all three --------------------------------------------------------------------------------------

    def _begin(self, start: Callable[[Recorder], _Run]) -> _Run | None:
        recorder = get_recorder() if self.recorder is None else self.recorder
        with guarded(_WHERE, recorder.counters):
            return start(recorder) if recorder.enabled else None
        return None

    async def _observe(
        self,
        run: _Run,
        work: Callable[[], Awaitable[R]],
        write: Callable[[_Run, R], object],
        *,
        content: object = None,
        arguments: Mapping[str, object] = _NOTHING,
        released: bool | None = None,
    ) -> R:
        step = run.attach()
        try:
            run.set_input(arguments if content is None else content)
            await check_input_async(run, content, arguments=arguments)
            result = await work()
            output: object = None
            with guarded(_WHERE, run.callsite.runtime.counters):
                output = write(run, result)
            await check_output_async(run, output, released=self._streamed if released is None else released)
            self._end(run, result)
        except BaseException as error:
            self._fail(run, error)
            raise
        finally:
            run.detach(step)
        return result

    def _end(self, run: ActiveInvocation, result: object) -> None:
        if isinstance(run, LlmInvocation) and getattr(result, "state", None) in _CUT_SHORT:
            self._left = True
            run.end_as(Status.ABANDONED)
        else:
            run.stop()

    def _fail(self, run: ActiveInvocation, error: BaseException) -> None:
        cancelled = isinstance(error, asyncio.CancelledError)
        if isinstance(run, LlmInvocation) and run.streaming and cancelled:
            self._cut.append(run)
            return
        for call in self._cut if run.operation is Operation.AGENT else ():
            if cancelled or isinstance(error, AgentRunError):
                call.fail(error)
            else:  # the application raised where it reads
                call.end_as(Status.ABANDONED)
        if cancelled and self._left:
            run.end_as(Status.ABANDONED)  # the framework cancels a run whose stream is left
        else:
            run.fail(error)


def _write_output(run: ActiveInvocation, result: Any) -> object:
    run.observe_output(result.output)
    return result.output


def _write_result(run: ActiveInvocation, result: object) -> object:
    run.observe_output(result)
    return result
