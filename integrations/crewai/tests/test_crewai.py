"""The real crewAI against a provider on loopback: records, ends of every kind, streams, refusals.

It has an environment of its own: `scripts/test_frameworks.sh crewai`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from _provider import Provider, serving
from _runs import cancel_under_way, figures, judging, table

from taskpilot_obs import observe_tool, observe_workflow, track_workflow
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, PolicyViolationError
from taskpilot_obs.records import Invocation, Usage
from taskpilot_obs.safety import DenyTools, DenyWords, check_with
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

if find_spec("crewai") is None:
    assert os.environ.get("TASKPILOT_OBS_FRAMEWORK") != "crewai", "crewai is not installed"
    pytest.skip("crewai is NOT INSTALLED: run scripts/test_frameworks.sh crewai", allow_module_level=True)

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "CREWAI_TESTING": "true"}

with warnings.catch_warnings(action="ignore"):  # crewAI's own, at its import
    from crewai import LLM, Agent, Crew, Task

from crewai.events import LiteAgentExecutionCompletedEvent, crewai_event_bus
from crewai.flow.flow import Flow, start
from crewai.hooks.dispatch import HookAborted
from crewai.tools import tool
from taskpilot_obs_crewai import Observer, observe
from taskpilot_obs_opentelemetry import State, instrument, uninstrument

pytestmark = pytest.mark.filterwarnings("ignore")  # crewAI's own
Make = Callable[..., Any]
CALL = "gpt-4o-mini"
NESTED = [
    ("support", None, "success"),
    ("Planner", "support", "success"),
    (CALL, "Planner", "success"),
    ("get_weather", "Planner", "success"),
    ("lookup", "get_weather", "success"),
    (CALL, "Planner", "success"),
]
ran: list[str] = []


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def observer() -> Iterator[Observer]:
    """Nothing is kept behind a test."""
    found = observe()
    yield found
    crewai_event_bus.flush()
    gc.collect()
    assert not found.runs


@observe_tool
def lookup() -> str:
    return "sunny"


@tool("get_weather")  # type: ignore[untyped-decorator]  # the framework may be missing where types are checked
def get_weather(city: str) -> str:
    """The weather."""
    ran.append(city)
    return lookup()


@tool("broken")  # type: ignore[untyped-decorator]  # likewise
def broken(city: str) -> str:
    """Always fails."""
    raise LookupError(city)


@pytest.fixture
def make(provider: Provider) -> Make:
    """Makes crews of one agent."""

    def crew(text: str = "hi", *tools: Any, name: str = "support", role: str = "Planner", **options: Any) -> Any:
        llm = LLM(model="openai/gpt-4o-mini", base_url=f"{provider.url}/v1", api_key="x", max_retries=0, **options)
        agent = Agent(role=role, goal="Answer.", backstory="-", llm=llm, tools=list(tools), max_retry_limit=0)
        task = Task(description=text, expected_output="a text", agent=agent)
        return Crew(agents=[agent], tasks=[task], name=name)

    return crew


def plain(work: Callable[[], Any]) -> Any:
    """The result of some work on a thread whose context has no sink."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


HOW: dict[str, Callable[[Any], Any]] = {
    "sync": lambda crew: crew.kickoff(),
    "async": lambda crew: asyncio.run(crew.akickoff()),
    "thread of the loop": lambda crew: asyncio.run(crew.kickoff_async()),
    "thread of its own": lambda crew: plain(crew.kickoff),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("stream", [False, True])
def test_a_run(make: Make, seen: Captured[Invocation], how: str, stream: bool) -> None:
    """Crew, agent, calls, tool and what is decorated beneath it stand where they belong, streamed calls too."""
    assert HOW[how](make("hi", get_weather, stream=stream)).raw == "It is sunny."
    assert table(seen) == NESTED
    calls = [run for run in seen if run.usage is not None]
    assert [figures(call) for call in calls] == [(100, 20, 40, 8)] * 2
    for call in calls:
        assert (call.provider, call.streaming, call.cost is not None) == ("openai", stream, True)
        assert (call.ttft_s is not None) is stream
    top = next(run for run in seen if run.name == "support")
    assert top.rollup is not None
    assert (top.rollup.llm_calls, top.rollup.tool_calls, top.rollup.input_tokens) == (2, 2, 200)


def test_an_agent_without_a_crew(make: Make, seen: Captured[Invocation]) -> None:
    """An agent that is started by itself, also on a thread without a sink, is the root."""
    agent = make("hi", get_weather).agents[0]
    assert agent.kickoff("hi").raw == "It is sunny."
    assert plain(lambda: agent.kickoff("hi").raw) == "It is sunny."
    crewai_event_bus.flush()
    rows = [(name, None if name == "Planner" else parent, status) for name, parent, status in NESTED[1:]]
    assert table(seen) == rows * 2


def test_a_call_without_an_agent(make: Make, seen: Captured[Invocation]) -> None:
    """A model that is called by itself is an LLM call of the function around it."""
    llm = make().agents[0].llm
    with track_workflow("outer"):
        assert llm.call("hi") == "It is sunny."
    assert plain(lambda: llm.call("hi")) == "It is sunny."
    crewai_event_bus.flush()
    assert table(seen) == [("outer", None, "success"), (CALL, "outer", "success"), (CALL, None, "success")]


def test_a_flow(make: Make, seen: Captured[Invocation]) -> None:
    """A flow is the workflow above the crews that it starts."""

    class Support(Flow):  # type: ignore[misc]
        @start()  # type: ignore[untyped-decorator]
        def answer(self) -> str:
            return str(make().kickoff().raw)

    assert Support().kickoff() == "It is sunny."
    assert table(seen) == [
        ("Support", None, "success"),
        ("support", "Support", "success"),
        ("Planner", "support", "success"),
        (CALL, "Planner", "success"),
    ]


@pytest.mark.parametrize("how", HOW)
def test_failed(make: Make, seen: Captured[Invocation], how: str) -> None:
    """A failed call fails its agent and crew; crewAI reports it twice, and it is one call."""
    with pytest.raises(Exception, match="boom"):
        HOW[how](make("FAIL"))
    crewai_event_bus.flush()
    assert [(name, status) for name, _, status in table(seen)] == [
        ("support", "error"),
        ("Planner", "error"),
        (CALL, "error"),
    ]
    assert {run.error_type for run in seen} == {"openai.InternalServerError"}


def test_a_stream_that_is_left(make: Make, seen: Captured[Invocation], observer: Observer) -> None:
    """A crew works on, on its thread, without a reader of its stream: its runs end as it ends."""
    crew = make("SLOW")
    crew.stream = True
    for _ in crew.kickoff():
        break
    wait_until_ended(observer)
    assert table(seen) == [
        ("support", None, "success"),
        ("Planner", "support", "success"),
        (CALL, "Planner", "success"),
    ]


def test_a_stream_that_is_left_in_a_loop(make: Make, seen: Captured[Invocation], observer: Observer) -> None:
    """A crew is cancelled with the event loop in which its stream was left; nothing stays open."""

    async def read_in_part() -> None:
        crew = make("SLOW")
        crew.stream = True
        async for _ in await crew.akickoff():
            break

    asyncio.run(read_in_part())
    wait_until_ended(observer)
    found = {name: status for name, _, status in table(seen)}
    assert (found["support"], found["Planner"]) == ("cancelled", "cancelled")
    assert found[CALL] in ("cancelled", "success")  # the provider may have answered by then


def test_what_a_stream_hands_out_before_it_is_cut_is_judged(make: Make, observer: Observer) -> None:
    """A crew that fails in the middle of a stream is judged by its words so far."""
    with judging() as judged:
        crew = make("CUT")
        crew.stream = True
        said = ""
        with suppress(Exception):
            for chunk in crew.kickoff():
                said += chunk.content
        wait_until_ended(observer)
        assert said == "It is "
        assert judged.asked == [("invoke_workflow", "It is ")]
        assert judged.results == ["bypassed"]


def test_what_a_stream_hands_out_before_it_is_left_is_judged_or_counted(
    make: Make, provider: Provider, observer: Observer
) -> None:
    """A crew that is cancelled is judged by the words that its thread has got by then, or counted by the collector."""

    async def read_in_part() -> None:
        crew = make("HALT")
        crew.stream = True
        said = ""
        async for chunk in await crew.akickoff():
            said += chunk.content
            if said == "It is ":
                break

    with judging() as judged:
        asyncio.run(read_in_part())
        provider.release()
        wait_until_ended(observer)
        assert judged.bypassed == 1
        assert judged.asked in ([], [("invoke_workflow", "It is ")], [("invoke_workflow", "It is sunny.")])


def wait_until_ended(observer: Observer) -> None:
    """Wait for crews that work on other threads."""
    until = time.monotonic() + 60
    while True:
        crewai_event_bus.flush()
        gc.collect()  # a task that was cancelled holds what it has begun
        if not observer.runs:
            return
        assert time.monotonic() < until, f"open: {list(observer.runs)}"
        time.sleep(0.05)


def test_a_tool_that_fails(make: Make, seen: Captured[Invocation]) -> None:
    """A tool's exception becomes its result, so that the crew succeeds; the tool call is an error."""
    make("hi", broken).kickoff()
    assert table(seen)[0] == ("support", None, "success")
    assert [(run.status.value, run.error_type) for run in seen if run.name == "broken"] == [("error", "LookupError")]


def test_cancelled(make: Make, provider: Provider, seen: Captured[Invocation]) -> None:
    """Crew and agent of a cancelled task are cancelled; the call goes on in crewAI's thread, and is billed."""
    asyncio.run(cancel_under_way(provider, make("HANG").akickoff()))
    gc.collect()
    assert [status for _, _, status in table(seen)] == ["cancelled", "cancelled", "success"]
    assert seen[-1].usage is not None or seen[0].usage is not None


def test_nested_crews(make: Make, seen: Captured[Invocation]) -> None:
    """A crew in the tool of another, beneath a decorated workflow."""

    @tool("research")  # type: ignore[untyped-decorator]
    def research(city: str) -> str:
        """Researches."""
        return str(make(city, name="inner", role="Researcher").kickoff().raw)

    @observe_workflow(name="outer")
    def work() -> None:
        make("hi", research).kickoff()

    work()
    assert table(seen) == [
        ("outer", None, "success"),
        ("support", "outer", "success"),
        ("Planner", "support", "success"),
        (CALL, "Planner", "success"),
        ("research", "Planner", "success"),
        ("inner", "research", "success"),
        ("Researcher", "inner", "success"),
        (CALL, "Researcher", "success"),
        (CALL, "Planner", "success"),
    ]


def test_concurrent_runs(make: Make, seen: Captured[Invocation]) -> None:
    """Ten crews at once: twenty calls, each beneath its own run."""

    async def work() -> None:
        await asyncio.gather(*(make("hi", get_weather).akickoff() for _ in range(10)))

    asyncio.run(work())
    assert sum(run.usage is not None for run in seen) == 20
    assert sorted(run.rollup.llm_calls for run in seen if run.name == "support" and run.rollup) == [2] * 10


def test_once_beside_the_bridge(make: Make, seen: Captured[Invocation]) -> None:
    """Calls that OpenAI's instrumentor states as spans too are recorded once, concurrent and failed ones as well."""
    found = instrument("openai")
    assert [one.state for one in found] == [State.ON]
    try:
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda _: make("hi", get_weather).kickoff(), range(5)))
        with pytest.raises(Exception, match="boom"):
            make("FAIL").kickoff()
    finally:
        uninstrument()
    calls = [(status, parent) for name, parent, status in table(seen) if name == CALL]
    assert sorted(calls) == [("error", "Planner"), *[("success", "Planner")] * 10]


def test_what_the_bus_reports_late(make: Make, observer: Observer, seen: Captured[Invocation]) -> None:
    """An agent that the bus reports to have ended, twice and without its start, is recorded once or not at all."""
    agent = make().agents[0]
    plain(lambda: agent.kickoff("hi"))
    crewai_event_bus.flush()
    assert len(seen) == 2
    last = LiteAgentExecutionCompletedEvent(agent_info={"role": "Planner"}, output="x", started_event_id="unknown")
    plain(lambda: observer._handle(agent, last))  # what the bus calls
    assert len(seen) == 2


# --- enforcement -----------------------------------------------------------------------------------------------------


def refused(work: Callable[[], Any], **options: Any) -> tuple[BaseException | None, list[tuple[str, str | None, str]]]:
    """The refusal behind what a run raises, and the runs."""
    with fresh_recorder(mode="enforce", **options) as fresh, capture_invocations(fresh) as seen:
        with pytest.raises(HookAborted, match=r"refused|budget") as raised:
            work()
        return raised.value.__cause__, table(seen)


@pytest.mark.parametrize("how", HOW)
def test_a_refused_tool_does_not_run(make: Make, how: str) -> None:
    """A policy in enforce mode refuses the tool by `HookAborted`; the model is told, and the crew goes on."""
    ran.clear()
    with (
        fresh_recorder(mode="enforce", policies=[DenyTools(["get_weather"])]) as fresh,
        capture_invocations(fresh) as seen,
    ):
        assert HOW[how](make("hi", get_weather)).raw == "It is sunny."
    assert ran == []
    assert [row for row in table(seen) if row[0] == "get_weather"] == [("get_weather", "Planner", "blocked")]
    assert table(seen)[0] == ("support", None, "success")


@pytest.mark.parametrize("how", HOW)
def test_input_is_refused_before_a_model_is_asked(make: Make, provider: Provider, how: str) -> None:
    """What a model is given is checked first, and the crew ends by the refusal."""
    before = len(provider.calls)
    error, runs = refused(lambda: HOW[how](make("a secret")), policies=[DenyWords(["secret"])])
    assert isinstance(error, PolicyViolationError)
    assert [(name, status) for name, _, status in runs] == [
        ("support", "blocked"),
        ("Planner", "blocked"),
        (CALL, "blocked"),
    ]
    assert len(provider.calls) == before


def test_output_is_withheld(make: Make) -> None:
    """What a task came to is checked before the next one or the application gets it."""
    error, runs = refused(make().kickoff, policies=[check_with(DenyWords(["sunny"]), stages="output")])
    assert isinstance(error, PolicyViolationError)
    assert runs[0] == ("support", None, "blocked")


def test_a_result_of_a_tool_is_withheld(make: Make) -> None:
    """A tool's result that a check refuses does not reach the model."""
    error, runs = refused(make("hi", get_weather).kickoff, policies=[check_with(DenyWords(["sunny"]), stages="output")])
    assert isinstance(error, PolicyViolationError)
    assert [status for name, _, status in runs if name in ("lookup", "get_weather")] == ["blocked"] * 2


def test_a_budget_refuses_the_second_call(make: Make, provider: Provider) -> None:
    """A budget is asked before each model call."""
    before = len(provider.calls)
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    error, runs = refused(make("hi", get_weather).kickoff, budgets=[budget])
    assert isinstance(error, BudgetExceededError)
    assert [status for name, _, status in runs if name == CALL] == ["success", "blocked"]
    assert len(provider.calls) == before + 1


class Unreadable:
    """Of a hook's context, what fails when it is read."""

    @property
    def max_tokens(self) -> int:
        raise RuntimeError("a failing property")

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("a failing iterator")


@pytest.mark.parametrize("part", ["messages", "llm"])
def test_a_call_that_cannot_be_read_is_asked_about(observer: Observer, part: str) -> None:
    """A budget refuses a call whose messages or limits fail when they are read; the latter are an internal error."""
    llm = Unreadable() if part == "llm" else SimpleNamespace()
    llm.__dict__.update(model=CALL, provider="openai")
    context = SimpleNamespace(executor=True, llm=llm, messages=Unreadable() if part == "messages" else [])
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with fresh_recorder(mode="enforce", budgets=[budget]) as fresh, capture_invocations(fresh) as seen:
        fresh.record_llm_call(model=CALL, usage=Usage(1, 1))
        fresh.flush(5)
        with pytest.raises(HookAborted, match="budget"):
            plain(lambda: observer._before_model(context))
        assert [status for _, _, status in table(seen)] == ["success", "blocked"]
        assert fresh.counters.totals.get((INTERNAL_ERRORS, ("answer_limits",)), 0) == (part == "llm")


def test_nothing_is_recorded_where_recording_is_off(make: Make) -> None:
    """A disabled recorder leaves the framework's work alone."""
    with fresh_recorder(enabled=False) as fresh, capture_invocations(fresh) as seen:
        assert make("hi", get_weather).kickoff().raw == "It is sunny."
        assert list(seen) == []
