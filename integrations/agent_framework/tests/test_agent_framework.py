"""The real Agent Framework against a provider on loopback: records, ends of every kind, streams, enforcement."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import pytest
from _provider import Provider, answering, serving
from _runs import NESTED_AGENTS, assert_ten_at_once, cancel_under_way, figures, judging, table
from _tools import broken, get_weather, ran

from taskpilot_obs import observe_workflow, shutdown
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, ConfigurationError, PolicyViolationError
from taskpilot_obs.integration import Recorder
from taskpilot_obs.records import Decision, Invocation, Operation, Pricing
from taskpilot_obs.safety import DenyTools, DenyWords, check_with
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder

if find_spec("agent_framework") is None:
    assert not os.environ.get("CI"), "agent-framework-core is not installed"
    pytest.skip("agent-framework-core is NOT INSTALLED: install the dependency group `test`", allow_module_level=True)

import agent_framework as af
from agent_framework.openai import OpenAIChatCompletionClient
from openai import AsyncOpenAI
from taskpilot_obs_agent_framework import (
    AgentObserver,
    ChatObserver,
    FunctionObserver,
    observability_middleware,
    observe,
)

Work = Callable[["Agents"], Awaitable[Any]]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    gc.collect()  # runs that tests of other files left open end now, and not among those of this file
    with serving() as server:
        yield server


class Agents:
    """Makes agents, for one loop and one provider."""

    def __init__(self, provider: Provider, client: AsyncOpenAI) -> None:
        self.provider = provider
        self._client = client

    def client(self, **options: Any) -> Any:
        return OpenAIChatCompletionClient(model="gpt-4o-mini", async_client=self._client, **options)

    def agent(self, *tools: Any, name: str = "Planner", middleware: Any = None) -> Any:
        used = observability_middleware() if middleware is None else middleware
        return af.Agent(self.client(), "You plan.", name=name, tools=list(tools), middleware=used)


def play(provider: Provider, work: Work) -> Any:
    """Run something in a loop of its own."""

    async def run() -> Any:
        async with AsyncOpenAI(api_key="x", base_url=f"{provider.url}/v1", max_retries=0) as client:
            return await work(Agents(provider, client))

    try:
        return asyncio.run(run())
    finally:
        gc.collect()


async def read(stream: Any) -> str:
    """Read a stream to its end."""
    return "".join([update.text async for update in stream])


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

    async def work(at: Agents) -> str:
        agent = at.agent(get_weather)
        return await read(agent.run("hi", stream=True)) if stream else (await agent.run("hi")).text

    assert play(provider, work) == "It is sunny."
    assert table(seen) == NESTED
    calls = [run for run in seen if run.usage is not None]
    assert len(calls) == 2
    for call in calls:
        assert figures(call) == (100, 20, 40, 8)
        assert (call.provider, call.response_model) == ("openai", "gpt-4o-mini-2024-07-18")
        assert call.cost is not None
        assert (call.streaming, call.ttft_s is not None) == (stream, stream)
    agent = next(run for run in seen if run.name == "Planner")
    assert agent.rollup is not None
    assert (agent.rollup.llm_calls, agent.rollup.tool_calls, agent.rollup.input_tokens) == (2, 2, 200)


ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
STATED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", [None, ZEROS, STATED], ids=["none", "zeros", "stated"])
def test_unknown_usage_is_not_zero(seen: Captured[Invocation], usage: Any, stream: bool) -> None:
    """Usage that the provider left out, or put zeros for beside an answer, is unknown, and so is the cost."""

    async def run() -> Any:
        async with AsyncOpenAI(api_key="x", http_client=answering(usage), max_retries=0) as client:
            model = OpenAIChatCompletionClient(model="gpt-4o-mini", async_client=client)
            agent = af.Agent(model, "You plan.", name="Planner", middleware=observability_middleware())
            return await read(agent.run("hi", stream=True)) if stream else (await agent.run("hi")).text

    assert asyncio.run(run()) == "It is sunny."
    (call,) = (each for each in seen if each.operation is Operation.CHAT)
    if usage is STATED:
        assert call.usage is not None
        assert call.usage[:2] == (10, 5)
        assert call.pricing is Pricing.PRICED
    else:
        assert (call.usage, call.cost, call.pricing) == (None, None, Pricing.UNPRICED)


def test_the_providers_exception_is_recorded(provider: Provider, seen: Captured[Invocation]) -> None:
    """The framework's `ChatClientException` reaches the application; call and agent name what the provider raised."""
    with pytest.raises(af.exceptions.ChatClientException):
        play(provider, lambda at: at.agent().run("FAIL"))
    assert {(run.status.value, run.error_type) for run in seen} == {("error", "openai.InternalServerError")}
    assert len(seen) == 2


def test_a_stream_that_fails(provider: Provider, seen: Captured[Invocation]) -> None:
    """So it is where the answer is streamed."""
    with pytest.raises(af.exceptions.ChatClientException):
        play(provider, lambda at: read(at.agent().run("FAIL", stream=True)))
    assert {(run.status.value, run.error_type) for run in seen} == {("error", "openai.InternalServerError")}


def test_a_tool_that_fails(provider: Provider, seen: Captured[Invocation]) -> None:
    """A tool's exception becomes its result, so that the agent succeeds; the tool call is an error."""
    play(provider, lambda at: at.agent(broken).run("hi"))
    assert table(seen)[0] == ("Planner", None, "success")
    assert table(seen)[2] == ("broken", "Planner", "error")
    assert next(run for run in seen if run.name == "broken").error_type == "LookupError"


@pytest.mark.parametrize("stream", [False, True])
def test_cancelled(provider: Provider, seen: Captured[Invocation], stream: bool) -> None:
    """A cancelled task leaves nothing open, and nothing of it is a success."""

    async def work(at: Agents) -> None:
        run = at.agent().run("HANG", stream=stream)
        await cancel_under_way(provider, read(run) if stream else run)

    play(provider, work)
    assert [status for _, _, status in table(seen)] == ["cancelled"] * 2


@pytest.mark.parametrize("how", ["dropped", "closed"])
def test_a_stream_that_is_left(provider: Provider, seen: Captured[Invocation], how: str) -> None:
    """Call and agent of a stream that is read in part are abandoned, at the latest when the process ends.

    The framework may close a dropped stream's generators in an order in which they fail: "already running".
    """

    async def work(at: Agents) -> None:
        stream = at.agent().run("hi", stream=True)
        async for _ in stream:
            break
        if how == "closed":
            await stream.close()
        del stream, _
        for _ in range(50):  # the loop closes the framework's generators one by one, and their connections in between
            gc.collect()
            await asyncio.sleep(0.01)
            if len(seen) >= 2:
                break

    play(provider, work)
    shutdown()
    assert table(seen) == [("Planner", None, "abandoned"), ("gpt-4o-mini", "Planner", "abandoned")]


@pytest.mark.parametrize("stream", [False, True])
def test_nested_agents(provider: Provider, seen: Captured[Invocation], stream: bool) -> None:
    """An agent as the tool of another, beneath a decorated workflow."""

    @observe_workflow(name="outer")
    async def work(at: Agents) -> None:
        inner = at.agent(name="Researcher").as_tool(name="research", description="r", arg_name="city")
        run = at.agent(inner).run("hi", stream=stream)
        await (read(run) if stream else run)

    play(provider, work)
    assert table(seen) == NESTED_AGENTS


def test_concurrent_runs(provider: Provider, seen: Captured[Invocation]) -> None:
    """Ten runs at once of one agent: twenty calls, each beneath its own run."""

    async def work(at: Agents) -> None:
        agent = at.agent(get_weather)
        await asyncio.gather(*(agent.run("hi") for _ in range(10)))

    play(provider, work)
    assert_ten_at_once(seen)


def test_installed_twice(provider: Provider, seen: Captured[Invocation]) -> None:
    """Middleware of the agent and of the run observe once, and so does one object that is listed twice."""
    used = observability_middleware()

    async def work(at: Agents) -> None:
        await at.agent(get_weather, middleware=used).run("hi", middleware=[*used, *observability_middleware()])

    play(provider, work)
    assert table(seen) == NESTED


def test_a_client_without_an_agent(provider: Provider, seen: Captured[Invocation]) -> None:
    """A chat client takes the part for chats alone."""

    async def work(at: Agents) -> None:
        await at.client(middleware=[ChatObserver()]).get_response([af.Message("user", ["hi"])])

    play(provider, work)
    assert table(seen) == [("gpt-4o-mini", None, "success")]


def test_a_conversation(provider: Provider, seen: Captured[Invocation]) -> None:
    """Runs of one session carry its ID."""

    async def work(at: Agents) -> str:
        agent = at.agent()
        session = agent.create_session()
        await agent.run("hi", session=session)
        await agent.run("again", session=session)
        return str(session.session_id)

    stated = play(provider, work)
    assert [run.attributes.get("conversation") for run in seen if run.name == "Planner"] == [stated] * 2


# --- workflows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_workflow(provider: Provider, seen: Captured[Invocation], stream: bool) -> None:
    """Its run is a workflow, with the agents of its executors beneath it."""

    async def work(at: Agents) -> None:
        first, second = at.agent(name="Writer"), at.agent(name="Editor")
        workflow = observe(
            observe(af.WorkflowBuilder(start_executor=first, name="Pipeline").add_edge(first, second).build())
        )
        run = workflow.run("hi", stream=stream)
        if not stream:
            await run
            return
        async for _ in run:
            pass

    play(provider, work)
    assert table(seen) == [
        ("Pipeline", None, "success"),
        ("Writer", "Pipeline", "success"),
        ("gpt-4o-mini", "Writer", "success"),
        ("Editor", "Pipeline", "success"),
        ("gpt-4o-mini", "Editor", "success"),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_workflow_that_fails(provider: Provider, seen: Captured[Invocation], stream: bool) -> None:
    """It is an error of the provider's class, as are the agent and the call beneath it."""

    async def work(at: Agents) -> None:
        run = observe(af.WorkflowBuilder(start_executor=at.agent(), name="Pipeline").build()).run("FAIL", stream=stream)
        if not stream:
            await run
            return
        async for _ in run:
            pass

    with pytest.raises(Exception, match="boom"):
        play(provider, work)
    assert {(run.status.value, run.error_type) for run in seen} == {("error", "openai.InternalServerError")}
    assert len(seen) == 3


@pytest.mark.filterwarnings("ignore:.*FUNCTIONAL_WORKFLOWS")  # experimental in 1.23
def test_a_workflow_that_waits(seen: Captured[Invocation]) -> None:
    """A workflow that asks a person is interrupted, and succeeds once it is answered."""

    @af.workflow(name="Approval")  # type: ignore[untyped-decorator]  # the framework may be missing
    async def approval(text: str, ctx: af.RunContext) -> str:
        return str(await ctx.request_info({"text": text}, response_type=str, request_id="1"))

    async def work() -> None:
        flow = observe(approval.build())
        await flow.run("deploy?")
        await flow.run(responses={"1": "yes"})

    with pytest.raises(ConfigurationError, match="built workflow"):
        observe(approval)
    asyncio.run(work())
    assert [(run.name, run.status.value) for run in seen] == [("Approval", "interrupted"), ("Approval", "success")]


# --- what cannot be read ---------------------------------------------------------------------------------------------


def words() -> Any:
    """A stream of texts, which are neither updates nor results of the framework."""

    async def source() -> Any:
        for word in ("It ", "is ", "sunny."):
            yield word

    return af.ResponseStream(source(), finalizer="".join)


class Words(af.ChatMiddlewareLayer, af.BaseChatClient):  # type: ignore[misc]  # the framework may be missing
    """A client of the application."""

    model = "mine"

    def _inner_get_response(self, **_: Any) -> Any:
        return words()


def unread(recorder: Recorder) -> bool:
    """Whether a failure to read was counted."""
    assert recorder.flush()
    assert recorder.registry is not None
    where = {"where": "agent_framework"}
    return bool(recorder.registry.get_sample_value("taskpilot_obs_internal_errors_total", where))


def test_updates_that_cannot_be_read(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A stream of objects of the application reaches its reader; that they were not read is counted."""

    async def work() -> Any:
        stream = Words(middleware=[ChatObserver()]).get_response("hi", stream=True)
        said = [update async for update in stream]
        return said, await stream.get_final_response()

    assert asyncio.run(work()) == (["It ", "is ", "sunny."], "It is sunny.")
    assert table(seen) == [("mine", None, "success")]
    assert unread(recorder)


@pytest.mark.parametrize("stream", [False, True])
def test_a_workflows_result_that_cannot_be_read(recorder: Recorder, seen: Captured[Invocation], stream: bool) -> None:
    """A result without a final state reaches the application, and the run is a success."""

    class Flow:
        name = "Flow"

        def run(self) -> Any:
            return words() if stream else self.result()

        async def result(self) -> Any:
            return af.WorkflowRunResult([])

    async def work() -> Any:
        run = observe(Flow()).run()
        return await run.get_final_response() if stream else await run

    assert asyncio.run(work()) == ("It is sunny." if stream else [])
    assert table(seen) == [("Flow", None, "success")]
    assert unread(recorder)


# --- enforcement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_tool_does_not_run(provider: Provider, stream: bool) -> None:
    """A policy in enforce mode aborts the run before the tool runs; tool and agent are blocked."""
    ran.clear()

    async def work(at: Agents) -> None:
        run = at.agent(get_weather).run("hi", stream=stream)
        await (read(run) if stream else run)

    with fresh_recorder(policies=[DenyTools(["get_weather"])], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(af.MiddlewareFailure) as raised:
            play(provider, work)
        found = table(seen)
    assert isinstance(raised.value.__cause__, PolicyViolationError)
    assert ran == []
    assert found == [
        ("Planner", None, "blocked"),
        ("gpt-4o-mini", "Planner", "success"),
        ("get_weather", "Planner", "blocked"),
    ]


def test_a_refusal_beneath_an_agent_as_a_tool(provider: Provider) -> None:
    """A refusal aborts every level: the outer agent does not get it as the result of its tool."""

    async def work(at: Agents) -> None:
        inner = at.agent(get_weather, name="Researcher").as_tool(name="research", description="r", arg_name="city")
        await at.agent(inner).run("hi")

    with fresh_recorder(policies=[DenyTools(["get_weather"])], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(af.MiddlewareFailure):
            play(provider, work)
        found = {name: status for name, _, status in table(seen) if name != "gpt-4o-mini"}
    assert found == dict.fromkeys(("Planner", "research", "Researcher", "get_weather"), "blocked")


def test_input_is_refused_before_a_model_is_asked(provider: Provider) -> None:
    """What an agent is given is checked first; the application gets the refusal as the cause."""
    before = len(provider.calls)
    with fresh_recorder(policies=[DenyWords(["secret"])], mode="enforce"):
        with pytest.raises(af.MiddlewareFailure):
            play(provider, lambda at: at.agent().run("a secret"))
        assert len(provider.calls) == before
        assert play(provider, lambda at: at.agent().run("hi")).text == "It is sunny."


def test_output_is_withheld(provider: Provider) -> None:
    """An answer that a check refuses is not handed out; its tokens are recorded, because they are billed."""
    with fresh_recorder(policies=[check_with(DenyWords(["sunny"]), stages="output")], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(af.MiddlewareFailure):
            play(provider, lambda at: at.agent().run("hi"))
        assert [status for _, _, status in table(seen)] == ["blocked"] * 2
        assert seen[0].usage is not None


class Unreadable:
    """Raises when it is asked for its text."""

    @property
    def text(self) -> str:
        raise RuntimeError("no text")


async def odd_usage(context: Any, call_next: Any) -> None:
    """Middleware of the application that states usage of no known kind."""
    await call_next()
    context.result.usage_details = "many"


async def odd_answer(context: Any, call_next: Any) -> None:
    """Middleware of the application that answers with an object of its own."""
    context.result = Unreadable()


@pytest.mark.parametrize("odd", [odd_usage, odd_answer])
def test_an_answer_that_cannot_be_read_is_not_let_through(provider: Provider, odd: Any) -> None:
    """Odd usage does not hide an answer from its check; an answer without a readable text is refused."""
    middleware = [ChatObserver(), af.chat_middleware(odd)]
    with fresh_recorder(policies=[check_with(DenyWords(["sunny"]), stages="output")], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(af.MiddlewareFailure):
            play(provider, lambda at: at.agent(middleware=middleware).run("hi"))
        assert table(seen) == [("gpt-4o-mini", None, "blocked")]


def test_the_output_of_a_stream_is_checked_when_it_is_out(provider: Provider) -> None:
    """A stream is not withheld: what would have been refused is a decision."""
    with fresh_recorder(policies=[check_with(DenyWords(["sunny"]), stages="output")], mode="enforce") as fresh:
        with capture_records(Decision, fresh) as decisions:
            play(provider, lambda at: read(at.agent().run("hi", stream=True)))
        assert [one.result.value for one in decisions] == ["bypassed"] * 2


async def leave(at: Agents, how: str) -> None:
    """Read two words of a stream, and read no further."""
    said = ""
    stream = at.agent().run("CUT" if how == "cut" else "HALT", stream=True)
    with suppress(af.exceptions.ChatClientException, asyncio.CancelledError):
        async for update in stream:
            said += update.text
            if said != "It is ":
                continue
            if how == "cancelled":
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
            elif how != "cut":
                break
    if how == "closed":
        await stream.close()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("how", ["closed", "cancelled", "cut"])
def test_what_a_stream_hands_out_before_it_is_left_is_judged(provider: Provider, how: str, asynchronous: bool) -> None:
    """A stream that is closed, cancelled or cut is judged by its words so far, call and agent once each."""
    with judging(asynchronous=asynchronous) as judged:
        play(provider, lambda at: leave(at, how))
        provider.release()
        assert sorted(judged.asked) == [("chat", "It is "), ("invoke_agent", "It is ")]
        assert judged.results == ["bypassed"] * 2


def test_a_stream_that_is_dropped_is_judged_or_counted(provider: Provider) -> None:
    """A stream without a last reference is judged, unless a garbage collection finds it, which counts its checks."""
    with judging() as judged:
        play(provider, lambda at: leave(at, "dropped"))
        provider.release()
        gc.collect()
        assert judged.bypassed == 2
        assert set(judged.asked) <= {("chat", "It is "), ("invoke_agent", "It is ")}


async def twice(_context: Any, call_next: Any) -> None:
    """Middleware of the application that asks again, because it does not like the first answer."""
    await call_next()
    await call_next()


def test_a_call_that_is_made_again_with_one_context_is_recorded(provider: Provider) -> None:
    """Middleware around the observer calls twice: both calls are recorded and asked about, an answer each."""
    middleware = [af.chat_middleware(twice), ChatObserver()]
    before = len(provider.calls)
    with fresh_recorder() as fresh, capture_invocations(fresh) as seen:
        play(provider, lambda at: at.agent(middleware=middleware).run("hi"))
        assert [(run.name, run.usage is not None) for run in seen] == [("gpt-4o-mini", True)] * 2
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with fresh_recorder(budgets=[budget]), pytest.raises(af.MiddlewareFailure):
        play(provider, lambda at: at.agent(middleware=middleware).run("hi"))
    assert len(provider.calls) == before + 3


class Nameless:
    """An agent, a client and a function of the application that do not state their names."""

    @property
    def name(self) -> str:
        raise RuntimeError("no name yet")

    model = OTEL_PROVIDER_NAME = name


@pytest.mark.parametrize("kind", ["agent", "chat", "function"])
def test_what_cannot_be_named_is_asked_about(kind: str) -> None:
    """Work whose names cannot be read is checked and recorded all the same."""
    odd: Any = Nameless()
    said = [af.Message("user", ["a secret"])]
    context: Any
    if kind == "agent":
        context = af.AgentContext(agent=odd, messages=said)
    elif kind == "chat":
        context = af.ChatContext(client=odd, messages=said, options={})
    else:
        context = af.FunctionInvocationContext(function=odd, arguments={"what": "a secret"})
    observer = {"agent": AgentObserver, "chat": ChatObserver, "function": FunctionObserver}[kind]()
    sent: list[str] = []

    async def send() -> None:
        sent.append(kind)

    with fresh_recorder(policies=[DenyWords(["secret"])], mode="enforce") as fresh, capture_invocations(fresh) as seen:
        with pytest.raises(af.MiddlewareFailure):
            asyncio.run(observer.process(context, send))
        assert [run.status.value for run in seen] == ["blocked"]
    assert sent == []


def test_a_budget_refuses_the_second_call(provider: Provider) -> None:
    """A budget is asked before each model call."""
    before = len(provider.calls)
    with fresh_recorder(budgets=[Budget("calls", limit_requests=1, period="day", action="enforce")]) as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(af.MiddlewareFailure) as raised:
            play(provider, lambda at: at.agent(get_weather).run("hi"))
        assert [status for name, _, status in table(seen) if name == "gpt-4o-mini"] == ["success", "blocked"]
    assert isinstance(raised.value.__cause__, BudgetExceededError)
    assert len(provider.calls) == before + 1


def test_nothing_is_recorded_where_recording_is_off(provider: Provider) -> None:
    """A disabled recorder leaves the framework's work alone."""
    with fresh_recorder(enabled=False, mode="monitor") as fresh:
        with capture_invocations(fresh) as seen:
            assert play(provider, lambda at: read(at.agent(get_weather).run("hi", stream=True))) == "It is sunny."
        assert list(seen) == []
