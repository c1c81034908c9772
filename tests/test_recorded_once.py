"""A call is booked once, in every combination of the layers that see it, through the real SDKs and frameworks."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any

import pytest
from _expected_runs import Case, assert_runs, expected_places, model_of
from _layers import SDKS, Asker, Asking, Call, Stack, World, make
from _layers_of_frameworks import ASKERS, KNOWN
from _provider import serving
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from taskpilot_obs import track_agent
from taskpilot_obs._recording.open_runs import abandon_open_runs
from taskpilot_obs.records import Invocation, Stage
from taskpilot_obs.safety import DenyWords, check_with
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

ALONE = os.environ.get("TASKPILOT_OBS_FRAMEWORK", "")
LEAST_TURNS, LONGEST_END_S = 3, 30.0
pytestmark = [pytest.mark.filterwarnings("ignore")] if ALONE else list[pytest.MarkDecorator]()
"""The warnings of a framework in an environment of its own are its own."""
WORDS = {"answered": "hi", "left": "hi", "fails": "FAIL", "cancelled": "HANG"}
FULL = bool(os.environ.get("TASKPILOT_OBS_FULL"))


@st.composite
def calls_of(draw: Any, asker: Asker, *, is_async: bool) -> Call:
    """A call that a way to ask can make."""
    form = draw(st.sampled_from(asker.forms))
    impossible = {*(["left"] if form != "streamed" else []), *(["cancelled"] if not is_async else [])}
    outcome = draw(st.sampled_from([each for each in asker.outcomes if each not in impossible]))
    has_tool = asker.is_framework and outcome == "answered" and draw(st.booleans())
    return Call(form, outcome, draw(st.booleans()), has_tool)


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
        draw(st.sampled_from(asker.natives)) if asker.has_adapter else False,
        draw(st.booleans()) if asker.may_be_wrapped else False,
        tuple(draw(st.lists(calls_of(asker, is_async=is_async), min_size=1, max_size=4))),
    )


def names() -> st.SearchStrategy[list[str]]:
    """One or two ways to ask; in the environment of one framework, that and perhaps another."""
    if ALONE not in ASKERS:
        return st.lists(st.sampled_from(sorted(ASKERS)), min_size=1, max_size=2, unique=True)
    others = sorted(ASKERS.keys() - {ALONE})
    return st.lists(st.sampled_from(others), max_size=1).map(lambda chosen: [ALONE, *chosen])


def cases() -> st.SearchStrategy[Case]:
    """One or two ways to ask at once, beneath an agent or not, with the bridge or without."""
    drawn = names().flatmap(lambda chosen: st.tuples(*(stacks(name) for name in chosen)))
    return st.builds(Case, drawn, st.booleans(), st.booleans())


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One loop, because clients keep their connections."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def world(loop: asyncio.Runner) -> Iterator[World]:
    """The provider, and SDKs that are instrumented for the module."""
    assert ALONE not in KNOWN or ALONE in ASKERS, f"{ALONE} is not installed"
    with serving() as provider, ExitStack() as undo:
        made = World(provider)
        with warnings.catch_warnings(action="ignore"):  # of frameworks, at their import
            instrument(made, undo)
            for asker in ASKERS.values():
                import_module(asker.module)
        gc.collect()
        gc.freeze()  # each example collects what its calls have left, and not all modules again
        yield made
        gc.unfreeze()
        loop.run(made.close())


def log_without_tracebacks(undo: ExitStack) -> None:
    """Keep no tracebacks with captured lines, because their frames would keep calls open that were left."""
    make = logging.getLogRecordFactory()

    def make_without(*args: Any, **options: Any) -> logging.LogRecord:
        made = make(*args, **options)
        made.exc_info = None
        return made

    logging.setLogRecordFactory(make_without)
    undo.callback(logging.setLogRecordFactory, make)


def instrument(world: World, undo: ExitStack) -> None:
    """Turn on what sees all calls of the process, until the stack unwinds."""
    log_without_tracebacks(undo)
    undo.callback(world.spans.shutdown)
    instrument_openai(world, undo)
    environment = undo.enter_context(pytest.MonkeyPatch.context())
    for asker in ASKERS.values():
        for name, value in asker.environment.items():
            environment.setenv(name, value)
        if asker.instrument is not None:
            asker.instrument(world, undo)


def instrument_openai(world: World, undo: ExitStack) -> None:
    """Turn on OpenAI's instrumentor, where OpenAI's SDK is installed."""
    if "openai" in SDKS:
        instrumentor = import_module("opentelemetry.instrumentation.genai.openai").OpenAIInstrumentor()
        instrumentor.instrument(tracer_provider=world.spans)
        undo.callback(instrumentor.uninstrument)


@contextmanager
def observed(case: Case) -> Iterator[None]:
    """Turn on the adapters that see all calls of their framework."""
    with ExitStack() as undo:
        for stack in case.stacks:
            observe = ASKERS[stack.asker].observe
            if observe is not None and stack.native:
                undo.enter_context(observe())
        yield


async def play(world: World, case: Case, captured: Captured[Invocation]) -> list[str]:
    """Make all calls at once; the class of what each raised."""
    askings = [
        Asking(
            world,
            ASKERS[stack.asker],
            stack,
            call,
            f"{WORDS[call.outcome]} {place}-{number} {'' if call.has_id else 'NOID'}",
            model_of(ASKERS[stack.asker], place),
        )
        for number, (place, stack, call) in enumerate(case.calls())
    ]
    with track_agent("Outer") if case.has_agent else nullcontext():
        ends = await asyncio.gather(*(make(asking) for asking in askings), return_exceptions=True)
    expected = expected_places(case).total()
    deadline, turns = time.monotonic() + LONGEST_END_S, 0
    while turns < LEAST_TURNS or (len(captured) < expected and time.monotonic() < deadline):
        gc.collect()  # streams that were left end when the loop closes their generators, one in another
        await asyncio.sleep(0 if turns < LEAST_TURNS else 0.01)
        turns += 1
    return ["" if end is None else f"{type(end).__name__} {end}" for end in ends]  # tracebacks would keep calls open


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
    Case(
        (Stack("agent_framework", True, None, False, wrapped=True, calls=(Call("streamed", "left", True),)),),
        has_bridge=True,
        has_agent=False,
    ),
    Case(
        (Stack("pydantic_ai", True, None, False, wrapped=False, calls=(Call("streamed", "fails", True),)),),
        has_bridge=True,
        has_agent=True,
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
    """Decorator, adapter, wrapped client and bridge in any combination: one record a call and run, and nothing is kept.

    Each record has its parent, request, tokens, cost and status.
    """
    with (
        fresh_recorder(),
        world.bridged(on=case.has_bridge) as bridge,
        capture_invocations() as captured,
        nothing_left(world, loop),
        observed(case),
    ):
        world.wrap_clients()
        ends = loop.run(play(world, case, captured))
        raised = [call.outcome in ("fails", "cancelled") for _, _, call in case.calls()]
        assert [bool(end) for end in ends] == raised, ends
        assert_runs(case, captured)
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
