"""One table of behaviours, over every decorator and every context manager: what users of decorators rely on.

A case gets the decorator (or the context manager), uses it as a user would, asserts what the user sees, and says with
which statuses the runs end. `test_decorators.py` holds what is particular: naming, typing, methods, responses.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import pytest

from taskpilot_obs import (
    observe_agent,
    observe_llm,
    observe_tool,
    observe_workflow,
    track_agent,
    track_llm,
    track_tool,
    track_workflow,
)
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import Captured

Wrap = Callable[[Any], Any]
Statuses = list[str]

DECORATORS: dict[str, Wrap] = {
    "workflow": observe_workflow("w"),
    "agent": observe_agent("a"),
    "tool": observe_tool("t"),
    "llm": observe_llm(model="m", provider="p"),
}
BLOCKS: dict[str, Callable[[], Any]] = {
    "workflow": lambda: track_workflow("w"),
    "agent": lambda: track_agent("a"),
    "tool": lambda: track_tool("t"),
    "llm": lambda: track_llm(model="m", provider="p"),
}


class Stop(Exception):  # noqa: N818  thrown into generators
    """What a user throws."""


# --- functions -------------------------------------------------------------------------------------------------------


def returns_the_same_object(wrap: Wrap) -> Statuses:
    result = object()
    assert wrap(lambda: result)() is result
    return ["success"]


def raises_the_same_object(wrap: Wrap) -> Statuses:
    error = Stop("x")

    def fails() -> None:
        raise error

    with pytest.raises(Stop) as caught:
        wrap(fails)()
    assert caught.value is error
    assert caught.value.__context__ is None
    assert [entry.name for entry in caught.traceback][-1] == "fails"
    return ["error"]


def passes_system_exit(wrap: Wrap) -> Statuses:
    def leaves() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        wrap(leaves)()
    return ["cancelled"]


def passes_arguments(wrap: Wrap) -> Statuses:
    def function(a: int, /, b: int, *rest: int, c: int = 4, **more: int) -> tuple[Any, ...]:
        return a, b, rest, c, more

    wrapped = wrap(function)
    assert wrapped(1, 2, 3, c=5, d=6) == (1, 2, (3,), 5, {"d": 6})
    assert inspect.signature(wrapped) == inspect.signature(function)
    with pytest.raises(TypeError):
        wrapped()
    return ["success", "error"]


def wraps_a_partial(wrap: Wrap) -> Statuses:
    assert wrap(functools.partial(lambda a, b: a + b, 1))(2) == 3
    return ["success"]


def is_wrapped_by_a_partial(wrap: Wrap) -> Statuses:
    assert functools.partial(wrap(lambda a, b: a + b), 1)(2) == 3
    return ["success"]


def wraps_a_method(wrap: Wrap) -> Statuses:
    class Owner:
        @wrap
        def method(self) -> Owner:
            return self

    owner = Owner()
    assert owner.method() is owner
    return ["success"]


def recurses(wrap: Wrap) -> Statuses:
    @wrap
    def down(depth: int) -> int:
        return 0 if depth == 0 else 1 + down(depth - 1)

    assert down(3) == 3
    return ["success"] * 4


def runs_in_many_threads(wrap: Wrap) -> Statuses:
    double = wrap(lambda number: 2 * number)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(double, range(40))) == [2 * number for number in range(40)]
    return ["success"] * 40


# --- coroutines ------------------------------------------------------------------------------------------------------


def is_a_coroutine_function(wrap: Wrap) -> Statuses:
    async def later(value: object) -> object:
        await asyncio.sleep(0)
        return value

    wrapped = wrap(later)
    assert inspect.iscoroutinefunction(wrapped)
    result = object()
    assert asyncio.run(wrapped(result)) is result
    return ["success"]


def is_cancelled(wrap: Wrap) -> Statuses:
    async def main() -> None:
        task = asyncio.create_task(wrap(asyncio.Event().wait)())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    return ["cancelled"]


def times_out(wrap: Wrap) -> Statuses:
    async def main() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(wrap(main)())
    return ["timeout"]


def nests_under_concurrency(wrap: Wrap) -> Statuses:
    @wrap
    async def inner(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @wrap
    async def outer(number: int) -> Any:
        return await asyncio.gather(*(inner(10 * number + below) for below in range(3)))

    async def main() -> Any:
        return await asyncio.gather(*(outer(number) for number in range(4)))

    assert asyncio.run(main()) == [[10 * number + below for below in range(3)] for number in range(4)]
    return ["success"] * 16


def is_awaited_in_a_task_group(wrap: Wrap) -> Statuses:
    @wrap
    async def fails() -> None:
        raise Stop

    @wrap
    async def waits() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits())
            group.create_task(fails())

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    return ["error", "cancelled"]


# --- generators ------------------------------------------------------------------------------------------------------


def talking(log: list[object]) -> Callable[[], Generator[int, object, str]]:
    """A generator function that notes what it is told."""

    def generator() -> Generator[int, object, str]:
        try:
            for number in range(3):
                try:
                    log.append((yield number))
                except Stop:
                    log.append("thrown")
            return "done"
        finally:
            log.append("closed")

    return generator


def yields_and_returns(wrap: Wrap) -> Statuses:
    log: list[object] = []
    wrapped = wrap(talking(log))
    assert inspect.isgeneratorfunction(wrapped)

    def outer() -> Generator[int, object, Any]:
        return (yield from wrapped())

    stream = outer()
    seen = [next(stream), stream.send("a"), stream.throw(Stop())]
    with pytest.raises(StopIteration) as end:
        stream.send("b")
    assert (seen, end.value.value) == ([0, 1, 2], "done")
    assert log == ["a", "thrown", "b", "closed"]
    return ["success"]


def is_closed_early(wrap: Wrap) -> Statuses:
    log: list[object] = []
    stream = wrap(talking(log))()
    next(stream)
    stream.close()
    assert log == ["closed"]
    return ["abandoned"]


def is_dropped(wrap: Wrap) -> Statuses:
    log: list[object] = []
    stream = wrap(talking(log))()
    next(stream)
    del stream
    gc.collect()
    assert log == ["closed"]
    return ["abandoned"]


def is_never_begun(wrap: Wrap) -> Statuses:
    wrap(talking([]))()
    return []


def has_something_thrown_that_it_lets_pass(wrap: Wrap) -> Statuses:
    stream = wrap(talking([]))()
    next(stream)
    error = ValueError("x")
    with pytest.raises(ValueError, match="x") as caught:
        stream.throw(error)
    assert caught.value is error
    return ["error"]


def raises_while_it_is_read(wrap: Wrap) -> Statuses:
    def fails() -> Iterator[int]:
        yield 1
        raise Stop

    with pytest.raises(Stop):
        list(wrap(fails)())
    return ["error"]


def is_read_alternately(wrap: Wrap) -> Statuses:
    wrapped = wrap(talking([]))
    assert list(zip(wrapped(), wrapped(), strict=True)) == [(0, 0), (1, 1), (2, 2)]
    return ["success", "success"]


# --- asynchronous generators -----------------------------------------------------------------------------------------


def talking_later(log: list[object]) -> Callable[[], AsyncGenerator[int, object]]:
    """The asynchronous form."""

    async def generator() -> AsyncGenerator[int, object]:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                try:
                    log.append((yield number))
                except Stop:
                    log.append("thrown")
        finally:
            log.append("closed")

    return generator


def yields_later(wrap: Wrap) -> Statuses:
    log: list[object] = []
    wrapped = wrap(talking_later(log))
    assert inspect.isasyncgenfunction(wrapped)

    async def main() -> list[int]:
        stream = wrapped()
        seen = [await anext(stream), await stream.asend("a"), await stream.athrow(Stop())]
        with pytest.raises(StopAsyncIteration):
            await stream.asend("b")
        return seen

    assert asyncio.run(main()) == [0, 1, 2]
    assert log == ["a", "thrown", "b", "closed"]
    return ["success"]


def is_closed_early_later(wrap: Wrap) -> Statuses:
    log: list[object] = []

    async def main() -> None:
        async with aclosing(wrap(talking_later(log))()) as stream:
            await anext(stream)

    asyncio.run(main())
    assert log == ["closed"]
    return ["abandoned"]


def is_cancelled_while_it_is_read(wrap: Wrap) -> Statuses:
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def read() -> None:
        async for _ in wrap(slow)():
            pass

    async def main() -> None:
        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    return ["cancelled"]


def is_left_open_by_its_loop(wrap: Wrap) -> Statuses:
    async def main() -> None:
        stream = wrap(talking_later([]))()
        await anext(stream)

    asyncio.run(main())
    gc.collect()
    return ["abandoned"]


# --- with other decorators -------------------------------------------------------------------------------------------


def makes_a_context_manager(wrap: Wrap) -> Statuses:
    @contextmanager
    @wrap
    def opened() -> Iterator[int]:
        yield 1

    with opened() as value:
        assert value == 1
    return ["success"]


def makes_an_asynchronous_context_manager(wrap: Wrap) -> Statuses:
    @asynccontextmanager
    @wrap
    async def opened() -> AsyncIterator[int]:
        yield 1

    async def main() -> Any:
        async with opened() as value:
            return value

    assert asyncio.run(main()) == 1
    return ["success"]


def is_cached(wrap: Wrap) -> Statuses:
    cached = functools.cache(wrap(lambda number: number))
    assert cached(1) == cached(1) == 1
    return ["success"]


CASES: list[Callable[[Wrap], Statuses]] = [
    returns_the_same_object,
    raises_the_same_object,
    passes_system_exit,
    passes_arguments,
    wraps_a_partial,
    is_wrapped_by_a_partial,
    wraps_a_method,
    recurses,
    runs_in_many_threads,
    is_a_coroutine_function,
    is_cancelled,
    times_out,
    nests_under_concurrency,
    is_awaited_in_a_task_group,
    yields_and_returns,
    is_closed_early,
    is_dropped,
    is_never_begun,
    has_something_thrown_that_it_lets_pass,
    raises_while_it_is_read,
    is_read_alternately,
    yields_later,
    is_closed_early_later,
    is_cancelled_while_it_is_read,
    is_left_open_by_its_loop,
    makes_a_context_manager,
    makes_an_asynchronous_context_manager,
    is_cached,
]


@pytest.mark.promise("unchanged-functions")
@pytest.mark.parametrize("decorator", DECORATORS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_decorator(
    case: Callable[[Wrap], Statuses], decorator: str, seen: Captured[Invocation], recorder: Recorder
) -> None:
    """Every decorator behaves as the case says, and each run is recorded once, with its status; nothing runs on."""
    expected = case(DECORATORS[decorator])
    gc.collect()
    assert sorted(run.status for run in seen) == sorted(expected)
    assert active(recorder) == 0


def active(recorder: Recorder) -> float:
    """How many runs the gauges show."""
    recorder.drain()
    assert recorder.registry is not None
    names = ("workflow_active_runs", "agent_active_runs", "llm_active_requests")
    return sum(each.value for family in recorder.registry.collect() for each in family.samples if each.name in names)


# --- blocks ----------------------------------------------------------------------------------------------------------


def is_left_normally(block: Callable[[], Any]) -> Statuses:
    with block() as run:
        assert run.invocation_id
    return ["success"]


def is_left_by_an_exception(block: Callable[[], Any]) -> Statuses:
    error = Stop()
    with pytest.raises(Stop) as caught, block():
        raise error
    assert caught.value is error
    return ["error"]


def is_left_by_break_and_return(block: Callable[[], Any]) -> Statuses:
    def returns() -> int:
        with block():
            return 1

    for _ in range(2):
        with block():
            break
    assert returns() == 1
    return ["success", "success"]


def is_left_asynchronously(block: Callable[[], Any]) -> Statuses:
    async def main() -> None:
        async with block():
            await asyncio.sleep(0)

    asyncio.run(main())
    return ["success"]


def is_cancelled_inside(block: Callable[[], Any]) -> Statuses:
    async def main() -> None:
        async with asyncio.timeout(0):
            async with block():
                await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    return ["cancelled"]


def spans_a_yield(block: Callable[[], Any]) -> Statuses:
    def generator() -> Generator[int]:
        with block():
            yield 1
            yield 2

    stream = generator()
    next(stream)
    stream.close()
    assert list(generator()) == [1, 2]
    return ["abandoned", "success"]


def is_used_concurrently(block: Callable[[], Any]) -> Statuses:
    async def one() -> str:
        async with block() as run:
            await asyncio.sleep(0)
            return str(run.invocation_id)

    async def main() -> list[str]:
        return await asyncio.gather(*(one() for _ in range(10)))

    assert len(set(asyncio.run(main()))) == 10
    return ["success"] * 10


BLOCK_CASES: list[Callable[[Callable[[], Any]], Statuses]] = [
    is_left_normally,
    is_left_by_an_exception,
    is_left_by_break_and_return,
    is_left_asynchronously,
    is_cancelled_inside,
    spans_a_yield,
    is_used_concurrently,
]


@pytest.mark.promise("booked-once")
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", BLOCK_CASES, ids=lambda case: case.__name__)
def test_every_block(
    case: Callable[[Callable[[], Any]], Statuses], block: str, seen: Captured[Invocation], recorder: Recorder
) -> None:
    """Every context manager behaves as the case says, and each run is recorded once, with its status."""
    expected = case(BLOCKS[block])
    assert sorted(run.status for run in seen) == sorted(expected)
    assert active(recorder) == 0
