"""What is configured for everything is asked about LangChain's runs: refused before the tool or the model runs."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _langchain_models import Model, asks_for
from _runs import judging
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from taskpilot_obs_langchain import ObservabilityHandler, observe_langchain

from taskpilot_obs import track_llm
from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.exceptions import BudgetExceededError, GuardrailBlockedError, PolicyViolationError
from taskpilot_obs.integration import Recorder
from taskpilot_obs.records import CheckResult, Decision, Operation, Stage, Status
from taskpilot_obs.safety import AllowTools, DenyTools, DenyWords, MaxTokens, blocked, check_with
from taskpilot_obs.testing import capture_invocations, capture_records, fresh_recorder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:langgraph")

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@tool
def search(query: str) -> str:
    """Search."""
    ran.append(query)
    return "found"


def handled() -> Any:
    return {"callbacks": [ObservabilityHandler()]}


class Counted(Model):
    """A model that notes that it was asked."""

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        ran.append("model")
        return super()._generate(*args, **kwargs)


async def _drained(stream: Any) -> None:
    async for _ in stream:
        pass


WAYS: dict[str, Callable[[Any, Any], object]] = {
    "invoke": lambda runnable, given: runnable.invoke(given, handled()),
    "ainvoke": lambda runnable, given: asyncio.run(runnable.ainvoke(given, handled())),
    "stream": lambda runnable, given: list(runnable.stream(given, handled())),
    "astream": lambda runnable, given: asyncio.run(_drained(runnable.astream(given, handled()))),
    "astream_events": lambda runnable, given: asyncio.run(
        _drained(runnable.astream_events(given, handled(), version="v2"))
    ),
    "batch": lambda runnable, given: runnable.batch([given], handled()),
}


CALLS = [way for way in WAYS if way != "astream_events"]
"""Where a model's start is refused, LangChain forgets to await the handlers behind ours, and Python warns of that."""


def graph_of(model: Any, tools: Any) -> Any:
    """A model and the tools that it asks for, as nodes of a graph."""
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("act", ToolNode(tools))
    graph.add_edge(START, "model")
    graph.add_edge("model", "act")
    return graph.compile()


MADE: dict[str, Callable[[], Any]] = {
    "ToolNode": lambda: graph_of(Model(answers=[asks_for("search", query="it")]), [search]),
    "create_agent": lambda: create_agent(
        Model(answers=[asks_for("search", query="it"), "done"]), [search], name="Finder"
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("made", MADE)
def test_a_denied_tool_is_refused_before_it_runs(made: str, way: str) -> None:
    """In a graph's tool node and in an agent, however they are called: the tool and all above it end as blocked."""
    with (
        fresh_recorder(policies=[DenyTools(["search"])], mode="enforce") as recorder,
        capture_invocations(recorder) as seen,
        capture_records(Decision, recorder) as decisions,
    ):
        with pytest.raises(PolicyViolationError, match="deny_tools"):
            WAYS[way](MADE[made](), {"messages": [("user", "find it")]})
        (refused,) = [each for each in decisions if each.result is CheckResult.BLOCKED]
        assert (ran, refused.tool, refused.stage) == ([], "search", Stage.INPUT)
        statuses = {run.operation: run.status for run in seen}
        assert statuses.pop(Operation.CHAT) is Status.SUCCESS
        assert set(statuses.values()) == {Status.BLOCKED}
        assert recorder.registry is not None
        value = recorder.registry.get_sample_value
        labels = {"agent": refused.origin.agent or "__none__", "tool": "search", "status": "blocked"}
        assert value("agent_tool_calls_total", labels) == 1
        _nothing_is_open(recorder)


def _nothing_is_open(recorder: Recorder) -> None:
    """Every run that began has ended."""
    assert recorder.registry is not None
    for family in recorder.registry.collect():
        if family.name in {"workflow_active_runs", "agent_active_runs", "llm_active_requests"}:
            assert [sample for sample in family.samples if sample.value] == []


@pytest.mark.parametrize("way", CALLS)
def test_a_model_call_is_refused_before_the_model_is_asked(way: str) -> None:
    """By its prompt: the call is recorded as blocked, and costs nothing."""
    with (
        fresh_recorder(policies=[DenyWords(["forbidden"])], mode="enforce") as recorder,
        capture_invocations(recorder) as seen,
    ):
        with pytest.raises(PolicyViolationError):
            WAYS[way](Counted(), "a forbidden word")
        assert (ran, [run.status for run in seen]) == ([], [Status.BLOCKED])
        _nothing_is_open(recorder)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("made", MADE)
def test_what_goes_into_a_graph_is_asked_about(made: str, way: str) -> None:
    """Refused before any node runs; the graph can be called again, and other questions pass."""
    with (
        fresh_recorder(policies=[DenyWords(["forbidden"])], mode="enforce") as recorder,
        capture_invocations(recorder) as seen,
    ):
        graph = MADE[made]()
        for _ in range(2):
            with pytest.raises(PolicyViolationError):
                WAYS[way](graph, {"messages": [("user", "a forbidden word")]})
        assert [run.status for run in seen] == [Status.BLOCKED] * 2
        WAYS[way](graph, {"messages": [("user", "find it")]})
        assert ran == ["it"]
        _nothing_is_open(recorder)


@pytest.mark.parametrize("way", WAYS)
def test_monitor_mode_records_and_lets_everything_go_on(way: str) -> None:
    """One decision for each place that breaks a policy: the graph, its nodes, the model and the tool."""
    policies = [DenyTools(["search"]), DenyWords(["forbidden"])]
    with fresh_recorder(policies=policies) as recorder, capture_records(Decision, recorder) as decisions:
        WAYS[way](MADE["ToolNode"](), {"messages": [("user", "a forbidden word")]})
        assert ran == ["it"]
        recorder.flush()
        denied = [(each.name, each.tool) for each in decisions if each.is_violation]
        assert ("deny_tools", "search") in denied
        assert {name for name, _ in denied} == {"deny_tools", "deny_words"}
        assert {each.result for each in decisions if each.is_violation} == {CheckResult.WOULD_BLOCK}


def test_a_tool_is_asked_about_by_its_arguments() -> None:
    """By name, as a decorated function is."""
    rule = AllowTools({"search": lambda arguments: arguments["query"] == "it"})
    with fresh_recorder(policies=[rule], mode="enforce"):
        search.invoke({"query": "it"}, handled())
        with pytest.raises(PolicyViolationError):
            search.invoke({"query": "else"}, handled())
        assert ran == ["it"]


def no_secrets(subject: Any) -> Any:
    """A guardrail of outputs."""
    return blocked("a secret") if "secret" in subject.text else None


WITHHOLDING = check_with(no_secrets, stages=["output"])


def test_an_answer_is_withheld_and_a_stream_is_bypassed(caplog: pytest.LogCaptureFixture) -> None:
    """What is still in our hands is withheld; what was streamed is recorded as bypassed, counted, and logged once."""
    with (
        fresh_recorder(guardrails=[WITHHOLDING], mode="enforce") as recorder,
        capture_records(Decision, recorder) as decisions,
        caplog.at_level(logging.WARNING, logger="taskpilot_obs"),
    ):
        model = Model(answers=["a secret told"])
        with pytest.raises(GuardrailBlockedError):
            model.invoke("hi", handled())
        for _ in range(2):
            list(model.stream("hi", handled()))
        recorder.flush()
        assert [each.result for each in decisions] == [CheckResult.BLOCKED] + [CheckResult.BYPASSED] * 2
        assert recorder.registry is not None
        value = recorder.registry.get_sample_value
        assert value("taskpilot_obs_internal_errors_total", {"where": "bypassed"}) == 2
        assert (
            value("guardrail_checks_total", {"guardrail": "no_secrets", "stage": "output", "result": "bypassed"}) == 2
        )
    assert [each.message for each in caplog.records if "was bypassed" in each.message].__len__() == 1


class Cut(Model):
    """A model whose stream hangs or breaks before its third word."""

    def _stream(self, *args: Any, **kwargs: Any) -> Any:
        yield from itertools.islice(super()._stream(*args, **kwargs), 2)
        raise ConnectionError

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        for chunk in itertools.islice(super()._stream(*args, **kwargs), 2):
            yield chunk
        await asyncio.Event().wait()


def _read_two(stream: Any) -> None:
    next(stream)
    next(stream)
    stream.close()


def _read_to_the_cut(stream: Any) -> None:
    with pytest.raises(ConnectionError):
        list(stream)


def _under_a_block(model: Any) -> None:
    with track_llm(provider="openai", model="gpt-4o-mini"):
        _read_two(model.stream("hi", handled()))


async def _read_async(model: Any, *, closed: bool) -> None:
    stream = model.astream("hi", handled())
    await anext(stream)
    await anext(stream)
    if closed:
        await stream.aclose()
        return
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _twice(model: Any) -> None:
    """Read two words of a stream that two handlers hear."""
    _read_two(model.stream("hi", {"callbacks": [ObservabilityHandler(), ObservabilityHandler()]}))


LEFT: dict[str, Callable[[Any], object]] = {
    "closed": lambda model: _read_two(model.stream("hi", handled())),
    "cut": lambda model: _read_to_the_cut(model.stream("hi", handled())),
    "closed, asynchronous": lambda model: asyncio.run(_read_async(model, closed=True)),
    "cancelled": lambda model: asyncio.run(_read_async(model, closed=False)),
    "two handlers": _twice,
    "in a block": _under_a_block,
}


@pytest.mark.parametrize("leave", LEFT.values(), ids=LEFT)
def test_what_a_stream_hands_out_before_it_is_left_is_judged(leave: Callable[[Any], object]) -> None:
    """The call of a stream that is closed, cancelled or cut is judged once, by its words so far."""
    with judging() as judged:
        leave(Cut(answers=["my card is"]))
        gc.collect()
        assert judged.asked == [("chat", "mycard")]
        assert judged.results == ["bypassed"]


def test_a_chain_that_is_left_and_its_call_are_judged() -> None:
    """LangChain reads a call to its end by itself where a chain is left: what the reader has not got is not judged."""
    chain: Any = RunnableLambda(lambda given: given) | Model(answers=["my card is 4111"])
    with judging() as judged:
        _read_two(chain.stream("hi", handled()))
        gc.collect()
        assert sorted(judged.asked) == [("chat", "mycard"), ("invoke_workflow", "my")]  # LangChain adds a piece up late


def test_the_answer_of_a_tool_and_of_a_graph_is_asked_about() -> None:
    """A question that contains the word is not an answer with it."""

    @tool
    def tell() -> str:
        """Tell."""
        return "the secret"

    tells: Any = RunnableLambda(lambda _: "the secret")
    with fresh_recorder(guardrails=[WITHHOLDING], mode="enforce"):
        with pytest.raises(GuardrailBlockedError):
            tell.invoke({}, handled())
        agent = create_agent(Model(answers=["fine"]), [])
        agent.invoke({"messages": [("user", "do you know a secret?")]}, handled())  # type: ignore[call-overload]
        with pytest.raises(GuardrailBlockedError):
            tells.invoke("hi", handled())


def test_a_limit_of_tokens_stops_an_agent() -> None:
    """Configured for everything: the call behind the one that passed it is refused."""
    answers: list[Any] = [asks_for("search", query="it"), AIMessage("done")]
    with fresh_recorder(policies=[MaxTokens(5)], mode="enforce") as recorder, capture_invocations(recorder) as seen:
        agent = create_agent(Model(answers=answers), [search], name="Finder")
        with pytest.raises(PolicyViolationError, match="max_tokens"):
            agent.invoke({"messages": [("user", "find it")]}, handled())  # type: ignore[call-overload]
        assert [run.status for run in seen if run.operation is Operation.CHAT] == [Status.SUCCESS, Status.BLOCKED]


@pytest.mark.parametrize("way", CALLS)
def test_a_budget_is_enforced_by_the_handler_alone(way: str) -> None:
    """The model is not asked; the call is recorded as blocked, and nothing stays reserved."""
    with (
        fresh_recorder(budgets=[Budget("b", limit_usd="0.0000001", action="enforce")]) as recorder,
        capture_invocations(recorder) as seen,
    ):
        with pytest.raises(BudgetExceededError):
            WAYS[way](Counted(), "hi")
        assert (ran, [run.status for run in seen]) == ([], [Status.BLOCKED])
        (found,) = budget_status(recorder=recorder)
        assert (int(found.spent), int(found.reserved)) == (0, 0)


def test_a_store_is_not_asked_in_an_event_loop_that_must_go_on(tmp_path: Path) -> None:
    """A callback cannot wait there: the call passes, the decision is `bypassed`, and the call is booked."""
    budget = Budget("b", limit_usd="0.0000001", action="enforce")
    with (
        fresh_recorder(budgets=[budget], budget_store=f"sqlite:///{tmp_path / 'b.db'}") as recorder,
        capture_records(Decision, recorder) as decisions,
    ):
        WAYS["ainvoke"](Counted(), "hi")
        assert recorder.flush(10)
        assert ran == ["model"]
        assert [each.result for each in decisions if each.stage] == [CheckResult.BYPASSED]
        assert budget_status(recorder=recorder)[0].spent > 0
        with pytest.raises(BudgetExceededError):
            WAYS["invoke"](Counted(), "hi")


def test_two_handlers_ask_once() -> None:
    """One that is attached to the block and one that is given to the call."""
    with (
        fresh_recorder(policies=[DenyWords(["forbidden"])]) as recorder,
        capture_records(Decision, recorder) as decisions,
        observe_langchain(),
    ):
        Model().invoke("a forbidden word", handled())
        assert len(list(decisions)) == 1


class Failing(BaseCallbackHandler):
    """Another library's handler, which raises."""

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        """Raise."""
        raise ValueError("not ours")


def test_only_refusals_pass_from_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of this handler, or of another, stays in LangChain's log."""
    handler = ObservabilityHandler()
    monkeypatch.setattr(handler._open, "call", lambda *_: 1 / 0)
    with fresh_recorder(policies=[DenyWords(["forbidden"])], mode="enforce"):
        assert Model().invoke("hi", {"callbacks": [handler, Failing()]}).content
    assert handler.raise_error is False
