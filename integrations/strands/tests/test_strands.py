"""The real Strands Agents against a provider on loopback: records, ends of every kind, streams, enforcement.

It has an environment of its own: `scripts/test_frameworks.sh strands`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
from _provider import Provider, serving
from _runs import NESTED_AGENTS, assert_ten_at_once, cancel_under_way, figures, judging, table

from taskpilot_obs import observe_tool, observe_workflow
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, PolicyViolationError
from taskpilot_obs.records import Invocation
from taskpilot_obs.safety import DenyTools, DenyWords, check_with
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

if find_spec("strands") is None:
    assert os.environ.get("TASKPILOT_OBS_FRAMEWORK") != "strands", "strands-agents is not installed"
    pytest.skip("strands-agents is NOT INSTALLED: run scripts/test_frameworks.sh strands", allow_module_level=True)

import httpx2  # noqa: F401  its lazy import in a thread of the framework would race with that of the client
from strands import Agent, tool
from strands.models.openai import OpenAIModel
from strands.types.exceptions import EventLoopException
from taskpilot_obs_strands import ObservabilityPlugin


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with serving() as server:
        yield server


ran: list[str] = []


@observe_tool
def lookup() -> str:
    return "sunny"


@tool  # type: ignore[untyped-decorator]  # the framework may be missing where types are checked
def get_weather(city: str) -> str:
    """The weather."""
    ran.append(city)
    return lookup()


@tool  # type: ignore[untyped-decorator]  # the framework may be missing where types are checked
def broken(city: str) -> str:
    """Always fails."""
    raise LookupError(city)


@pytest.fixture
def make(provider: Provider) -> Callable[..., Any]:
    """Makes agents."""

    def agent(*tools: Any, name: str = "Planner") -> Any:
        given = {"api_key": "x", "base_url": f"{provider.url}/v1", "max_retries": 0}
        model = OpenAIModel(client_args=given, model_id="gpt-4o-mini")
        used = {"retry_strategy": None, "callback_handler": None}
        return Agent(model=model, tools=list(tools), name=name, plugins=[ObservabilityPlugin()], **used)

    return agent


Make = Callable[..., Any]
NESTED = [
    ("Planner", None, "success"),
    ("gpt-4o-mini", "Planner", "success"),
    ("get_weather", "Planner", "success"),
    ("lookup", "get_weather", "success"),
    ("gpt-4o-mini", "Planner", "success"),
]


async def read(agent: Any, text: str = "hi") -> str:
    """Stream an agent's answer to its end."""
    return "".join([event["data"] async for event in agent.stream_async(text) if "data" in event])


@pytest.mark.parametrize("how", ["sync", "async", "stream"])
def test_a_run(make: Make, seen: Captured[Invocation], how: str) -> None:
    """Agent, calls, tool and what is decorated beneath it stand where they belong."""
    agent = make(get_weather)
    if how == "stream":
        assert asyncio.run(read(agent)) == "It is sunny."
    else:
        result = agent("hi") if how == "sync" else asyncio.run(agent.invoke_async("hi"))
        assert str(result).strip() == "It is sunny."
    assert table(seen) == NESTED
    calls = [run for run in seen if run.usage is not None]
    assert [figures(call) for call in calls] == [(100, 20, 40, None)] * 2
    for call in calls:
        assert (call.provider, call.streaming, call.cost is not None) == ("openai", True, True)
        assert call.ttft_s is not None
    top = next(run for run in seen if run.name == "Planner")
    assert top.rollup is not None
    assert (top.rollup.llm_calls, top.rollup.tool_calls, top.rollup.input_tokens) == (2, 2, 200)


def test_failed(make: Make, seen: Captured[Invocation]) -> None:
    """A failed call fails its agent, with the class of the provider's exception."""
    with pytest.raises(Exception, match="boom"):
        make()("FAIL")
    assert [status for _, _, status in table(seen)] == ["error"] * 2
    assert {run.error_type for run in seen} == {"openai.InternalServerError"}


def test_a_tool_that_fails(make: Make, seen: Captured[Invocation]) -> None:
    """A tool's exception becomes its result, so that the agent succeeds; the tool call is an error."""
    make(broken)("hi")
    assert table(seen)[0] == ("Planner", None, "success")
    assert [(run.status.value, run.error_type) for run in seen if run.name == "broken"] == [("error", "LookupError")]


def test_cancelled(make: Make, provider: Provider, seen: Captured[Invocation]) -> None:
    """A cancelled task leaves nothing open, and nothing of it is a success."""
    asyncio.run(cancel_under_way(provider, make().invoke_async("HANG")))
    gc.collect()
    assert [status for _, _, status in table(seen)] == ["cancelled"] * 2


def test_a_stream_that_is_left(make: Make, seen: Captured[Invocation]) -> None:
    """Call and agent of a stream that is read in part are abandoned."""

    async def work() -> None:
        events = make().stream_async("hi")
        async for event in events:
            if "data" in event:
                break
        await events.aclose()

    asyncio.run(work())
    gc.collect()
    assert table(seen) == [("Planner", None, "abandoned"), ("gpt-4o-mini", "Planner", "abandoned")]


async def leave(agent: Any, how: str) -> None:
    """Read two words of a stream, and read no further."""
    said = ""
    expected: Any = {"cancelled": asyncio.CancelledError, "cut": Exception}.get(how, ())
    events = agent.stream_async("CUT" if how == "cut" else "HALT")
    with suppress(expected):
        async for event in events:
            said += event.get("data", "")
            if said != "It is ":
                continue
            if how == "cancelled":
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
            elif how == "closed":
                break
    await events.aclose()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("how", ["closed", "cancelled", "cut"])
def test_what_a_stream_hands_out_before_it_is_left_is_judged(
    provider: Provider, make: Make, how: str, asynchronous: bool
) -> None:
    """A stream that is closed, cancelled or cut is judged by its words so far, call and agent once each."""
    with judging(asynchronous=asynchronous) as judged:
        asyncio.run(leave(make(), how))
        provider.release()
        assert sorted(judged.asked) == [("chat", "It is "), ("invoke_agent", "It is ")]
        assert judged.results == ["bypassed"] * 2


def test_nested_agents(make: Make, seen: Captured[Invocation]) -> None:
    """An agent in the tool of another, beneath a decorated workflow."""
    inner = make(name="Researcher")

    @tool  # type: ignore[untyped-decorator]
    def research(city: str) -> str:
        """Researches."""
        return str(inner(city))

    @observe_workflow(name="outer")
    def work() -> None:
        make(research)("hi")

    work()
    assert table(seen) == NESTED_AGENTS


def test_concurrent_runs(make: Make, seen: Captured[Invocation]) -> None:
    """Ten agents at once: twenty calls, each beneath its own run."""

    async def work() -> None:
        await asyncio.gather(*(make(get_weather).invoke_async("hi") for _ in range(10)))

    asyncio.run(work())
    assert_ten_at_once(seen)


# --- enforcement -----------------------------------------------------------------------------------------------------


def refused(work: Callable[[], Any], **options: Any) -> tuple[BaseException, list[tuple[str, str | None, str]]]:
    """What a refused run raises, and the runs."""
    with fresh_recorder(mode="enforce", **options) as fresh, capture_invocations(fresh) as seen:
        with pytest.raises(Exception, match=r"refused|budget") as raised:
            work()
        error = raised.value
        return error.original_exception if isinstance(error, EventLoopException) else error, table(seen)


def test_a_refused_tool_does_not_run(make: Make) -> None:
    """A policy in enforce mode aborts the run before the tool runs; tool and agent are blocked."""
    ran.clear()
    error, runs = refused(lambda: make(get_weather)("hi"), policies=[DenyTools(["get_weather"])])
    assert isinstance(error, PolicyViolationError)
    assert ran == []
    assert runs == [
        ("Planner", None, "blocked"),
        ("gpt-4o-mini", "Planner", "success"),
        ("get_weather", "Planner", "blocked"),
    ]


def test_input_is_refused_before_a_model_is_asked(make: Make, provider: Provider) -> None:
    """What an agent is given is checked first."""
    before = len(provider.calls)
    error, runs = refused(lambda: make()("a secret"), policies=[DenyWords(["secret"])])
    assert isinstance(error, PolicyViolationError)
    assert (runs, len(provider.calls)) == ([("Planner", None, "blocked")], before)


def test_output_is_withheld(make: Make) -> None:
    """An answer that a check refuses is not the result; its tokens are recorded, because they are billed."""
    with fresh_recorder(policies=[check_with(DenyWords(["sunny"]), stages="output")], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(Exception, match="refused"):
            make()("hi")
        assert [status for _, _, status in table(seen)] == ["blocked"] * 2
        assert seen[0].usage is not None


@tool  # type: ignore[untyped-decorator]  # the framework may be missing where types are checked
def get_forecast(city: str) -> dict[str, Any]:
    """The forecast, as data."""
    return {"status": "success", "content": [{"json": {"weather": "a secret"}}]}


def test_data_of_a_tool_is_withheld(make: Make) -> None:
    """A tool's result that is data without a text is checked as well."""
    error, runs = refused(
        lambda: make(get_forecast)("hi"), policies=[check_with(DenyWords(["secret"]), stages="output")]
    )
    assert isinstance(error, PolicyViolationError)
    assert ("get_forecast", "Planner", "blocked") in runs


class OddModel(OpenAIModel):  # type: ignore[misc]  # the framework may be missing where types are checked
    """A model of the application that does not state its configuration."""

    def get_config(self) -> Any:
        return None


def test_a_model_that_cannot_be_named_is_asked_about(make: Make, provider: Provider) -> None:
    """A budget counts calls of a model whose name cannot be read."""
    before = len(provider.calls)
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    agent = make(get_weather)
    agent.model.__class__ = OddModel
    error, _ = refused(lambda: agent("hi"), budgets=[budget])
    assert isinstance(error, BudgetExceededError)
    assert len(provider.calls) == before + 1


def test_a_budget_reserves_the_longest_answer_of_a_model(make: Make, provider: Provider) -> None:
    """A model that may answer with 64,000 tokens is refused where a budget has no room for them."""
    budget = Budget("calls", limit_usd=Decimal("0.01"), period="day", action="enforce")
    for long in ({"params": {"max_tokens": 64_000}}, {"max_tokens": 64_000}):
        before = len(provider.calls)
        agent = make()
        agent.model.config.update(long)
        error, _ = refused(partial(agent, "hi"), budgets=[budget])
        assert isinstance(error, BudgetExceededError)
        assert len(provider.calls) == before


class Unnamed(Agent):  # type: ignore[misc]  # the framework may be missing where types are checked
    """An agent of the application whose name the framework can read, and the plugin cannot."""

    def __getattribute__(self, name: str) -> Any:
        if name == "name" and sys._getframe(1).f_globals["__name__"].startswith("taskpilot_obs"):
            raise RuntimeError("not known yet")
        return super().__getattribute__(name)


def test_an_agent_that_cannot_be_named_is_asked_about(make: Make, provider: Provider) -> None:
    """Checks are asked about the run of an agent whose name cannot be read."""
    before = len(provider.calls)
    agent = make()
    agent.__class__ = Unnamed
    error, _ = refused(lambda: agent("a secret"), policies=[DenyWords(["secret"])])
    assert isinstance(error, PolicyViolationError)
    assert len(provider.calls) == before


def test_a_budget_refuses_the_second_call(make: Make, provider: Provider) -> None:
    """A budget is asked before each model call."""
    before = len(provider.calls)
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    error, runs = refused(lambda: make(get_weather)("hi"), budgets=[budget])
    assert isinstance(error, BudgetExceededError)
    assert [status for name, _, status in runs if name == "gpt-4o-mini"] == ["success", "blocked"]
    assert len(provider.calls) == before + 1


def test_nothing_is_recorded_where_recording_is_off(make: Make) -> None:
    """A disabled recorder leaves the framework's work alone."""
    with fresh_recorder(enabled=False) as fresh, capture_invocations(fresh) as seen:
        assert str(make(get_weather)("hi")).strip() == "It is sunny."
        assert list(seen) == []
