"""The handler on LangGraph: nodes, agents, interrupts, handoffs, and the guardrails that LangChain ships."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from _handlers import handlers_forget
from _langchain_models import Model, asks_for
from _runs import told
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    PIIMiddleware,
    ToolCallLimitMiddleware,
)
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from taskpilot_obs_langchain import ObservabilityHandler, middleware

from taskpilot_obs import get_request_id, observe_tool, request_context, track_workflow
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.records import CheckResult, Decision, DecisionKind, Invocation, Stage, Status, Verdict
from taskpilot_obs.testing import Captured, capture_records

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of langgraph's own, about its own

Seen = Captured[Invocation]
ASK: Any = {"messages": [("user", "hello")]}


def config(handler: ObservabilityHandler | None = None, thread: str | None = None) -> Any:
    found: dict[str, Any] = {"callbacks": [handler or ObservabilityHandler()]}
    if thread is not None:
        found["configurable"] = {"thread_id": thread}
    return found


nothing_stays = pytest.fixture(autouse=True)(handlers_forget)


@pytest.fixture
def decisions(recorder: Recorder) -> Iterator[Captured[Decision]]:
    """The decisions that are recorded during the test."""
    with capture_records(Decision, recorder) as captured:
        yield captured


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def plan(state: MessagesState) -> Any:
    return {"messages": [Model().invoke(state["messages"])]}


def review(state: MessagesState) -> Any:
    return {"messages": [AIMessage("fine")]}


async def plan_async(state: MessagesState) -> Any:
    return {"messages": [await Model().ainvoke(state["messages"])]}


def graph(**nodes: Any) -> Any:
    """The nodes one after the other."""
    return stopped({}, **nodes)


def stopped(breakpoints: Any, /, **nodes: Any) -> Any:
    """The nodes one after the other, with these breakpoints."""
    builder = StateGraph(MessagesState)
    above = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(above, name)
        above = name
    return builder.compile(checkpointer=InMemorySaver(), **breakpoints)


def run_sync(runnable: Any, given: Any, how: Any) -> Any:
    return runnable.invoke(given, how)


def run_stream(runnable: Any, given: Any, how: Any) -> Any:
    return list(runnable.stream(given, how))


def run_async(runnable: Any, given: Any, how: Any) -> Any:
    return asyncio.run(runnable.ainvoke(given, how))


WAYS = [run_sync, run_stream, run_async]


# --- what is what -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_graph_is_a_workflow_of_agents(seen: Seen, way: Any) -> None:
    """The graph is the task, each node an agent, a model's call belongs to its node, and the thread is the session."""
    way(graph(planner=plan_async if way is run_async else plan, reviewer=review), ASK, config(thread="t-1"))
    assert told(seen) == [
        ("chat", "gpt-4o-mini", "success"),
        ("invoke_agent", "planner", "success"),
        ("invoke_agent", "reviewer", "success"),
        ("invoke_workflow", "LangGraph", "success"),
    ]
    call, planner, reviewer, task = seen
    assert (call.agent, call.workflow, call.parent_id) == ("planner", "LangGraph", planner.invocation_id)
    assert (planner.parent_id, reviewer.parent_id) == (task.invocation_id,) * 2
    assert [run.is_task for run in seen] == [False, False, False, True]
    assert {run.session for run in seen} == {"t-1"}
    assert len({run.request_id for run in seen}) == 1


@pytest.mark.parametrize("way", WAYS)
def test_the_start_of_a_graph_has_no_run(seen: Seen, way: Any) -> None:
    """The node of conditional edges from the start is plumbing; a model that chooses there is the graph's own."""

    def choose(state: MessagesState) -> str:
        return str(Model(answers=["reviewer"]).invoke(state["messages"]).content)

    async def choose_async(state: MessagesState) -> str:
        return str((await Model(answers=["reviewer"]).ainvoke(state["messages"])).content)

    builder = StateGraph(MessagesState)
    builder.add_node("reviewer", review)
    builder.add_conditional_edges(START, choose_async if way is run_async else choose, ["reviewer"])
    way(builder.compile(), ASK, config())
    assert told(seen) == [
        ("chat", "gpt-4o-mini", "success"),
        ("invoke_agent", "reviewer", "success"),
        ("invoke_workflow", "LangGraph", "success"),
    ]
    assert (seen[0].agent, seen[0].workflow) == (None, "LangGraph")


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_graph_is_one_agent(seen: Seen, way: Any) -> None:
    """A `create_agent` graph is an agent; its nodes are none; model and tool are its own."""
    agent = create_agent(Model(answers=[asks_for("add", a=1, b=2), "3"]), [add], name="Adder")
    way(agent, ASK, config())
    assert told(seen) == [
        ("chat", "gpt-4o-mini", "success"),
        ("execute_tool", "add", "success"),
        ("chat", "gpt-4o-mini", "success"),
        ("invoke_agent", "Adder", "success"),
    ]
    assert {run.agent for run in seen} == {"Adder"}
    assert {run.parent_id for run in seen[:3]} == {seen[3].invocation_id}
    assert seen[3].is_task
    assert seen[3].rollup is not None
    assert (seen[3].rollup.llm_calls, seen[3].rollup.tool_calls) == (2, 1)


def test_an_unnamed_agent_may_be_named_by_the_handler(seen: Seen) -> None:
    """The handler's name goes before LangGraph's, and `root="workflow"` makes a workflow of an agent's graph."""
    create_agent(Model(), []).invoke(ASK, config(ObservabilityHandler(name="Helper")))
    create_agent(Model(), []).invoke(ASK, config(ObservabilityHandler(root="workflow", name="help")))
    assert [told(seen)[1][:2], told(seen)[3][:2]] == [("invoke_agent", "Helper"), ("invoke_workflow", "help")]


def test_an_agent_that_is_a_node_is_counted_once(seen: Seen) -> None:
    """An agent's graph as a node of its own name, or without a name, is that node; with another name it is beneath."""
    named = create_agent(Model(), [], name="writer")
    graph(writer=named, helper=create_agent(Model(), []), step=create_agent(Model(), [], name="expert")).invoke(
        ASK, config(thread="t")
    )
    agents = [run.name for run in seen if run.operation.value == "invoke_agent"]
    assert agents == ["writer", "helper", "expert", "step"]
    assert [run.agent for run in seen if run.operation.value == "chat"] == ["writer", "helper", "expert"]


def test_a_graph_within_a_graph_is_plumbing(seen: Seen) -> None:
    """A subgraph is the node that it is; its own nodes are agents beneath."""
    inner = StateGraph(MessagesState).add_node("inner", plan).add_edge(START, "inner").compile()
    graph(outer=inner).invoke(ASK, config(thread="t"))
    assert told(seen)[1:] == [
        ("invoke_agent", "inner", "success"),
        ("invoke_agent", "outer", "success"),
        ("invoke_workflow", "LangGraph", "success"),
    ]


def test_within_a_decorated_workflow_a_graph_adds_its_agents(seen: Seen) -> None:
    """Beneath a decorated workflow the graph's nodes are agents of that workflow; an agent's graph is one agent."""
    with request_context("req-1", tenant_id="acme"), track_workflow("report"):
        graph(planner=plan).invoke(ASK, config(thread="t-2"))
        create_agent(Model(), [], name="Writer").invoke(ASK, config())
    assert [run.name for run in seen] == ["gpt-4o-mini", "planner", "gpt-4o-mini", "Writer", "report"]
    assert [run.is_task for run in seen] == [False, False, False, False, True]
    assert {run.workflow for run in seen} == {"report"}
    assert {(run.request_id, run.tenant) for run in seen} == {("req-1", "acme")}
    assert [run.session for run in seen] == ["t-2", "t-2", None, None, None]


def test_the_session_of_the_request_goes_before_the_thread(seen: Seen) -> None:
    """Where the application names a session, LangGraph's thread does not replace it."""
    with request_context(session_id="s-1"):
        graph(planner=plan).invoke(ASK, config(thread="t-3"))
    assert {run.session for run in seen} == {"s-1"}


@pytest.mark.parametrize("way", WAYS)
def test_tools_see_request_and_agent(seen: Seen, way: Any) -> None:
    """A tool that a graph calls sees the request, and the recorded runs that it calls are beneath it."""
    saw: list[str | None] = []

    @observe_tool("lookup")
    def lookup() -> int:
        saw.append(get_request_id())
        return 7

    @tool
    def ask() -> int:
        """Ask."""
        saw.append(get_request_id())
        return lookup()

    @tool
    async def ask_async() -> int:
        """Ask."""
        saw.append(get_request_id())
        return lookup()

    asked = ask_async if way is run_async else ask
    agent = create_agent(Model(answers=[asks_for(asked.name), "7"]), [asked], name="Asker")
    with request_context("req-7"):
        way(agent, ASK, config())
    way(create_agent(Model(answers=[asks_for(asked.name), "7"]), [asked], name="Asker"), ASK, config())
    tools = [run for run in seen if run.operation.value == "execute_tool"]
    assert [(run.name, run.agent) for run in tools] == [("lookup", "Asker"), (asked.name, "Asker")] * 2
    assert [tools[0].parent_id, tools[2].parent_id] == [tools[1].invocation_id, tools[3].invocation_id]
    assert saw[:2] == ["req-7"] * 2
    assert saw[2:] == [tools[3].request_id] * 2
    assert get_request_id() is None


# --- control flow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_interrupts_up_to_the_root(seen: Seen, way: Any) -> None:
    """A graph that waits for a human is interrupted, not failed and not done; resumed, it is a run of its own."""

    def ask(state: MessagesState) -> Any:
        return {"messages": [AIMessage(str(interrupt("sure?")))]}

    asking = graph(asker=ask)
    way(asking, ASK, config(thread="t"))
    assert told(seen) == [
        ("invoke_agent", "asker", "interrupted"),
        ("invoke_workflow", "LangGraph", "interrupted"),
    ]
    way(asking, Command(resume="yes"), config(thread="t"))
    assert [status for _, _, status in told(seen)[2:]] == ["success", "success"]


@pytest.mark.skipif(find_spec("langgraph.callbacks") is None, reason="this LangGraph does not report breakpoints")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("breakpoints", [{"interrupt_before": ["second"]}, {"interrupt_after": ["first"]}])
def test_a_breakpoint_interrupts_the_graph(seen: Seen, way: Any, breakpoints: Any) -> None:
    """A graph that stops at a breakpoint is interrupted, though each of its nodes was done; resumed, it succeeds."""
    stopping = stopped(breakpoints, first=lambda state: {}, second=lambda state: {})
    told_of = ObservabilityHandler()
    assert type(told_of) is ObservabilityHandler
    way(stopping, ASK, {**config(thread="t"), "callbacks": [told_of]})
    assert told(seen) == [("invoke_agent", "first", "success"), ("invoke_workflow", "LangGraph", "interrupted")]
    way(stopping, None, {**config(thread="t"), "callbacks": [told_of]})
    assert told(seen)[2:] == [("invoke_agent", "second", "success"), ("invoke_workflow", "LangGraph", "success")]


def test_an_older_langgraph_reports_no_breakpoints(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where LangGraph has no class of handlers for graphs, a graph is recorded nevertheless."""
    monkeypatch.delitem(sys.modules, "langgraph.callbacks", raising=False)
    graph(first=lambda state: {}).invoke(ASK, config(thread="t"))
    assert [status for _, _, status in told(seen)] == ["success", "success"]


def test_an_interrupt_in_a_tool_interrupts_it(seen: Seen) -> None:
    """A tool that asks a human is interrupted, and its agent with it."""

    @tool
    def confirm() -> str:
        """Confirm."""
        return str(interrupt("sure?"))

    agent = create_agent(
        Model(answers=[asks_for("confirm"), "done"]), [confirm], name="Careful", checkpointer=InMemorySaver()
    )
    agent.invoke(ASK, config(thread="t"))
    assert told(seen)[1:] == [("execute_tool", "confirm", "interrupted"), ("invoke_agent", "Careful", "interrupted")]
    agent.invoke(Command(resume="yes"), config(thread="t"))
    assert {run.status for run in seen[3:]} == {Status.SUCCESS}


def test_a_handoff_interrupts_the_inner_runs_only(seen: Seen) -> None:
    """`Command(graph=PARENT)` ends the inner node as interrupted; the root succeeds."""

    def hand_over(state: MessagesState) -> Any:
        return Command(goto="second", graph=Command.PARENT)

    inner = StateGraph(MessagesState).add_node("inner", hand_over).add_edge(START, "inner").compile()
    builder = StateGraph(MessagesState)
    builder.add_node("first", inner, destinations=("second",))
    builder.add_node("second", review)
    builder.add_edge(START, "first")
    builder.compile().invoke(ASK, config())
    assert told(seen) == [
        ("invoke_agent", "inner", "interrupted"),
        ("invoke_agent", "first", "interrupted"),
        ("invoke_agent", "second", "success"),
        ("invoke_workflow", "LangGraph", "success"),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_an_error_fails_every_level(seen: Seen, way: Any) -> None:
    """A node's exception reaches the user, and node and task end with it."""

    def fail(state: MessagesState) -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        way(graph(failing=fail), ASK, config(thread="t"))
    assert [(run.status, run.error_type) for run in seen] == [(Status.ERROR, "ValueError")] * 2


def test_wrong_arguments_fail_the_tool_and_not_the_run(seen: Seen) -> None:
    """A model that calls a tool wrongly is told so: the tool call failed, the agent succeeds."""
    agent = create_agent(Model(answers=[asks_for("add", a="one"), "sorry"]), [add], name="Adder")
    agent.invoke(ASK, config())
    assert [status for _, name, status in told(seen) if name == "add"] == ["error"]
    assert told(seen)[-1] == ("invoke_agent", "Adder", "success")


def test_a_stream_of_a_graph_that_is_left_is_abandoned(seen: Seen) -> None:
    """A consumer that stops reading a graph's stream abandons the task."""
    stream = graph(planner=plan, reviewer=review).stream(ASK, config(thread="t"))
    next(stream)
    stream.close()
    assert told(seen)[-1] == ("invoke_workflow", "LangGraph", "abandoned")


def test_an_asynchronous_stream_of_a_graph_that_is_left_is_abandoned(seen: Seen) -> None:
    """A consumer that stops reading a graph's asynchronous stream, in mid-token, abandons the task."""

    async def stream_node(state: MessagesState) -> Any:
        async for _ in Model(hangs=True).astream("hello"):
            pass
        return {}

    async def leave() -> None:
        stream = graph(reviewer=review, streamer=stream_node).astream(ASK, config(thread="t"))
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(leave())
    gc.collect()
    assert told(seen)[0] == ("invoke_agent", "reviewer", "success")
    assert ("invoke_workflow", "LangGraph", "abandoned") in told(seen)
    assert {run.status for run in seen[1:]} <= {Status.ABANDONED, Status.CANCELLED}


def test_cancelling_ends_a_tool_that_hangs(seen: Seen) -> None:
    """A cancelled task cancels everything beneath, even a tool of which LangChain reports no end."""

    @tool
    async def wait() -> None:
        """Wait."""
        await asyncio.sleep(60)

    agent = create_agent(Model(answers=[asks_for("wait")]), [wait], name="Waiter")

    async def cancel() -> None:
        running = asyncio.create_task(agent.ainvoke(ASK, config()))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    gc.collect()
    ended = {name: status for _, name, status in told(seen)[1:]}
    assert ended == {"wait": "cancelled", "Waiter": "cancelled"}


# --- guardrails -------------------------------------------------------------------------------------------------------


def agent_with(*guards: Any, answers: Any = ("done",)) -> Any:
    return create_agent(
        Model(answers=list(answers)), [add], name="Guarded", middleware=guards, checkpointer=InMemorySaver()
    )


def said(decisions: Captured[Decision]) -> list[tuple[Any, ...]]:
    return [(one.kind, one.name, one.verdict, one.result, one.stage, one.tool) for one in decisions]


PII = "PIIMiddleware[email]"
GUARDRAIL, POLICY = DecisionKind.GUARDRAIL, DecisionKind.POLICY
CALLS = [asks_for("add", a=1, b=2), asks_for("add", a=1, b=2), "done"]


def test_personal_data_that_is_hidden_passes(seen: Seen, decisions: Captured[Decision]) -> None:
    """`PIIMiddleware` that redacts lets the text pass, and its decision says that it was redacted."""
    guarded_agent = agent_with(PIIMiddleware("email", strategy="redact"))
    guarded_agent.invoke({"messages": [("user", "I am a@example.com")]}, config(thread="t"))
    assert said(decisions) == [
        (GUARDRAIL, PII, Verdict.ALLOW, CheckResult.PASSED, Stage.INPUT, None),
        (GUARDRAIL, PII, Verdict.ALLOW, CheckResult.PASSED, Stage.OUTPUT, None),
    ]
    assert [dict(one.attributes) for one in decisions] == [{"redacted": True}, {}]
    assert {one.origin.agent for one in decisions} == {"Guarded"}
    assert told(seen) == [("chat", "gpt-4o-mini", "success"), ("invoke_agent", "Guarded", "success")]


def test_personal_data_that_is_refused_blocks(seen: Seen, decisions: Captured[Decision]) -> None:
    """`PIIMiddleware` that blocks is a guardrail's block, and the agent ends as blocked, not as failed."""
    with pytest.raises(Exception, match="email"):
        agent_with(PIIMiddleware("email", strategy="block")).invoke(
            {"messages": [("user", "I am a@example.com")]}, config(thread="t")
        )
    assert said(decisions) == [(GUARDRAIL, PII, Verdict.DENY, CheckResult.BLOCKED, Stage.INPUT, None)]
    assert decisions[0].reason == "email"
    assert told(seen) == [("invoke_agent", "Guarded", "blocked")]


@pytest.mark.parametrize("behaviour", ["end", "error"])
def test_a_limit_of_model_calls_denies(seen: Seen, decisions: Captured[Decision], behaviour: Any) -> None:
    """Reaching the limit of model calls is one denial of a policy, whether the agent ends quietly or raises."""
    limited = agent_with(ModelCallLimitMiddleware(run_limit=1, exit_behavior=behaviour), answers=CALLS)
    if behaviour == "error":
        with pytest.raises(Exception, match="limit"):
            limited.invoke(ASK, config(thread="t"))
    else:
        limited.invoke(ASK, config(thread="t"))
    assert said(decisions) == [
        (POLICY, "ModelCallLimitMiddleware", Verdict.DENY, CheckResult.BLOCKED, None, None),
    ]
    assert told(seen)[-1][2] == ("blocked" if behaviour == "error" else "success")


@pytest.mark.parametrize("behaviour", ["continue", "end", "error"])
def test_a_limit_of_tool_calls_denies_the_tool(seen: Seen, decisions: Captured[Decision], behaviour: Any) -> None:
    """Reaching the limit of tool calls is one denial that names the tool."""
    limited = agent_with(ToolCallLimitMiddleware(tool_name="add", run_limit=1, exit_behavior=behaviour), answers=CALLS)
    if behaviour == "error":
        with pytest.raises(Exception, match="limit"):
            limited.invoke(ASK, config(thread="t"))
    else:
        limited.invoke(ASK, config(thread="t"))
    assert said(decisions) == [
        (POLICY, "ToolCallLimitMiddleware[add]", Verdict.DENY, CheckResult.BLOCKED, None, "add"),
    ]


def test_a_human_is_asked_for_approval(seen: Seen, decisions: Captured[Decision]) -> None:
    """`HumanInTheLoopMiddleware` asks for approval of each tool call; the agent is interrupted meanwhile."""
    asking = agent_with(HumanInTheLoopMiddleware(interrupt_on={"add": True}), answers=CALLS[1:])
    asking.invoke(ASK, config(thread="t"))
    assert said(decisions) == [
        (POLICY, "HumanInTheLoopMiddleware", Verdict.REQUIRE_APPROVAL, CheckResult.WOULD_BLOCK, None, "add"),
    ]
    assert told(seen)[-1] == ("invoke_agent", "Guarded", "interrupted")
    asking.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config(thread="t"))
    assert told(seen)[-1] == ("invoke_agent", "Guarded", "success")
    assert len(decisions) == 1


def test_other_exceptions_in_a_guardrails_node_make_no_decision(
    decisions: Captured[Decision], recorder: Recorder
) -> None:
    """Other exceptions of a guardrail's node are not verdicts; strange interrupts name no tool."""
    for name in ("PIIMiddleware[email].before_model", "HumanInTheLoopMiddleware.after_model"):
        hook = middleware.hook_of(name)
        assert hook is not None
        for error in (ValueError("no"), ValueError(), ValueError([7]), ValueError(["x"])):
            middleware.report(recorder, hook, error)
    assert middleware.hook_of("planner") is None
    assert len(decisions) == 0


def test_a_lambda_in_a_graph_is_plumbing(seen: Seen) -> None:
    """A runnable within a node is not an agent."""
    graph(node=RunnableLambda(lambda state: {"messages": [Model().invoke("hello")]})).invoke(ASK, config(thread="t"))
    assert told(seen) == [
        ("chat", "gpt-4o-mini", "success"),
        ("invoke_agent", "node", "success"),
        ("invoke_workflow", "LangGraph", "success"),
    ]
