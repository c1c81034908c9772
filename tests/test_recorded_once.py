"""A call is booked once, in every combination of the layers that see it, through the real SDKs and frameworks."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any, NamedTuple

import pytest
from _layers import ASKERS, Asker, Asking, Call, Stack, World, make
from _provider import serving
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from taskpilot_obs import track_agent
from taskpilot_obs._recording.open_runs import abandon_open_runs
from taskpilot_obs.records import LLM_OPERATIONS, Invocation, Stage
from taskpilot_obs.safety import DenyWords, check_with
from taskpilot_obs.testing import capture_invocations, fresh_recorder

OPENAI_MODELS = ("gpt-4o-mini", "gpt-4.1-mini")
ANTHROPIC_MODELS = ("claude-haiku-4-5", "claude-sonnet-4-6")
MOST_TURNS = 100
WORDS = {"answered": "hi", "left": "hi", "fails": "FAIL", "cancelled": "HANG"}
FULL = bool(os.environ.get("TASKPILOT_OBS_FULL"))


class Case(NamedTuple):
    """What is made at once."""

    stacks: tuple[Stack, ...]
    has_bridge: bool
    has_agent: bool


def calls_of(asker: Asker, *, is_async: bool) -> st.SearchStrategy[Call]:
    """Calls that a way to ask can make."""

    def of_form(form: str) -> st.SearchStrategy[Call]:
        outcomes = [
            "answered",
            "fails",
            *(["left"] if form == "streamed" else []),
            *(["cancelled"] if is_async else []),
        ]
        return st.builds(Call, st.just(form), st.sampled_from(outcomes), st.booleans())

    return st.sampled_from(asker.forms).flatmap(of_form)


@st.composite
def stacks(draw: Any, name: str) -> Stack:
    """A way to ask, with any of its layers, and up to four calls."""
    asker = ASKERS[name]
    is_async = True if asker.is_framework else draw(st.booleans())
    decorators = [None] if asker.is_framework else [None, "observe_llm", "track_llm"]
    return Stack(
        name,
        is_async,
        draw(st.sampled_from(decorators)),
        draw(st.booleans()) if asker.has_adapter else False,
        draw(st.booleans()),
        tuple(draw(st.lists(calls_of(asker, is_async=is_async), min_size=1, max_size=4))),
    )


def cases() -> st.SearchStrategy[Case]:
    """One or two ways to ask at once, beneath an agent or not, with the bridge or without."""
    names = st.lists(st.sampled_from(sorted(ASKERS)), min_size=1, max_size=2, unique=True)
    drawn = names.flatmap(lambda chosen: st.tuples(*(stacks(name) for name in chosen)))
    return st.builds(Case, drawn, st.booleans(), st.booleans())


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One loop, because clients keep their connections."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def world(loop: asyncio.Runner) -> Iterator[World]:
    """The provider, and SDKs that are instrumented for the module."""
    with serving() as provider, ExitStack() as undo:
        made = World(provider)
        instrument(made, undo)
        for asker in ASKERS.values():
            import_module(asker.module)
        gc.collect()
        gc.freeze()  # each example collects what its calls have left, and not all modules again
        yield made
        gc.unfreeze()
        loop.run(made.close())


def instrument(world: World, undo: ExitStack) -> None:
    """Turn on what sees all calls of the process, until the stack unwinds."""
    undo.callback(world.spans.shutdown)
    genai = pytest.importorskip("opentelemetry.instrumentation.genai.openai", reason="needs OpenAI's instrumentor")
    instrumentor = genai.OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=world.spans)
    undo.callback(instrumentor.uninstrument)
    if "agent_framework" in ASKERS:
        from agent_framework import observability

        tracer = world.spans.get_tracer("agent_framework")  # it takes the global provider only
        undo.enter_context(pytest.MonkeyPatch.context()).setattr(observability, "get_tracer", lambda *_, **__: tracer)
    if "openai_agents" in ASKERS:
        import agents
        from taskpilot_obs_openai_agents import observe

        observe(replace=True)
        undo.callback(agents.set_trace_processors, [])


def is_seen(stack: Stack, *, has_bridge: bool) -> bool:
    """Whether any layer records the calls of a stack."""
    by_spans = has_bridge and ASKERS[stack.asker].has_spans
    return stack.decorator is not None or stack.native or stack.wrapped or by_spans


def states_usage(stack: Stack, call: Call) -> bool:
    """Whether a layer reads the answer: a decorated function that returns a raw response has nothing to read."""
    return call.form != "raw" or stack.decorator != "observe_llm"


def allowed(stack: Stack, call: Call) -> set[str]:
    """The statuses that a record of a call may have."""
    if call.outcome == "cancelled" and stack.asker == "langchain" and stack.is_async and stack.native:
        return {"cancelled", "abandoned"}  # LangChain reports no end of it
    if call.outcome != "left":
        return {{"answered": "success", "fails": "error", "cancelled": "cancelled"}[call.outcome]}
    only_spans = stack.decorator is None and not stack.native and not stack.wrapped
    return {"abandoned", "cancelled", "success"} if only_spans else {"abandoned", "cancelled"}


def seen_calls(case: Case) -> list[tuple[Stack, Call]]:
    """The calls that some layer records."""
    return [
        (stack, call) for stack in case.stacks for call in stack.calls if is_seen(stack, has_bridge=case.has_bridge)
    ]


def llm_records(captured: Iterable[Invocation]) -> list[Invocation]:
    """The records of model calls."""
    return [run for run in captured if run.operation in LLM_OPERATIONS]


async def play(world: World, case: Case, captured: Iterable[Invocation]) -> list[str]:
    """Make all calls at once; the class of what each raised."""
    askings = [
        Asking(
            world,
            stack,
            call,
            f"{WORDS[call.outcome]} {place}-{number} {'' if call.has_id else 'NOID'}",
            (ANTHROPIC_MODELS if ASKERS[stack.asker].sdk == "anthropic" else OPENAI_MODELS)[place],
        )
        for place, stack in enumerate(case.stacks)
        for number, call in enumerate(stack.calls)
    ]
    with track_agent("Outer") if case.has_agent else nullcontext():
        ends = await asyncio.gather(*(make(asking) for asking in askings), return_exceptions=True)
    for turn in range(MOST_TURNS):  # streams that were left end when the loop closes their generators, one in another
        gc.collect()
        await asyncio.sleep(0)
        if turn > 1 and len(llm_records(captured)) >= len(seen_calls(case)):
            break
    return ["" if end is None else f"{type(end).__name__} {end}" for end in ends]  # tracebacks would keep calls open


def assert_recorded_once(case: Case, captured: Iterable[Invocation]) -> None:
    """As many records as calls, with their statuses and tokens."""
    made, records = seen_calls(case), llm_records(captured)
    told = sorted(str((run.status.value, run.request_model, run.usage and run.usage[:2])) for run in records)
    assert len(records) == len(made), told
    statuses = [run.status.value for run in records]
    for options in sorted((allowed(stack, call) for stack, call in made), key=len):
        found = next((status for status in sorted(options) if status in statuses), None)
        assert found is not None, told
        statuses.remove(found)
    answered = sum(call.outcome == "answered" and states_usage(stack, call) for stack, call in made)
    assert sum(run.usage is not None and run.usage[:2] == (100, 20) for run in records) >= answered, told


def _agents(*calls: Call, wrapped: bool) -> Stack:
    return Stack("openai_agents", True, None, native=True, wrapped=wrapped, calls=calls)


FOUND = (
    Case(
        (
            _agents(Call("whole", "cancelled", False), Call("whole", "cancelled", False), wrapped=False),
            Stack(
                "openai responses",
                True,
                "observe_llm",
                False,
                wrapped=True,
                calls=(Call("streamed", "cancelled", True),),
            ),
        ),
        has_bridge=True,
        has_agent=True,
    ),
    Case(
        (_agents(Call("whole", "cancelled", False), Call("streamed", "left", True), wrapped=True),),
        has_bridge=False,
        has_agent=True,
    ),
    Case(
        (_agents(Call("whole", "fails", True), Call("streamed", "fails", True), wrapped=False),),
        has_bridge=True,
        has_agent=False,
    ),
)
"""Cases that once failed."""


def found_before(test: Callable[..., None]) -> Callable[..., None]:
    """Try the cases that once failed, as far as their layers are installed."""
    for case in FOUND:
        if all(stack.asker in ASKERS for stack in case.stacks):
            test = example(case=case)(test)
    return test


@contextmanager
def nothing_left(world: World, loop: asyncio.Runner) -> Iterator[None]:
    """End what a case leaves, which the next one would record."""
    try:
        yield
    finally:
        world.provider.release()
        loop.run(cancel_others())
        abandon_open_runs()


async def cancel_others() -> None:
    """Cancel the tasks that a case has left."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.mark.timeout(1_800 if FULL else 180)
@found_before
@settings(
    max_examples=400 if FULL else 30,
    derandomize=not FULL,
    phases=[Phase.explicit, Phase.generate],  # to shrink a case would take minutes of real requests
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_a_call_is_recorded_once(world: World, loop: asyncio.Runner, case: Case) -> None:
    """Decorator, adapter, wrapped client and bridge in any combination: one record a call, and nothing is kept."""
    with (
        fresh_recorder(),
        world.bridged(on=case.has_bridge) as bridge,
        capture_invocations() as captured,
        nothing_left(world, loop),
    ):
        world.wrap_clients()
        ends = loop.run(play(world, case, captured))
        calls = [call for stack in case.stacks for call in stack.calls]
        raised = {"fails", "cancelled"}
        assert [bool(end) for end in ends] == [call.outcome in raised for call in calls], ends
        assert_recorded_once(case, captured)
        if bridge is not None:
            assert (bridge.live, bridge.native.held) == (0, 0)


@pytest.mark.parametrize(("stage", "word"), [("input", "hi"), ("output", "sunny")])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", sorted({"openai chat", "langchain"} & set(ASKERS)))
def test_checks_within_a_block(
    world: World, loop: asyncio.Runner, name: str, is_async: bool, stage: Stage, word: str
) -> None:
    """A `track_llm` block knows no content: the layer beneath asks the checks about it, and the block is the record."""
    call = Call("whole", "answered", has_id=True)
    stack = Stack(name, is_async, "track_llm", native=True, wrapped=name != "langchain", calls=(call,))
    policy = check_with(DenyWords([word]), stages=stage)
    before = len(world.provider.calls)
    with fresh_recorder(policies=[policy], mode="enforce"), capture_invocations() as seen, nothing_left(world, loop):
        world.wrap_clients()
        assert loop.run(play(world, Case((stack,), has_bridge=False, has_agent=False), seen))[0].startswith(
            "PolicyViolationError"
        )
        assert [run.status.value for run in seen] == ["blocked"]
    assert len(world.provider.calls) - before == (stage == "output")
