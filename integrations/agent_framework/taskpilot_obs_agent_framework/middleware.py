"""Middleware for agents, model calls and functions: each records a run, and asks the checks before and after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from agent_framework import AgentMiddleware, ChatMiddleware, FunctionMiddleware, MiddlewareFailure, ResponseStream

from taskpilot_obs.integration import (
    ActiveInvocation,
    Recorder,
    RefusedError,
    answer_limits,
    attached,
    check_input_async,
    check_output_async,
    get_recorder,
    guarded,
)
from taskpilot_obs_agent_framework import reading
from taskpilot_obs_agent_framework.streams import Followed

T = TypeVar("T")

_SEEN: Final = "taskpilot_obs"
"""In a context's metadata: it is being observed, by the agent's middleware or by that of the run around this one."""


class _Observer:
    """Records one kind of work.

    Args:
        recorder: where to; the default one when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._given = recorder

    async def process(self, context: Any, call_next: Callable[[], Awaitable[None]]) -> None:
        """Record the work, unless a check refuses it.

        Args:
            context: the framework's.
            call_next: does the work.

        Raises:
            MiddlewareFailure: a check in enforce mode refused; its cause is the `RefusedError`. Any other exception
                of a tool would become its result, and the run would go on.
        """
        recorder = get_recorder() if self._given is None else self._given
        if not recorder.enabled or _SEEN in context.metadata:
            await call_next()
            return
        context.metadata[_SEEN] = True
        try:
            await self._observe(self._start(recorder, context), context, call_next)
        finally:  # middleware of the application may call again with this context: that is another call
            context.metadata.pop(_SEEN, None)

    async def _observe(self, run: ActiveInvocation, context: Any, call_next: Callable[[], Awaitable[None]]) -> None:
        try:
            with attached(run, reading.cause_of):
                await self._check_input(run, context)
                await call_next()
                if isinstance(context.result, ResponseStream):
                    Followed(run, context.result, _end_released)
                else:
                    await check_output_async(run, reading.write_result(run, context.result))
                    run.stop()
        except RefusedError as refusal:
            raise MiddlewareFailure(str(refusal)) from refusal

    def _start(self, recorder: Recorder, context: Any) -> ActiveInvocation:
        """Begin the run, whether or not its names can be read: what is not begun is not checked."""
        raise NotImplementedError

    async def _check_input(self, run: ActiveInvocation, context: Any) -> None:
        content: object = [context.options, context.messages]  # as they are, where they cannot be read
        with guarded(reading.COMPONENT, run.callsite.runtime.counters):
            content = reading.messages_of(context)
            run.set_input(content)
        await check_input_async(run, content, arguments=answer_limits(context.options))


class AgentObserver(_Observer, AgentMiddleware):  # type: ignore[misc]  # the framework may be missing where types are checked
    """Records the runs of agents."""

    def _start(self, recorder: Recorder, context: Any) -> ActiveInvocation:
        name = _read(recorder, lambda: reading.agent_name(context.agent), type(context.agent).__name__)
        run = recorder.start("invoke_agent", name)
        with guarded(reading.COMPONENT, recorder.counters):
            if context.session is not None:
                run.set_attribute("conversation", str(context.session.session_id))
        return run


class ChatObserver(_Observer, ChatMiddleware):  # type: ignore[misc]  # likewise
    """Records model calls: usage, model, cost, time to the first token."""

    def _start(self, recorder: Recorder, context: Any) -> ActiveInvocation:
        model = _read(recorder, lambda: reading.model_of(context), None)
        provider = _read(recorder, lambda: reading.provider_of(context.client), None)
        return recorder.start_llm(model=model, provider=provider)


class FunctionObserver(_Observer, FunctionMiddleware):  # type: ignore[misc]  # likewise
    """Records tool calls. A refused tool does not run, and the run that asked for it is aborted."""

    def _start(self, recorder: Recorder, context: Any) -> ActiveInvocation:
        name = _read(recorder, lambda: str(context.function.name), type(context.function).__name__)
        return recorder.start("execute_tool", name)

    async def _check_input(self, run: ActiveInvocation, context: Any) -> None:
        arguments: dict[str, object] = {"arguments": context.arguments}
        with guarded(reading.COMPONENT, run.callsite.runtime.counters):
            arguments = reading.arguments_of(context)
            run.set_input(arguments)
        await check_input_async(run, arguments=arguments)


def observability_middleware(recorder: Recorder | None = None) -> list[Any]:
    """Make all three: `Agent(client, middleware=observability_middleware())`.

    A list, because the framework's `MiddlewareBundle` is experimental, and warns of that.

    Args:
        recorder: where to; the default one when left out.

    Returns:
        The middleware of agents, tools and chat clients.
    """
    return [AgentObserver(recorder), FunctionObserver(recorder), ChatObserver(recorder)]


def _read(recorder: Recorder, read: Callable[[], T], otherwise: T) -> T:
    """What an object of the application states; it may raise."""
    with guarded(reading.COMPONENT, recorder.counters):
        return read()
    return otherwise


async def _end_released(run: ActiveInvocation, response: Any) -> None:
    """End the run of a stream, whose pieces the application has already."""
    try:
        await check_output_async(run, reading.write_result(run, response), released=True)
    finally:
        run.stop()  # it was read whole, whatever ends its checks
