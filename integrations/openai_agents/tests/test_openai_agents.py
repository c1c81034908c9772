"""The real OpenAI Agents SDK against a provider on loopback: records, ends of every kind, enforcement."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

import pytest
from _provider import Provider, serving
from _runs import cancel_under_way, table

from taskpilot_obs import observe_agent, observe_tool, observe_workflow
from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.status import statuses
from taskpilot_obs.exceptions import BudgetExceededError, RefusedError
from taskpilot_obs.integration import Recorder
from taskpilot_obs.records import Decision, Invocation, Operation, Pricing
from taskpilot_obs.safety import CheckInput, DenyTools, check_with
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder

if find_spec("agents") is None:
    assert not os.environ.get("CI"), "openai-agents is not installed"
    pytest.skip("openai-agents is NOT INSTALLED: install the dependency group `test`", allow_module_level=True)

import agents
from openai import AsyncOpenAI
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from taskpilot_obs_openai import wrap
from taskpilot_obs_openai_agents import ObservabilityHooks, ObservabilityProcessor, observe


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def processor(recorder: Recorder) -> Iterator[ObservabilityProcessor]:
    made = observe(replace=True)
    yield made
    agents.set_trace_processors([])
    assert made.open == 0


ran: list[str] = []


@observe_tool
def lookup() -> str:
    return "sunny"


@agents.function_tool  # type: ignore[untyped-decorator]  # the SDK may be missing where types are checked
def get_weather(city: str) -> str:
    """The weather."""
    ran.append(city)
    return lookup()


async def work(provider: Provider, text: str = "hi", *, kind: str = "chat", hooks: Any = None, **options: Any) -> Any:
    """Run an agent with one tool."""
    async with AsyncOpenAI(api_key="x", base_url=f"{provider.url}/v1", max_retries=0) as client:
        models = {"chat": agents.OpenAIChatCompletionsModel, "responses": agents.OpenAIResponsesModel}
        model = models[kind]("gpt-4o-mini", client)
        given = {"tools": [get_weather], **options}
        if "handoffs" in given:
            given["handoffs"] = [agents.Agent(name=name, model=model) for name in given["handoffs"]]
        return await agents.Runner.run(agents.Agent(name="Planner", model=model, **given), text, hooks=hooks)


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_run(provider: Provider, seen: Captured[Invocation], kind: str) -> None:
    """A trace is the workflow; agent, calls, tool and what is decorated beneath it stand where they belong."""
    asyncio.run(work(provider, kind=kind))
    found = table(seen)
    assert [(name or "gpt-4o-mini", above) for name, above, _ in found] == [  # a response names its model at its end
        ("Agent workflow", None),
        ("Planner", "Agent workflow"),
        ("gpt-4o-mini", "Planner"),
        ("get_weather", "Planner"),
        ("lookup", "get_weather"),
        ("gpt-4o-mini", "Planner"),
    ]
    assert {status for _, _, status in found} == {"success"}
    for call in seen:
        if call.usage is None:
            continue
        assert (*call.usage[:2], call.usage.cache_read_tokens, call.usage.reasoning_tokens) == (100, 20, 40, 8)
        assert call.request_model is not None
        assert call.cost is not None
    workflow = next(run for run in seen if run.name == "Agent workflow")
    assert workflow.rollup is not None
    assert (workflow.rollup.llm_calls, workflow.rollup.input_tokens) == (2, 200)


def test_hooks_without_traces(provider: Provider, seen: Captured[Invocation]) -> None:
    """Where tracing is disabled, a wrapped client leaves the call to the hooks, which record it beneath the agent."""

    @observe_agent
    async def untraced() -> None:
        async with AsyncOpenAI(api_key="x", base_url=f"{provider.url}/v1", max_retries=0) as client:
            agent = agents.Agent(name="Planner", model=agents.OpenAIChatCompletionsModel("gpt-4o-mini", wrap(client)))
            config = agents.RunConfig(tracing_disabled=True)
            await agents.Runner.run(agent, "hi", hooks=ObservabilityHooks(), run_config=config)

    asyncio.run(untraced())
    assert table(seen) == [("untraced", None, "success"), ("gpt-4o-mini", "untraced", "success")]


def test_failed(provider: Provider, seen: Captured[Invocation]) -> None:
    """A failed call fails its agent and its workflow, each with the class of the exception."""
    with pytest.raises(Exception, match="boom"):
        asyncio.run(work(provider, "FAIL", tools=[]))
    assert [status for _, _, status in table(seen)] == ["error"] * 3
    assert {run.error_type for run in seen} == {"openai.InternalServerError"}


def test_cancelled(provider: Provider, seen: Captured[Invocation]) -> None:
    """A cancelled task leaves nothing open, and nothing of it is a success."""
    asyncio.run(cancel_under_way(provider, work(provider, "HANG", tools=[])))
    assert {status for _, _, status in table(seen)} == {"cancelled"}


async def read_in_part(provider: Provider, then: Callable[[Any], Awaitable[None]]) -> None:
    """Read the first pieces of a slow stream, leave it, and do something with the SDK's result."""
    async with AsyncOpenAI(api_key="x", base_url=f"{provider.url}/v1", max_retries=0) as client:
        agent = agents.Agent(name="Planner", model=agents.OpenAIChatCompletionsModel("gpt-4o-mini", client))
        result = agents.Runner.run_streamed(agent, "SLOW")
        events = result.stream_events()
        async for event in events:
            if "delta" in str(getattr(getattr(event, "data", None), "type", "")):
                break
        await then(result)
        await events.aclose()


async def _cancel(result: Any) -> None:
    result.cancel()


async def _let_it_go_on(result: Any) -> None:
    await result.run_loop_task


@pytest.mark.parametrize(("then", "status"), [(_cancel, "cancelled"), (_let_it_go_on, "success")])
def test_a_stream_that_is_left(
    provider: Provider, seen: Captured[Invocation], then: Callable[[Any], Awaitable[None]], status: str
) -> None:
    """The SDK runs on without a reader: what is cancelled by then is cancelled, and what comes to its end succeeds."""
    asyncio.run(read_in_part(provider, then))
    gc.collect()
    assert table(seen) == [
        ("Agent workflow", None, status),
        ("Planner", "Agent workflow", status),
        ("gpt-4o-mini", "Planner", status),
    ]


def test_nested_agents(provider: Provider, seen: Captured[Invocation]) -> None:
    """An agent in the tool of another, beneath a decorated workflow; only the outer run is a trace."""

    @observe_workflow(name="outer")
    async def nested() -> None:
        async with AsyncOpenAI(api_key="x", base_url=f"{provider.url}/v1", max_retries=0) as client:
            model = agents.OpenAIChatCompletionsModel("gpt-4o-mini", client)
            inner = agents.Agent(name="Researcher", model=model)

            @agents.function_tool  # type: ignore[untyped-decorator]
            async def research(city: str) -> str:
                """Researches."""
                return str((await agents.Runner.run(inner, city)).final_output)

            await agents.Runner.run(agents.Agent(name="Planner", model=model, tools=[research]), "hi")

    asyncio.run(nested())
    assert table(seen) == [
        ("outer", None, "success"),
        ("Agent workflow", "outer", "success"),
        ("Planner", "Agent workflow", "success"),
        ("gpt-4o-mini", "Planner", "success"),
        ("research", "Planner", "success"),
        ("Researcher", "research", "success"),
        ("gpt-4o-mini", "Researcher", "success"),
        ("gpt-4o-mini", "Planner", "success"),
    ]
    outer = next(run for run in seen if run.name == "outer")
    assert outer.rollup is not None
    assert (outer.rollup.llm_calls, outer.rollup.input_tokens) == (3, 300)


def test_concurrent_runs(provider: Provider, seen: Captured[Invocation]) -> None:
    """Ten runs at once: twenty calls, each beneath its own agent."""

    async def crowd() -> None:
        await asyncio.gather(*(work(provider) for _ in range(10)))

    asyncio.run(crowd())
    calls = [run for run in seen if run.usage]
    assert len(calls) == 20
    assert sorted(run.rollup.llm_calls for run in seen if run.name == "Planner" and run.rollup) == [2] * 10


def test_a_guardrail_is_a_decision(provider: Provider, recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A tripped guardrail is a decision of the agent, and blocks it."""

    @agents.input_guardrail  # type: ignore[untyped-decorator]
    async def polite(context: Any, agent: Any, given: Any) -> Any:
        return agents.GuardrailFunctionOutput(output_info=None, tripwire_triggered="rude" in str(given))

    with capture_records(Decision, recorder=recorder) as decisions:
        asyncio.run(work(provider, input_guardrails=[polite]))
        with pytest.raises(agents.InputGuardrailTripwireTriggered):
            asyncio.run(work(provider, "rude", input_guardrails=[polite]))
    assert [(one.name, one.verdict.value, one.result.value) for one in decisions] == [
        ("polite", "allow", "passed"),
        ("polite", "deny", "blocked"),
    ]


def test_a_refused_tool_does_not_run(provider: Provider) -> None:
    """A policy in enforce mode refuses before the tool runs; tool, agent and workflow are blocked."""
    ran.clear()
    with fresh_recorder(policies=[DenyTools(["get_weather"])], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(agents.UserError) as raised:
            asyncio.run(work(provider, hooks=ObservabilityHooks()))
        found = {run.name: run.status.value for run in seen}
    assert isinstance(raised.value.__cause__, RefusedError)
    assert ran == []
    assert (found["get_weather"], found["Planner"], found["Agent workflow"]) == ("blocked",) * 3


def test_checks_that_pass(provider: Provider) -> None:
    """Hooks change nothing where nothing refuses."""
    ran.clear()
    with fresh_recorder(policies=[DenyTools(["other"])], mode="enforce"):
        result = asyncio.run(work(provider, hooks=ObservabilityHooks()))
    assert (result.final_output, ran) == ("It is sunny.", ["Paris"])


def _budgets(limit: str) -> list[Budget]:
    return [Budget("all", limit_usd=Decimal(limit), period="day", action="enforce")]


async def streamed(provider: Provider, kind: str) -> None:
    """Stream the answer of an agent."""
    async with AsyncOpenAI(api_key="x", base_url=f"{provider.url}/v1", max_retries=0) as client:
        models = {"chat": agents.OpenAIChatCompletionsModel, "responses": agents.OpenAIResponsesModel}
        settings = agents.ModelSettings(include_usage=True)
        agent = agents.Agent(name="Planner", model=models[kind]("gpt-4o-mini", client), model_settings=settings)
        result = agents.Runner.run_streamed(agent, "hi", hooks=ObservabilityHooks())
        async for _ in result.stream_events():
            pass


@pytest.mark.parametrize("kind", ["chat", "responses"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_a_budget_refuses_before_the_model_is_asked(provider: Provider, kind: str, *, streams: bool) -> None:
    """A call without room is not sent, is recorded once as blocked, and blocks its agent and its workflow."""
    before = len(provider.calls)
    with fresh_recorder(budgets=_budgets("0.0000001")) as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(BudgetExceededError):
            asyncio.run(
                streamed(provider, kind) if streams else work(provider, kind=kind, hooks=ObservabilityHooks(), tools=[])
            )
        found = table(seen)
    assert len(provider.calls) == before
    assert found == [
        ("Agent workflow", None, "blocked"),
        ("Planner", "Agent workflow", "blocked"),
        ("gpt-4o-mini", "Planner", "blocked"),
    ]


@pytest.mark.parametrize("kind", ["chat", "responses"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_a_budget_with_room_is_charged_what_the_calls_cost(provider: Provider, kind: str, *, streams: bool) -> None:
    """Each call is recorded once; the budget holds what they cost, and nothing stays reserved."""
    with fresh_recorder(budgets=_budgets("1")) as fresh:
        with capture_invocations(fresh) as seen:
            asyncio.run(streamed(provider, kind) if streams else work(provider, kind=kind, hooks=ObservabilityHooks()))
        assert fresh.flush()
        assert fresh.parts is not None
        control = fresh.parts.budgets
        assert control is not None
        (status,) = statuses(control.budgets, control.ledger, control.utc_now())
    calls = [run for run in seen if run.operation is Operation.CHAT]
    assert len(calls) == (1 if streams else 2)
    assert {run.status.value for run in seen} == {"success"}
    assert status.spent == sum(run.cost or 0 for run in calls)
    assert status.spent > status.reserved == 0


def test_zeros_beside_an_answer_are_unknown(seen: Captured[Invocation]) -> None:
    """A server that states no usage leads to zeros in the SDK, which are not taken for a free call."""
    model = Plain(agents.Usage())
    asyncio.run(agents.Runner.run(agents.Agent(name="Planner", model=model), "hi", hooks=ObservabilityHooks()))
    call = next(run for run in seen if run.operation is Operation.CHAT)
    assert (call.usage, call.pricing) == (None, Pricing.UNPRICED)


class Plain(agents.Model):  # type: ignore[misc]
    """A model class of an application, which opens no span."""

    model = "gpt-4o-mini"

    def __init__(self, usage: Any) -> None:
        self.usage = usage

    async def get_response(self, *_: Any, **__: Any) -> Any:
        text = ResponseOutputText(annotations=[], text="hi", type="output_text")
        said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
        return agents.ModelResponse(output=[said], usage=self.usage, response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


class Broken(Plain):
    """A model class of an application, which fails."""

    async def get_response(self, *_: Any, **__: Any) -> Any:
        raise LookupError


class InTurn(Plain):
    """A model class of an application, which answers once another one has."""

    def __init__(self, usage: Any, *, after: asyncio.Event | None = None, then: asyncio.Event | None = None) -> None:
        super().__init__(usage)
        self._after, self._then = after, then

    async def get_response(self, *_: Any, **__: Any) -> Any:
        if self._after is not None:
            await self._after.wait()
        if self._then is not None:
            self._then.set()
        return await super().get_response()


@observe_agent(name="Mine")
async def untraced(*models: Any, swallow: bool = False, **options: Any) -> None:
    """Run agents at once beneath one of the application, without the SDK's tracing."""
    config = agents.RunConfig(tracing_disabled=True)
    runs = (
        agents.Runner.run(
            agents.Agent(name="Planner", model=model, **options), "hi", hooks=ObservabilityHooks(), run_config=config
        )
        for model in models
    )
    for error in await asyncio.gather(*runs, return_exceptions=True):
        if isinstance(error, BaseException) and not swallow:
            raise error


@pytest.mark.parametrize(("swallow", "ends"), [(False, ("error", "error")), (True, ("success", "abandoned"))])
def test_a_failed_call_without_spans(seen: Captured[Invocation], swallow: bool, ends: tuple[str, str]) -> None:
    """A call fails with the exception that ends the agent above; one that the agent handles leaves it abandoned."""
    with contextlib.suppress(LookupError):
        asyncio.run(untraced(Broken(agents.Usage()), swallow=swallow))
    gc.collect()
    assert table(seen) == [("Mine", None, ends[0]), ("gpt-4o-mini", "Mine", ends[1])]
    assert {run.error_type for run in seen} == ({None} if swallow else {"LookupError"})


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("trips", [False, True], ids=["crashes", "trips"])
def test_a_guardrail_beside_a_call_cancels_it(seen: Captured[Invocation], traced: bool, trips: bool) -> None:
    """The SDK cancels a call once a guardrail beside it trips or crashes: it is cancelled, with and without spans."""
    begun = asyncio.Event()

    class Waiting(Plain):
        async def get_response(self, *_: Any, **__: Any) -> Any:
            begun.set()
            await asyncio.sleep(60)

    @agents.input_guardrail  # type: ignore[untyped-decorator]
    async def strict(*_: Any) -> Any:
        await begun.wait()
        return agents.GuardrailFunctionOutput(output_info=trips or 1 / 0, tripwire_triggered=True)

    model = Waiting(agents.Usage())

    async def go() -> None:
        if traced:
            agent = agents.Agent(name="Planner", model=model, input_guardrails=[strict])
            await agents.Runner.run(agent, "hi", hooks=ObservabilityHooks())
        else:
            await untraced(model, input_guardrails=[strict])

    with pytest.raises((ZeroDivisionError, agents.InputGuardrailTripwireTriggered)):
        asyncio.run(go())
    (call,) = (run for run in seen if run.operation is Operation.CHAT)
    assert call.status == "cancelled"
    assert {run.status for run in seen if run is not call} == {"blocked" if trips else "error"}


def test_a_failed_call_of_a_model_class_without_spans(seen: Captured[Invocation]) -> None:
    """Where the span of an agent ends by an exception, the call that it had begun fails too, and counts for it."""
    agent = agents.Agent(name="Planner", model=Broken(agents.Usage()))
    with pytest.raises(LookupError):
        asyncio.run(agents.Runner.run(agent, "hi", hooks=ObservabilityHooks()))
    assert {(run.status.value, run.error_type) for run in seen} == {("error", "LookupError")}
    assert [run.rollup and run.rollup.llm_calls for run in seen if run.name == "Planner"] == [1]


def test_agents_at_once_beneath_one_run_without_spans(seen: Captured[Invocation]) -> None:
    """Each answer ends the call of its own agent, whichever comes first."""
    usages = [agents.Usage(requests=1, input_tokens=tokens, output_tokens=1) for tokens in (11, 22)]
    answered = asyncio.Event()
    asyncio.run(untraced(InTurn(usages[0], after=answered), InTurn(usages[1], then=answered)))
    gc.collect()
    found = [(run.status.value, run.usage and run.usage[:2]) for run in seen if run.operation is Operation.CHAT]
    assert sorted(found) == [("success", (11, 1)), ("success", (22, 1))]
    starts = sorted((run for run in seen if run.operation is Operation.CHAT), key=lambda run: run.invocation_id)
    assert [run.usage and run.usage[0] for run in starts] == [11, 22]


def test_a_model_without_spans_is_recorded_by_the_hooks(seen: Captured[Invocation]) -> None:
    """A model class of an application that traces nothing is asked about and recorded too."""
    model = Plain(agents.Usage(requests=1, input_tokens=100, output_tokens=20, total_tokens=120))
    asyncio.run(agents.Runner.run(agents.Agent(name="Planner", model=model), "hi", hooks=ObservabilityHooks()))
    call = next(run for run in seen if run.operation is Operation.CHAT)
    assert (call.request_model, call.status.value, call.usage and call.usage[:2]) == (
        "gpt-4o-mini",
        "success",
        (100, 20),
    )
    assert call.cost is not None


class OverWrapped(Plain):
    """A model class of an application, over a wrapped client; it may open the SDK's span around its request."""

    def __init__(self, client: AsyncOpenAI, *, spans: bool) -> None:
        super().__init__(agents.Usage(requests=1, input_tokens=100, output_tokens=20, total_tokens=120))
        self._client = wrap(client)
        self._spans = spans

    async def get_response(self, *_: Any, **__: Any) -> Any:
        with agents.generation_span(model=self.model, disabled=not self._spans) as span:
            said = [{"role": "user", "content": "hi"}]
            answer = await self._client.chat.completions.create(model=self.model, messages=said)  # type: ignore[arg-type]
            span.span_data.usage = None if answer.usage is None else answer.usage.model_dump()
        return await super().get_response()


@pytest.mark.parametrize(("spans", "calls"), [(True, 1), (False, 2)], ids=["span", "no span"])
def test_a_model_class_over_a_wrapped_client(provider: Provider, spans: bool, calls: int) -> None:
    """Within the SDK's span its request is recorded and asked about once; without, twice, rather than unasked."""
    asked: list[str] = []

    def note(subject: CheckInput) -> None:
        asked.append(subject.operation.value)

    async def run() -> None:
        async with AsyncOpenAI(api_key="x", base_url=f"{provider.url}/v1") as client:
            made = agents.Agent(name="Planner", model=OverWrapped(client, spans=spans))
            await agents.Runner.run(made, "hi", hooks=ObservabilityHooks())

    with fresh_recorder(policies=[check_with(note, name="note")]) as fresh, capture_invocations(fresh) as seen:
        asyncio.run(run())
        assert asked.count("chat") == calls
        assert [
            (each.status.value, each.usage and each.usage[:2]) for each in seen if each.operation is Operation.CHAT
        ] == [("success", (100, 20))] * calls
