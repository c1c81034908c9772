"""The real Pydantic AI against a provider on loopback: records, ends of every kind, streams, enforcement."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import pytest
from _provider import Provider, answering, serving
from _runs import NESTED_AGENTS, assert_ten_at_once, cancel_under_way, figures, judging, table
from _tools import broken, get_weather, ran

from taskpilot_obs import observe_workflow
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, PolicyViolationError
from taskpilot_obs.records import Decision, Invocation, Operation, Pricing
from taskpilot_obs.safety import DenyTools, DenyWords, check_with
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder

if find_spec("pydantic_ai") is None:
    assert not os.environ.get("CI"), "pydantic-ai-slim is not installed"
    pytest.skip("pydantic-ai-slim is NOT INSTALLED: install the dependency group `test`", allow_module_level=True)

from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelAPIError, ModelHTTPError, ModelRetry
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider
from taskpilot_obs_pydantic_ai import ObservabilityCapability


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with serving() as server:
        yield server


Make = Callable[..., Any]


def play(provider: Provider, work: Callable[[Make], Awaitable[Any]]) -> Any:
    """Run something in a loop of its own; it is given what makes agents."""

    async def run() -> Any:
        async with AsyncOpenAI(api_key="x", base_url=f"{provider.url}/v1", max_retries=0) as client:
            model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client))

            def make(*tools: Any, name: str = "Planner", capabilities: Any = None) -> Any:
                used = [ObservabilityCapability()] if capabilities is None else capabilities
                return Agent(model, name=name, tools=list(tools), capabilities=used)

            return await work(make)

    return asyncio.run(run())


async def read(agent: Any, text: str = "hi") -> str:
    """Stream an agent's answer to its end."""
    async with agent.run_stream(text) as result:
        return "".join([piece async for piece in result.stream_text(delta=True)])


NESTED = [
    ("Planner", None, "success"),
    ("gpt-4o-mini", "Planner", "success"),
    ("get_weather", "Planner", "success"),
    ("lookup", "get_weather", "success"),
    ("gpt-4o-mini", "Planner", "success"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_run(provider: Provider, seen: Captured[Invocation], stream: bool) -> None:
    """Agent, calls, tool and what is decorated beneath it stand where they belong, streamed or not."""

    async def work(make: Make) -> str:
        agent = make(get_weather)
        return await read(agent) if stream else str((await agent.run("hi")).output)

    assert play(provider, work) == "It is sunny."
    assert table(seen) == NESTED
    calls = [run for run in seen if run.usage is not None]
    assert [figures(call) for call in calls] == [(100, 20, 40, 8)] * 2
    for call in calls:
        assert (call.provider, call.response_model, call.streaming) == ("openai", "gpt-4o-mini-2024-07-18", stream)
        assert call.cost is not None
    agent = next(run for run in seen if run.name == "Planner")
    assert agent.rollup is not None
    assert (agent.rollup.llm_calls, agent.rollup.tool_calls, agent.rollup.input_tokens) == (2, 2, 200)
    assert agent.attributes.get("conversation")


ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
STATED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", [None, ZEROS, STATED], ids=["none", "zeros", "stated"])
def test_unknown_usage_is_not_zero(seen: Captured[Invocation], usage: Any, stream: bool) -> None:
    """Usage that the provider left out, or put zeros for beside an answer, is unknown, and so is the cost."""

    async def run() -> Any:
        async with AsyncOpenAI(api_key="x", http_client=answering(usage), max_retries=0) as client:
            model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client))
            agent = Agent(model, name="Planner", capabilities=[ObservabilityCapability()])
            return await read(agent) if stream else (await agent.run("hi")).output

    assert asyncio.run(run()) == "It is sunny."
    (call,) = (each for each in seen if each.operation is Operation.CHAT)
    if usage is STATED:
        assert call.usage is not None
        assert call.usage[:2] == (10, 5)
        assert call.pricing is Pricing.PRICED
    else:
        assert (call.usage, call.cost, call.pricing) == (None, None, Pricing.UNPRICED)


@pytest.mark.parametrize("stream", [False, True])
def test_failed(provider: Provider, seen: Captured[Invocation], stream: bool) -> None:
    """A failed call fails its agent, with the class of the framework's exception, which passes."""
    with pytest.raises(ModelHTTPError):
        play(provider, lambda make: read(make(), "FAIL") if stream else make().run("FAIL"))
    assert [status for _, _, status in table(seen)] == ["error"] * 2
    assert {run.error_type for run in seen} == {"pydantic_ai.exceptions.ModelServerError"}


def test_a_tool_that_fails(provider: Provider, seen: Captured[Invocation]) -> None:
    """A tool's exception fails the tool and its agent; one that asks the model to try again interrupts the tool."""
    with pytest.raises(LookupError):
        play(provider, lambda make: make(broken).run("hi"))
    assert {run.name: run.error_type for run in seen if run.error_type} == dict.fromkeys(
        ("broken", "Planner"), "LookupError"
    )


def test_a_tool_that_asks_for_another_try(provider: Provider, seen: Captured[Invocation]) -> None:
    """`ModelRetry` interrupts the tool, and its agent goes on."""

    def picky(city: str) -> str:
        raise ModelRetry("another city")

    play(provider, lambda make: make(picky).run("hi"))
    assert [(name, status) for name, _, status in table(seen)][:3] == [
        ("Planner", "success"),
        ("gpt-4o-mini", "success"),
        ("picky", "interrupted"),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_cancelled(provider: Provider, seen: Captured[Invocation], stream: bool) -> None:
    """A cancelled task leaves nothing open, and nothing of it is a success."""
    play(provider, lambda make: cancel_under_way(provider, read(make(), "HANG") if stream else make().run("HANG")))
    assert [status for _, _, status in table(seen)] == ["cancelled"] * 2


def test_a_stream_that_is_left(provider: Provider, seen: Captured[Invocation]) -> None:
    """A stream whose block ends early is abandoned, and so is its agent."""

    async def work(make: Make) -> None:
        async with make().run_stream("SLOW") as result:
            async for _ in result.stream_text():
                break

    play(provider, work)
    assert table(seen) == [("Planner", None, "abandoned"), ("gpt-4o-mini", "Planner", "abandoned")]


def test_a_reader_that_fails(provider: Provider, seen: Captured[Invocation]) -> None:
    """An exception of the application ends the agent; the stream that it stopped reading is abandoned."""

    async def work(make: Make) -> None:
        async with make().run_stream("SLOW") as result:
            async for _ in result.stream_text():
                raise LookupError

    with pytest.raises(LookupError):
        play(provider, work)
    assert table(seen) == [("Planner", None, "error"), ("gpt-4o-mini", "Planner", "abandoned")]


async def leave(make: Make, how: str) -> None:
    """Read two words of a stream, and read no further."""
    expected: Any = {"cancelled": asyncio.CancelledError, "cut": ModelAPIError, "failed": LookupError}.get(how, ())
    with suppress(expected):
        async with make().run_stream("CUT" if how == "cut" else "HALT") as result:
            async for said in result.stream_text(debounce_by=None):
                if said == "It is " and how == "cancelled":
                    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
                elif said == "It is " and how == "failed":
                    raise LookupError
                elif said == "It is " and how == "closed":
                    break


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("how", ["closed", "cancelled", "cut", "failed"])
def test_what_a_stream_hands_out_before_it_is_left_is_judged(provider: Provider, how: str, asynchronous: bool) -> None:
    """A stream that is closed, cancelled, cut or not read on is judged by its words, call and agent once each."""
    with judging(asynchronous=asynchronous) as judged:
        play(provider, lambda make: leave(make, how))
        provider.release()
        assert sorted(judged.asked) == [("chat", "It is "), ("invoke_agent", "It is ")]
        assert judged.results == ["bypassed"] * 2


def test_nested_agents(provider: Provider, seen: Captured[Invocation]) -> None:
    """An agent in the tool of another, beneath a decorated workflow."""

    @observe_workflow(name="outer")
    async def work(make: Make) -> None:
        inner = make(name="Researcher")

        async def research(city: str) -> str:
            return str((await inner.run(city)).output)

        await make(research).run("hi")

    play(provider, work)
    assert table(seen) == NESTED_AGENTS


def test_concurrent_runs(provider: Provider, seen: Captured[Invocation]) -> None:
    """Ten runs at once of one agent: twenty calls, each beneath its own run."""

    async def work(make: Make) -> None:
        agent = make(get_weather)
        await asyncio.gather(*(agent.run("hi") for _ in range(10)))

    play(provider, work)
    assert_ten_at_once(seen)


def test_given_twice(provider: Provider, seen: Captured[Invocation]) -> None:
    """Capabilities of the agent and of the run are one."""

    async def work(make: Make) -> None:
        agent = make(get_weather, capabilities=[ObservabilityCapability(), ObservabilityCapability()])
        await agent.run("hi", capabilities=[ObservabilityCapability()])

    play(provider, work)
    assert table(seen) == NESTED


# --- enforcement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_tool_does_not_run(provider: Provider, stream: bool) -> None:
    """A policy in enforce mode aborts the run before the tool runs; tool and agent are blocked."""
    ran.clear()
    with fresh_recorder(policies=[DenyTools(["get_weather"])], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(PolicyViolationError):
            play(provider, lambda make: read(make(get_weather)) if stream else make(get_weather).run("hi"))
        found = table(seen)
    assert ran == []
    assert found == [
        ("Planner", None, "blocked"),
        ("gpt-4o-mini", "Planner", "success"),
        ("get_weather", "Planner", "blocked"),
    ]


def test_input_is_refused_before_a_model_is_asked(provider: Provider) -> None:
    """What an agent is given is checked first."""
    before = len(provider.calls)
    with fresh_recorder(policies=[DenyWords(["secret"])], mode="enforce"):
        with pytest.raises(PolicyViolationError):
            play(provider, lambda make: make().run("a secret"))
        assert len(provider.calls) == before
        assert play(provider, lambda make: make().run("hi")).output == "It is sunny."


class Unnamed(TestModel):  # type: ignore[misc]  # the framework may be missing where types are checked
    """A model of the application whose provider cannot be read."""

    __test__ = False

    @property
    def system(self) -> str:
        raise RuntimeError("not known yet")


def test_a_model_that_cannot_be_named_is_asked_about() -> None:
    """A policy on calls of models refuses one whose provider cannot be read."""
    asked: list[Operation] = []

    def no_calls(subject: Any) -> bool:
        asked.append(subject.operation)
        return bool(subject.operation is not Operation.CHAT)

    agent = Agent(Unnamed(), capabilities=[ObservabilityCapability()])
    with fresh_recorder(policies=[no_calls], mode="enforce") as fresh, capture_invocations(fresh) as seen:
        with pytest.raises(PolicyViolationError):
            asyncio.run(agent.run("hi"))
        assert [status for _, _, status in table(seen)] == ["blocked"] * 2
    assert asked == [Operation.AGENT, Operation.CHAT]


def test_output_is_withheld(provider: Provider) -> None:
    """An answer that a check refuses is not handed out; its tokens are recorded, because they are billed."""
    with fresh_recorder(policies=[check_with(DenyWords(["sunny"]), stages="output")], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(PolicyViolationError):
            play(provider, lambda make: make().run("hi"))
        assert [status for _, _, status in table(seen)] == ["blocked"] * 2
        assert seen[0].usage is not None


def test_the_output_of_a_stream_is_checked_when_it_is_out(provider: Provider) -> None:
    """A stream is not withheld: what would have been refused is a decision."""
    with fresh_recorder(policies=[check_with(DenyWords(["sunny"]), stages="output")], mode="enforce") as fresh:
        with capture_records(Decision, fresh) as decisions:
            play(provider, lambda make: read(make()))
        assert [one.result.value for one in decisions] == ["bypassed"] * 2


def test_a_budget_refuses_the_second_call(provider: Provider) -> None:
    """A budget is asked before each model request."""
    before = len(provider.calls)
    with fresh_recorder(budgets=[Budget("calls", limit_requests=1, period="day", action="enforce")]) as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(BudgetExceededError):
            play(provider, lambda make: make(get_weather).run("hi"))
        assert [status for name, _, status in table(seen) if name == "gpt-4o-mini"] == ["success", "blocked"]
    assert len(provider.calls) == before + 1


def test_nothing_is_recorded_where_recording_is_off(provider: Provider) -> None:
    """A disabled recorder leaves the framework's work alone."""
    with fresh_recorder(enabled=False) as fresh:
        with capture_invocations(fresh) as seen:
            assert play(provider, lambda make: read(make(get_weather))) == "It is sunny."
        assert list(seen) == []
