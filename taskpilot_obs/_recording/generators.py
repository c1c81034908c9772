"""Runs generators step by step: the invocation is attached during each step and never across a `yield`.

This keeps context variables and spans correct when the consumer suspends, hands the generator to another task or
thread, or drops it. The loops follow PEP 380 (delegation to a subgenerator) and PEP 525 (asynchronous generators).
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar, cast

from taskpilot_obs._recording.scope import current_scope, restore
from taskpilot_obs._recording.statuses import classify
from taskpilot_obs.records import Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextvars import Token

    from taskpilot_obs._recording.invocation import ActiveInvocation
    from taskpilot_obs.records import Scope

R = TypeVar("R")


def drive(run: ActiveInvocation, inner: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
    """Delegate to a generator (`send`, `throw`, `close`, return value) and end the run with it."""
    try:
        value = _step(run, inner.__next__)
        while True:
            run.note_item(value)
            try:
                sent = yield value
            except GeneratorExit as ending:
                closed = _step(run, inner.close)
                if closed is None:
                    raise
                run.fail_stream(ending)
                return cast(R, closed)  # since Python 3.13, `close` returns the generator's return value
            except BaseException as error:  # noqa: BLE001  whatever was thrown in belongs to the inner generator
                value = _step(run, inner.throw, error)
            else:
                value = _step(run, inner.send, sent)
    except _Returned as end:
        run.finish_stream(end.value)
        return cast(R, end.value)
    except BaseException as error:
        run.fail_stream(error)
        raise


class _Returned(Exception):  # noqa: N818  it reports an end, no error
    """A generator returned. StopIteration itself may not leave a generator (PEP 479)."""

    def __init__(self, value: Any) -> None:
        self.value = value
        super().__init__()


def bind(run: ActiveInvocation) -> Token[Scope | None] | None:
    """Make the request that called `run` current; return None if it already is."""
    return None if run.scope is current_scope.get() else current_scope.set(run.scope)


def unbind(request: Token[Scope | None] | None) -> None:
    """Undo `bind`."""
    if request is not None:
        restore(current_scope, request)


def _step(run: ActiveInvocation, advance: Callable[..., Any], *args: Any) -> Any:
    step, request = run.attach(), bind(run)
    try:
        return advance(*args)
    except StopIteration as end:
        raise _Returned(end.value) from None
    finally:
        run.detach(step)
        unbind(request)


def wrap_async_generator(  # noqa: C901  the protocol of PEP 525, whole
    prepare: Callable[..., tuple[ActiveInvocation | None, AsyncGenerator[Any, Any]]],
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """An asynchronous generator function that calls `prepare` at the first step, then passes its generator through."""

    async def observed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        run, inner = prepare(*args, **kwargs)
        thrown: BaseException | None = None
        try:
            value = await _step_async(run, inner.__anext__)
            while True:
                if run is not None:
                    run.note_item(value)
                try:
                    sent = yield value
                except GeneratorExit:
                    await _step_async(run, close_async, inner)
                    raise
                except BaseException as error:  # noqa: BLE001  whatever was thrown in belongs to the inner generator
                    thrown = error
                    value = await _step_async(run, inner.athrow, error)
                    thrown = None
                else:
                    value = await _step_async(run, inner.asend, sent)
        except StopAsyncIteration:
            if run is not None:
                run.finish_stream(None)
        except BaseException as error:
            if run is not None:
                # Cancelled between steps: an event loop that ends closes generators that a consumer left.
                cancelled = error is thrown and classify(type(error))[0] is Status.CANCELLED
                run.fail_stream(GeneratorExit() if cancelled else error)
            raise

    return observed


def steps_of(stream: Any) -> Generator[Any, Any, None]:
    """Iterate any iterable as a generator that closes it."""
    try:
        yield from stream
    finally:
        close(stream)


async def steps_of_async(stream: Any) -> AsyncGenerator[Any, None]:
    """Iterate any asynchronous iterable as a generator that closes it."""
    try:
        async for item in stream:
            yield item
    finally:
        await close_async(stream)


def close(stream: Any) -> None:
    """Close what is iterated, if it can be closed."""
    if hasattr(stream, "close"):
        stream.close()


async def close_async(stream: Any) -> None:
    """Close what is iterated, if it can be closed and is not being closed.

    An event loop closes generators that are collected, each in a task: one within another would be closed twice.
    """
    if getattr(stream, "ag_running", False):
        return
    if hasattr(stream, "aclose"):
        await stream.aclose()
    elif iscoroutinefunction(getattr(stream, "close", None)):
        await stream.close()


async def _step_async(run: ActiveInvocation | None, advance: Callable[..., Any], *args: Any) -> Any:
    if run is None:
        return await advance(*args)
    step, request = run.attach(), bind(run)
    try:
        return await advance(*args)
    finally:
        run.detach(step)
        unbind(request)
