"""Decorators: every kind of function keeps its kind, its signature and its behaviour, and is recorded once."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import pickle
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

import pytest

from taskpilot_obs import observe_agent, observe_llm, observe_tool, observe_workflow
from taskpilot_obs._api.decorators import default_name
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.records import Invocation, Operation, Status
from taskpilot_obs.testing import Captured, fresh_recorder


@observe_agent
def plain(text: str, /, times: int = 1, *, loud: bool = False) -> str:
    """Repeats a text."""
    return text * times + ("!" if loud else "")


@observe_agent
async def coroutine(text: str) -> str:
    """Says it later."""
    await asyncio.sleep(0)
    return text


@observe_agent
def generator(count: int) -> Generator[int, int, str]:
    """Counts."""
    yield from range(count)
    return "done"


@observe_agent
async def async_generator(count: int) -> AsyncGenerator[int]:
    """Counts later."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


class Agent:
    """Has methods of every kind."""

    @observe_agent
    def method(self, text: str) -> str:
        return text

    @observe_agent("classy")
    @classmethod
    def inside_out(cls, text: str) -> str:
        return cls.__name__ + text

    @classmethod
    @observe_agent
    def outside_in(cls, text: str) -> str:
        return cls.__name__ + text

    @observe_agent
    @staticmethod
    def static(text: str) -> str:
        return text

    @observe_agent
    async def later(self, text: str) -> str:
        return text


class Callee:
    """A callable object."""

    def __call__(self, text: str) -> str:
        return text


class AsyncCallee:
    """A callable object that is asynchronous."""

    async def __call__(self, text: str) -> str:
        return text


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator, Agent.method, Agent.later])
def test_kind_signature_and_docs_survive(function: Callable[..., object]) -> None:
    """`inspect` answers about a decorated function what it answers about the function itself."""
    original = function.__wrapped__  # type: ignore[attr-defined]
    for question in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isfunction,
        inspect.signature,
        inspect.getdoc,
    ):
        assert question(function) == question(original)
    assert function.__qualname__ == original.__qualname__
    assert inspect.unwrap(function) is original


def test_decorated_functions_pickle_by_name() -> None:
    """A decorated module function or method is pickled like any other."""
    assert pickle.loads(pickle.dumps(plain)) is plain  # noqa: S301  its own bytes
    assert pickle.loads(pickle.dumps(Agent().method))("x") == "x"  # noqa: S301  its own bytes


def test_values_pass_through(seen: Captured[Invocation]) -> None:
    """Arguments, defaults and results pass unchanged, and each call is one invocation with its lengths."""
    assert plain("ab", 2, loud=True) == "abab!"
    (run,) = seen
    assert (run.operation, run.name, run.status) == (Operation.AGENT, "plain", Status.SUCCESS)
    assert (run.input_length, run.output_length) == (2, 5)
    assert run.is_task
    assert run.workflow == run.agent == "plain"


def test_methods_of_every_kind(seen: Captured[Invocation]) -> None:
    """Methods, classmethods on either side, staticmethods and async methods work and are named by their class."""
    agent = Agent()
    assert agent.method("a") == "a"
    assert Agent.inside_out("b") == "Agentb"
    assert agent.outside_in("c") == "Agentc"
    assert Agent.static("d") == "d"
    assert asyncio.run(agent.later("e")) == "e"
    assert [run.name for run in seen] == ["Agent.method", "classy", "Agent.outside_in", "Agent.static", "Agent.later"]


def test_partials_objects_and_lambdas(seen: Captured[Invocation]) -> None:
    """Partials, callable objects and lambdas are recorded, the asynchronous ones to their end."""

    async def later(text: str) -> str:
        await asyncio.sleep(0.01)
        return text

    assert observe_tool(functools.partial(plain.__wrapped__, "x"))() == "x"  # type: ignore[attr-defined]
    assert observe_tool(Callee())("y") == "y"
    assert asyncio.run(observe_tool(AsyncCallee())("z")) == "z"
    lazy: Callable[[], Coroutine[None, None, str]] = observe_tool("lazy")(lambda: later("w"))
    assert asyncio.run(lazy()) == "w"
    assert [run.name for run in seen] == ["plain", "Callee", "AsyncCallee", "lazy"]
    assert seen[3].duration_s >= 0.01


def test_plain_function_that_returns_generators_is_followed(seen: Captured[Invocation]) -> None:
    """A plain function that returns a generator, or an asynchronous one, is timed to the end of it."""
    assert list(observe_agent("sync")(lambda: generator.__wrapped__(3))()) == [0, 1, 2]  # type: ignore[attr-defined]

    async def consume() -> list[int]:
        return [number async for number in observe_agent("async")(lambda: async_generator.__wrapped__(2))()]  # type: ignore[attr-defined]

    assert asyncio.run(consume()) == [0, 1]
    assert [(run.name, run.status) for run in seen] == [("sync", Status.SUCCESS), ("async", Status.SUCCESS)]


@pytest.mark.promise("unchanged-functions")
def test_other_results_are_the_same_object() -> None:
    """Results other than coroutines and generators come back as the same object."""
    thing = object()
    assert observe_agent("same")(lambda: thing)() is thing


def test_decorating_a_class_says_what_to_do() -> None:
    """A class is refused, with the way out in the message."""
    with pytest.raises(TypeError, match=r"Callee is a class: decorate the method"):
        observe_agent(Callee)


def test_decorating_what_is_not_callable() -> None:
    """What cannot be called is refused by its type."""
    with pytest.raises(TypeError, match="got int"):
        observe_agent("x")(3)  # type: ignore[type-var]


@pytest.mark.promise("unchanged-functions")
def test_exceptions_are_the_same_object(seen: Captured[Invocation]) -> None:
    """The user's exception arrives as it was raised, also a BaseException."""
    for error, status in ((ValueError("no"), Status.ERROR), (KeyboardInterrupt(), Status.CANCELLED)):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            observe_workflow("w")(fail)()
        assert caught.value is error
        assert seen[-1].status is status
    assert [run.error_type for run in seen] == ["ValueError", None]


def test_generator_protocol_passes_through(seen: Captured[Invocation]) -> None:
    """`send`, `throw` and return values reach the generator and come back."""

    @observe_agent
    def echo() -> Generator[object, object, str]:
        got: object = None
        while got != "stop":
            try:
                got = yield got
            except KeyError as error:
                got = error.args[0]
        return "bye"

    stream = echo()
    assert next(stream) is None
    assert stream.send("a") == "a"
    assert stream.throw(KeyError("b")) == "b"
    with pytest.raises(StopIteration) as end:
        stream.send("stop")
    assert end.value.value == "bye"
    assert [run.status for run in seen] == [Status.SUCCESS]


def test_async_generator_protocol_passes_through(seen: Captured[Invocation]) -> None:
    """`asend`, `athrow` and `aclose` reach the asynchronous generator."""

    @observe_agent
    async def echo() -> AsyncGenerator[object, object]:
        got: object = None
        while True:
            try:
                got = yield got
            except KeyError as error:
                got = error.args[0]

    async def talk() -> list[object]:
        stream = echo()
        said = [await anext(stream), await stream.asend("a"), await stream.athrow(KeyError("b"))]
        await stream.aclose()
        return said

    assert asyncio.run(talk()) == [None, "a", "b"]
    assert [run.status for run in seen] == [Status.ABANDONED]


def test_a_generator_is_timed_from_first_step_to_its_end(seen: Captured[Invocation]) -> None:
    """Three steps of 20 ms are at least 60 ms, and the time before the first `next` is not counted."""

    @observe_agent
    def slow() -> Generator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    stream = slow()
    time.sleep(0.05)
    assert list(stream) == [0, 1, 2]
    assert seen[0].duration_s >= 0.06


def test_a_generator_never_iterated_records_nothing(seen: Captured[Invocation], recorder: Recorder) -> None:
    """A generator that is never started leaves no record and no active run."""
    generator(3)
    async_generator(3)
    gc.collect()
    assert len(seen) == 0
    assert active(recorder) == 0


def active(recorder: Recorder) -> float:
    """Agents that the gauge holds for running."""
    recorder.drain()
    assert recorder.registry is not None
    samples = [s for family in recorder.registry.collect() for s in family.samples if s.name == "agent_active_runs"]
    return sum(sample.value for sample in samples)


async def _stop_after_one(stream: AsyncGenerator[int]) -> None:
    async for _ in stream:
        break
    await stream.aclose()


async def _close_elsewhere(stream: AsyncGenerator[int]) -> None:
    await anext(stream)
    await asyncio.create_task(stream.aclose())


async def _drop(stream: AsyncGenerator[int]) -> None:
    await anext(stream)
    del stream
    gc.collect()
    await asyncio.sleep(0.01)


async def _drop_and_leave(stream: AsyncGenerator[int]) -> None:
    await anext(stream)


async def _cancel(stream: AsyncGenerator[int]) -> None:
    task = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (_stop_after_one, Status.ABANDONED),
        (_close_elsewhere, Status.ABANDONED),
        (_drop, Status.ABANDONED),
        (_drop_and_leave, Status.ABANDONED),
        (_cancel, Status.CANCELLED),
    ],
)
def test_endings_of_an_async_stream(
    seen: Captured[Invocation],
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
    ending: Callable[[AsyncGenerator[int]], Coroutine[None, None, None]],
    status: Status,
) -> None:
    """However a consumer leaves a stream, there is one invocation with the right status and nothing stays active."""

    @observe_agent
    async def stream(pause: float) -> AsyncGenerator[int]:
        for number in range(3):
            await asyncio.sleep(pause)
            yield number

    asyncio.run(ending(stream(10 if ending is _cancel else 0)))
    gc.collect()
    assert [run.status for run in seen] == [status]
    assert active(recorder) == 0
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_a_generator_that_is_being_closed(seen: Captured[Invocation]) -> None:
    """Where an event loop closes the generator within already, a stream that is left is `abandoned`, and no error."""

    async def numbers() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)

    async def close_both() -> None:
        inner = numbers()
        outer = observe_agent("stream")(lambda: inner)()
        await anext(outer)
        closing = asyncio.create_task(inner.aclose())
        await asyncio.sleep(0)
        await outer.aclose()
        await closing

    asyncio.run(close_both())
    assert [run.status.value for run in seen] == ["abandoned"]


def test_endings_of_a_stream(seen: Captured[Invocation], recorder: Recorder) -> None:
    """A generator that is dropped or closed is abandoned, one whose body raises has failed."""

    @observe_agent
    def stream(*, fail: bool = False) -> Generator[int]:
        yield 1
        if fail:
            raise ValueError
        yield 2

    dropped = stream()
    next(dropped)
    del dropped
    closed = stream()
    next(closed)
    closed.close()
    with pytest.raises(ValueError):
        list(stream(fail=True))
    assert [run.status for run in seen] == [Status.ABANDONED, Status.ABANDONED, Status.ERROR]
    assert active(recorder) == 0


def test_async_body_that_raises(seen: Captured[Invocation]) -> None:
    """An asynchronous generator whose body raises has failed, with the same exception."""
    error = ValueError("x")

    @observe_agent
    async def stream() -> AsyncGenerator[int]:
        yield 1
        raise error

    async def consume() -> None:
        async for _ in stream():
            pass

    with pytest.raises(ValueError) as caught:
        asyncio.run(consume())
    assert caught.value is error
    assert [run.status for run in seen] == [Status.ERROR]


def test_an_async_generator_without_an_event_loop_is_abandoned_when_it_goes(seen: Captured[Invocation]) -> None:
    """An asynchronous generator that was begun and dropped where no loop closes it still ends."""

    @observe_agent
    async def stream() -> AsyncGenerator[int]:
        yield 1

    running = stream()
    step = running.__anext__()
    with pytest.raises(StopIteration):
        step.send(None)
    del running, step
    gc.collect()
    assert [run.status for run in seen] == [Status.ABANDONED]


def test_a_coroutine_never_awaited_after_a_plain_call_is_abandoned(seen: Captured[Invocation]) -> None:
    """An unfinished result of a plain function that is never continued ends as abandoned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "never awaited" is what this is about
        lazy = observe_agent("lazy")(lambda: coroutine.__wrapped__("x"))()  # type: ignore[attr-defined]
        del lazy
        gc.collect()
    assert [run.status for run in seen] == [Status.ABANDONED]


def test_cancellation_propagates_at_once(seen: Captured[Invocation]) -> None:
    """A cancelled coroutine is cancelled in the same step, and recorded as such."""

    @observe_agent
    async def wait() -> None:
        await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert [run.status for run in seen] == [Status.CANCELLED]


def test_nesting_gives_parents_and_lineage(seen: Captured[Invocation]) -> None:
    """Workflow, agent and tool know each other: parents, request, and nearest workflow and agent."""

    @observe_tool
    def tool() -> None: ...

    @observe_agent("A")
    def agent() -> None:
        tool()

    @observe_workflow
    def task() -> None:
        agent()

    task()
    called, acted, done = seen
    assert (called.name, acted.name, done.name) == ("tool", "A", "task")
    assert called.parent_id == acted.invocation_id
    assert acted.parent_id == done.invocation_id
    assert done.parent_id is None
    assert {run.request_id for run in seen} == {done.request_id}
    assert (called.workflow, called.agent) == ("task", "A")
    assert [run.is_task for run in seen] == [False, False, True]
    assert done.rollup is not None
    assert done.rollup.tool_calls == 1


def test_a_name_by_keyword_and_an_empty_one() -> None:
    """A name may be given by keyword; an empty one is refused where it is given."""
    assert observe_agent(name="Planner")(lambda: 1)() == 1
    with pytest.raises(ValueError, match="the name is empty"):
        observe_agent(" ")


def test_default_names() -> None:
    """A name is the qualified one after the last function that it was defined in."""

    class Inner:
        def work(self) -> None: ...

    assert default_name(Inner.work) == "Inner.work"
    assert default_name(Inner()) == "Inner"
    assert default_name(functools.partial(functools.partial(plain), 1)) == "plain"


def test_disabled_is_a_pass_through() -> None:
    """Switched off, every kind of function still works and nothing is recorded."""
    with fresh_recorder(enabled=False) as off:
        assert plain("a") == "a"
        assert asyncio.run(coroutine("b")) == "b"
        assert list(generator(2)) == [0, 1]

        async def consume() -> list[int]:
            return [number async for number in async_generator(2)]

        assert asyncio.run(consume()) == [0, 1]
        assert off.pipeline.backlog == 0
        assert off.pipeline._drainer is None


def test_observe_llm_reads_the_response(seen: Captured[Invocation]) -> None:
    """A function that returns a provider's response is an LLM call, read and priced."""
    body: dict[str, object] = {
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200},
    }

    @observe_llm(model="gpt-4o")
    def call() -> dict[str, object]:
        return body

    @observe_llm
    async def bare() -> dict[str, object]:
        return body

    assert call() is body
    assert asyncio.run(bare()) is body
    first, second = seen
    assert (first.request_model, first.response_model, first.provider) == ("gpt-4o", "gpt-4o-2024-08-06", "openai")
    assert first.usage is not None
    assert (first.usage.input_tokens, first.usage.output_tokens) == (150, 50)
    assert str(first.cost) == "0.000875" or float(first.cost or 0) == 0.000875
    assert second.model == "gpt-4o-2024-08-06"


def test_observe_llm_reads_a_stream(seen: Captured[Invocation]) -> None:
    """A function that yields a provider's stream: first token, last usage, and abandoned when left."""
    chunks: list[dict[str, object]] = [
        {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [{"delta": {"content": "h"}}]},
        {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [{"delta": {"content": "i"}}]},
        {
            "object": "chat.completion.chunk",
            "model": "gpt-4o",
            "choices": [],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        },
    ]

    @observe_llm(model="gpt-4o")
    def stream() -> Generator[dict[str, object]]:
        yield from chunks

    assert list(stream()) == chunks
    left = stream()
    next(left)
    left.close()
    whole, part = seen
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (1, 2)
    assert whole.streaming
    assert whole.ttft_s is not None
    assert whole.ttft_s <= whole.duration_s
    assert (part.status, part.usage) == (Status.ABANDONED, None)


def test_observe_llm_refuses_other_operations() -> None:
    """An operation other than an LLM call is refused when the function is decorated."""
    with pytest.raises(ValueError, match="is not an LLM call"):
        observe_llm(operation="execute_tool")


def test_a_coroutine_out_of_a_plain_function_that_fails(seen: Captured[Invocation]) -> None:
    """What a plain function only began and what fails later ends as failed, with the same exception."""
    error = ValueError("x")

    async def later() -> None:
        await asyncio.sleep(0)
        raise error

    begin: Callable[[], Coroutine[None, None, None]] = observe_agent("lazy")(lambda: later())  # noqa: PLW0108  plain
    with pytest.raises(ValueError) as caught:
        asyncio.run(begin())
    assert caught.value is error
    assert [(run.name, run.status) for run in seen] == [("lazy", Status.ERROR)]


def test_arguments_that_do_not_fit_end_the_run(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """Wrong arguments are an error of the call, whatever its kind: it ends, and nothing stays active."""

    async def both() -> None:
        with pytest.raises(TypeError, match="positional argument"):
            await coroutine(1, 2)  # type: ignore[call-arg, arg-type]  # the mistake is the point
        with pytest.raises(TypeError, match="positional argument"):
            await anext(async_generator(1, 2))  # type: ignore[call-arg]

    asyncio.run(both())
    with pytest.raises(TypeError, match="positional argument"):
        plain(1, 2, 3)  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError, match="positional argument"):
        next(generator(1, 2))  # type: ignore[call-arg]
    names = ["coroutine", "async_generator", "plain", "generator"]
    assert [(run.name, run.status, run.error_type) for run in seen] == [
        (name, Status.ERROR, "TypeError") for name in names
    ]
    assert recorder.registry is not None
    active = [s.value for each in recorder.registry.collect() for s in each.samples if s.name == "agent_active_runs"]
    assert not any(active)


def test_names_made_at_run_time_do_not_accumulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that are decorated at run time run as others do, and a bounded number of names is remembered."""
    monkeypatch.setattr("taskpilot_obs._recording.wiring._MAX_DECLARED", 3)
    with fresh_recorder() as recorder:
        known = len(recorder.wiring._declared)
        found = [observe_agent(f"agent-{number}")(lambda number=number: number)() for number in range(5)]
        assert len(recorder.wiring._declared) <= max(3, known)
    assert found == [*range(5)]
