"""Budgets in LangChain and its agents: a refused call never reaches the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import taskpilot_obs_langchain
from _langchain_models import Model, asks_for
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import PrivateAttr
from taskpilot_obs_langchain import BudgetMiddleware, ObservabilityHandler, budgeted

from taskpilot_obs import get_recorder, request_context
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.status import statuses
from taskpilot_obs.exceptions import BudgetExceededError
from taskpilot_obs.records import Operation, Status
from taskpilot_obs.testing import capture_invocations, fresh_recorder

COST = 0.0000525
"""Of one answer: 150 tokens in, 50 out; 99 at most are asked for, so some 0.00006 are reserved."""
ROOM_FOR_TWO = "0.00013"


class Counted(Model):
    """Says how often it was asked, over all of its copies."""

    _asked: list[int] = PrivateAttr(default_factory=list)

    def _next(self) -> AIMessage:
        self._asked.append(1)
        return super()._next()

    @property
    def asked(self) -> int:
        return len(self._asked)


def team(limit: str = ROOM_FOR_TWO, **options: Any) -> Budget:
    return Budget("team", limit_usd=limit, action="enforce", **options)


def spent(recorder: Recorder) -> tuple[float, float]:
    recorder.drain()
    assert recorder.parts is not None
    control = recorder.parts.budgets
    assert control is not None
    assert recorder.parts.settler is not None
    recorder.parts.settler.tick()
    (status,) = statuses(control.budgets, control.ledger, control.utc_now())
    return float(status.spent), float(status.reserved)


def handled() -> Any:
    return {"callbacks": [ObservabilityHandler()]}


async def _ainvoke(model: Any) -> None:
    await model.ainvoke("hi", handled())


async def _astream(model: Any) -> None:
    async for _ in model.astream("hi", handled()):
        pass


WAYS: dict[str, Callable[[Any], object]] = {
    "invoke": lambda model: model.invoke("hi", handled()),
    "stream": lambda model: list(model.stream("hi", handled())),
    "batch": lambda model: model.batch(["hi"], handled()),
    "ainvoke": lambda model: asyncio.run(_ainvoke(model)),
    "astream": lambda model: asyncio.run(_astream(model)),
    "bound": lambda model: model.bind(stop=["x"]).invoke("hi", handled()),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_call_a_model_asks_first(way: str) -> None:
    """Two answers have room and are booked at what they cost; the third is refused, and the model is not asked."""
    with fresh_recorder(budgets=[team()]) as recorder:
        model = Counted()
        asking = budgeted(model)
        WAYS[way](asking)
        assert spent(recorder) == (COST, 0)
        WAYS[way](asking)
        assert spent(recorder) == pytest.approx((2 * COST, 0))
        before = asking.asked
        with pytest.raises(BudgetExceededError):
            WAYS[way](asking)
        assert asking.asked == before
        assert isinstance(asking, Counted)


def test_without_a_handler_what_was_reserved_counts_as_spent() -> None:
    """What the call took is not recorded; the limit holds nevertheless."""
    with fresh_recorder(budgets=[team()]) as recorder:
        asking = budgeted(Model())
        asking.invoke("hi")
        taken, reserved = spent(recorder)
        assert taken >= COST
        assert reserved == 0
        asking.invoke("hi")
        with pytest.raises(BudgetExceededError):
            asking.invoke("hi")


def test_a_model_that_fails_gives_back_what_it_held() -> None:
    """A model that cannot be reached costs nothing, called or streamed, synchronous or not."""
    with fresh_recorder(budgets=[team()]) as recorder:
        asking = budgeted(Model(answers=(ConnectionRefusedError("down"),)))
        for way in ("invoke", "stream", "ainvoke", "astream"):
            with pytest.raises(ConnectionRefusedError):
                WAYS[way](asking)
        assert spent(recorder) == (0, 0)


def test_a_stream_that_nobody_reads_reserves_nothing() -> None:
    """A model's stream begins when it is first read; until then no money is set aside, nor is a call refused."""
    with fresh_recorder(budgets=[team()]) as recorder:
        budgeted(Model()).stream("hi", handled())
        assert spent(recorder) == (0, 0)
    with fresh_recorder(budgets=[team("0.00000001")]):
        stream = budgeted(Model()).stream("hi", handled())
        with pytest.raises(BudgetExceededError):
            next(stream)


def test_a_stream_that_is_left_early_costs_its_input_and_what_was_streamed() -> None:
    """An estimate, far below what was reserved for the longest answer, and marked as one."""
    with fresh_recorder(budgets=[team()]) as recorder:
        stream: Any = budgeted(Model(answers=("one two three",))).stream("hi", handled())
        next(stream)
        assert spent(recorder)[1] > 0
        stream.close()
        taken, reserved = spent(recorder)
        assert taken > 0
        assert reserved == 0


class _Draining(BaseCallbackHandler):
    """Lets the recorder's thread look while a call ends, at the moment when it is hardest."""

    run_inline = True

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        get_recorder().drain()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_that_is_left_costs_the_same_whenever_the_drainer_looks(*, asynchronous: bool) -> None:
    """The record of the call comes before the end of its reservation, which would count as spent without it."""
    config: Any = {"callbacks": [_Draining(), ObservabilityHandler()]}

    async def leave() -> None:
        stream: Any = budgeted(Model(answers=("one two three",))).astream("hi", config)
        await anext(stream)
        await stream.aclose()

    with fresh_recorder(budgets=[team("1")]) as recorder:
        if asynchronous:
            asyncio.run(leave())
        else:
            stream: Any = budgeted(Model(answers=("one two three",))).stream("hi", config)
            next(stream)
            stream.close()
        taken, reserved = spent(recorder)
    assert 0 < taken < COST / 10
    assert reserved == 0


@tool
def look_up(what: str) -> str:
    """Look something up."""
    return f"about {what}"


class _Given:
    """An agent, called as a model is."""

    def __init__(self, agent: Any, given: Any) -> None:
        self._agent, self._given = agent, given

    def invoke(self, _: object, config: Any) -> None:
        self._agent.invoke(self._given, config)

    async def ainvoke(self, _: object, config: Any) -> None:
        await self._agent.ainvoke(self._given, config)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_agents_middleware_stops_it_at_its_limit(*, asynchronous: bool) -> None:
    """The agent runs until there is no room; its run ends as blocked, and its answers are booked once."""
    with fresh_recorder(budgets=[team()]) as recorder, capture_invocations(recorder) as seen:
        model = Counted(answers=[asks_for("look_up", what="it")])
        agent = create_agent(model, [look_up], middleware=[BudgetMiddleware(recorder=recorder)], name="Finder")
        given: Any = {"messages": [("user", "find it")]}
        how = WAYS["ainvoke"] if asynchronous else WAYS["invoke"]
        with pytest.raises(BudgetExceededError):
            how(_Given(agent, given))
        calls = [run for run in seen if run.operation is Operation.CHAT]
        answered = len(calls) - 1
        assert answered > 0
        assert [run.status for run in calls] == [Status.SUCCESS] * answered + [Status.BLOCKED]
        assert {run.agent for run in calls} == {"Finder"}
        assert seen[-1].status is Status.BLOCKED
        assert spent(recorder) == pytest.approx((COST * answered, 0))


def test_a_budgeted_model_in_an_agent_with_the_middleware_is_asked_once() -> None:
    """One reservation per call, whether model or middleware asks."""
    with fresh_recorder(budgets=[team("1")]) as recorder:
        agent = create_agent(budgeted(Model()), [], middleware=[BudgetMiddleware()])
        agent.invoke({"messages": [("user", "hi")]}, handled())  # type: ignore[call-overload]
        assert spent(recorder) == (COST, 0)


@pytest.mark.parametrize("context", [{}, {"tenant_id": "acme"}, {"request_id": "r1"}], ids=str)
@pytest.mark.parametrize("asks", ["nothing", "model", "middleware"])
def test_a_budget_keeps_the_session_and_adds_no_attribute(context: dict[str, str], asks: str) -> None:
    """LangGraph's thread is the session of agent and call, wherever the budget is asked, and no attribute is added."""
    with fresh_recorder(budgets=[team("1")]) as recorder, capture_invocations(recorder) as seen:
        middleware = [BudgetMiddleware()] if asks == "middleware" else []
        model = budgeted(Model()) if asks == "model" else Model()
        agent: Any = create_agent(model, [], middleware=middleware, name="Finder")
        given: Any = {"messages": [("user", "hi")]}
        with request_context(**context):
            agent.invoke(given, {**handled(), "configurable": {"thread_id": "T1"}})
        assert [(run.session, dict(run.attributes)) for run in seen] == [("T1", {})] * len(seen)
        assert {run.tenant for run in seen} == {context.get("tenant_id")}
        assert {run.operation for run in seen} == {Operation.AGENT, Operation.CHAT}


def test_the_package_has_no_other_lazy_names() -> None:
    """A misspelt import is an error as ever."""
    with pytest.raises(AttributeError, match="no attribute 'Budgets'"):
        taskpilot_obs_langchain.Budgets  # noqa: B018  the access is what is tested
