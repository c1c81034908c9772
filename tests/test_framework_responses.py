"""What frameworks hand back is read by hand: real packages against a provider on loopback, without an integration.

Each answer of the provider took 100 input tokens (40 of them cached) and 20 output tokens (8 of them reasoning).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest
from _provider import Provider, serving
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskpilot_obs import Usage, observe_workflow, record_llm_call, track_agent, track_llm, track_workflow
from taskpilot_obs.records import Decision, Invocation, Pricing
from taskpilot_obs.safety import MaxTokens
from taskpilot_obs.semconv import Attr
from taskpilot_obs.testing import Captured, capture_records, fresh_recorder
from taskpilot_obs.usage import Reading, StreamReader, read_response

ANSWERED = "gpt-4o-2024-07-18"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """A provider that closes each connection, because the frameworks leave theirs to the garbage collector."""
    with serving() as server:
        handler: Any = server.RequestHandlerClass
        server.RequestHandlerClass = type("OneAnswer", (handler,), {"protocol_version": "HTTP/1.0"})
        yield server


def tokens(reading: Reading, calls: int = 1) -> bool:
    """Whether a reading states the tokens of that many calls, with cached and reasoning tokens."""
    usage = reading.usage
    if usage is None:
        return False
    stated = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.reasoning_tokens)
    return stated == (100 * calls, 20 * calls, 40 * calls, 8 * calls) and not reading.inconsistent


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


# --- agent-framework --------------------------------------------------------------------------------------------------


def af_client(provider: Provider, kind: str) -> Any:
    import agent_framework_openai

    return getattr(agent_framework_openai, kind)(model="gpt-4o", api_key="k", base_url=f"{provider.url}/v1")


AF_CLIENTS = pytest.mark.parametrize("kind", ["OpenAIChatCompletionClient", "OpenAIChatClient"])


@AF_CLIENTS
def test_chat_responses_of_agent_framework(provider: Provider, kind: str) -> None:
    """A `ChatResponse`, its dict and its `usage_details` state the call; the response names model, ID and reason."""
    from agent_framework import Message

    response = asyncio.run(_of(af_client(provider, kind).get_response([Message("user", ["hi"])])))
    reading = read_response(response)
    assert (reading.model, reading.provider, reading.finish_reasons) == (ANSWERED, "openai", ("stop",))
    assert reading.response_id == response.response_id
    assert reading.sums == 0
    assert all(map(tokens, (reading, read_response(response.to_dict()), read_response(response.usage_details))))


@AF_CLIENTS
def test_agent_responses_of_agent_framework(provider: Provider, kind: str) -> None:
    """An `AgentResponse` states the sum of its calls, how many they are, and the model behind them."""
    from agent_framework import Agent

    client = af_client(provider, kind)
    one = read_response(asyncio.run(_of(Agent(client=client, name="Planner").run("hi"))))
    two = read_response(asyncio.run(_of(Agent(client=client, name="Planner", tools=[weather]).run("hi"))))
    assert tokens(one)
    assert tokens(two, calls=2)
    assert (one.sums, two.sums) == (1, 2)
    assert {one.model, two.model} == {ANSWERED}


@AF_CLIENTS
def test_streams_of_a_chat_client(provider: Provider, kind: str) -> None:
    """The updates of a client state its call."""
    from agent_framework import Message

    async def read() -> Reading:
        reading, _ = await _streamed(af_client(provider, kind).get_response([Message("user", ["hi"])], stream=True))
        return reading

    reading = asyncio.run(read())
    assert tokens(reading)
    assert reading.sums == 0


@pytest.mark.parametrize(("tools", "calls"), [([], 1), ([weather], 2)])
def test_streams_of_an_agent_of_agent_framework(provider: Provider, tools: list[Any], calls: int) -> None:
    """The updates of an agent state the sum of its calls, and the first one with content is the first token."""
    from agent_framework import Agent

    async def read() -> tuple[Reading, list[bool]]:
        client = af_client(provider, "OpenAIChatCompletionClient")
        return await _streamed(Agent(client=client, name="Planner", tools=tools).run("hi", stream=True))

    reading, content = asyncio.run(read())
    assert tokens(reading, calls)
    assert reading.sums == calls
    assert content[:2] == [False, True]
    assert content[-1] is False


async def _of(awaitable: Any) -> Any:
    return await awaitable


async def _streamed(stream: AsyncIterator[object]) -> tuple[Reading, list[bool]]:
    reader = StreamReader()
    content = [reader.feed(update) async for update in stream]
    return reader.reading(), content


# --- pydantic-ai ------------------------------------------------------------------------------------------------------


def pydantic_agent(provider: Provider, kind: str, *tools: Any) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models import openai
    from pydantic_ai.providers.openai import OpenAIProvider

    at = OpenAIProvider(api_key="k", base_url=f"{provider.url}/v1")
    return Agent(getattr(openai, kind)("gpt-4o", provider=at), name="Planner", tools=list(tools))


PYDANTIC_MODELS = pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])


@PYDANTIC_MODELS
def test_results_of_pydantic_ai(provider: Provider, kind: str) -> None:
    """The result of a run, its usage and its last response are read, with model, ID and finish reason."""
    one = asyncio.run(pydantic_agent(provider, kind).run("hi"))
    two = asyncio.run(pydantic_agent(provider, kind, weather).run("hi"))
    for response in (one, one.response, one.usage):
        assert tokens(read_response(response))
    for response in (two, two.usage):
        assert tokens(read_response(response), calls=2)
        assert read_response(response).sums == 2
    last = read_response(two.response)
    assert tokens(last)
    assert last.sums == 0
    for reading in (read_response(two), last):
        assert (reading.model, reading.provider, reading.finish_reasons) == (ANSWERED, "openai", ("stop",))
        assert reading.response_id == two.response.provider_response_id


def test_streamed_results_of_pydantic_ai(provider: Provider) -> None:
    """The result of a streamed run is read once its stream is over."""

    async def read() -> Reading:
        async with pydantic_agent(provider, "OpenAIChatModel", weather).run_stream("hi") as result:
            async for _ in result.stream_text(delta=True):
                pass
            return read_response(result)

    reading = asyncio.run(read())
    assert tokens(reading, calls=2)
    assert (reading.sums, reading.model) == (2, ANSWERED)


# --- openai-agents ----------------------------------------------------------------------------------------------------

AGENTS_MODELS = pytest.mark.parametrize("kind", ["OpenAIChatCompletionsModel", "OpenAIResponsesModel"])


def run_of_agents(provider: Provider, kind: str, *tools: Any, streamed: bool = False) -> Any:
    import agents
    from openai import AsyncOpenAI

    async def run() -> Any:
        client = AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1")
        agent = agents.Agent(
            "Planner",
            model=getattr(agents, kind)("gpt-4o", client),
            tools=[agents.function_tool(tool) for tool in tools],
            model_settings=agents.ModelSettings(include_usage=True),
        )
        quiet = agents.RunConfig(tracing_disabled=True)
        if not streamed:
            return await agents.Runner.run(agent, "hi", run_config=quiet)
        result = agents.Runner.run_streamed(agent, "hi", run_config=quiet)
        async for _ in result.stream_events():
            pass
        return result

    return asyncio.run(run())


@AGENTS_MODELS
def test_results_of_openai_agents(provider: Provider, kind: str) -> None:
    """A result, its list of responses and its usage state all calls; a response of the list states its own."""
    one = run_of_agents(provider, kind)
    two = run_of_agents(provider, kind, weather)
    for response in (one, one.raw_responses, one.raw_responses[0], one.context_wrapper.usage):
        assert tokens(read_response(response))
    for response in (two, two.raw_responses, two.context_wrapper.usage):
        assert tokens(read_response(response), calls=2)
        assert read_response(response).sums == 2
    assert tokens(read_response(two.raw_responses[1]))
    assert read_response(two).response_id == two.raw_responses[-1].response_id


def test_streamed_results_of_openai_agents(provider: Provider) -> None:
    """The result of a streamed run is read once its stream is over."""
    reading = read_response(run_of_agents(provider, "OpenAIResponsesModel", weather, streamed=True))
    assert tokens(reading, calls=2)
    assert reading.sums == 2


# --- LangChain and LiteLLM --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("responses", [False, True])
def test_messages_of_langchain(provider: Provider, responses: bool) -> None:
    """Messages, generations and structured output with its raw message are read."""
    from langchain_core.messages import HumanMessage
    from pydantic import BaseModel

    class Place(BaseModel):
        """A place."""

        city: str

    model = langchain_model(provider, use_responses_api=responses)
    structured = model.with_structured_output(Place, include_raw=True, method="function_calling").invoke("hi")
    for response in (model.invoke("hi"), model.generate([[HumanMessage("hi")]]), structured):
        reading = read_response(response)
        assert tokens(reading), response
        assert (reading.model, reading.provider) == (ANSWERED, "openai")


def test_streams_of_langchain(provider: Provider) -> None:
    """The chunks of a message, and their sum, are read."""
    chunks = list(langchain_model(provider).stream("hi", stream_usage=True))
    summed, reader = chunks[0], StreamReader()
    for chunk in chunks[1:]:
        summed += chunk
    for chunk in chunks:
        reader.feed(chunk)
    assert tokens(read_response(summed))
    assert tokens(reader.reading())


def langchain_model(provider: Provider, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    return ChatOpenAI(model="gpt-4o", api_key=SecretStr("k"), base_url=f"{provider.url}/v1", **options)


def test_messages_of_a_conversation_are_no_response(provider: Provider) -> None:
    """A list of messages, or the state of an agent, holds earlier turns too: each was a response when it came."""
    from langchain.agents import create_agent

    agent: Any = create_agent(langchain_model(provider), [weather])
    state = agent.invoke({"messages": [("user", "hi")]})
    history = asyncio.run(pydantic_agent(provider, "OpenAIChatModel", weather).run("hi")).all_messages()
    for messages in (state, state["messages"], history):
        assert read_response(messages).usage is None
    assert tokens(read_response(state["messages"][-1]))


@pytest.mark.filterwarnings("ignore")  # its own
def test_responses_of_litellm(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses, embeddings and streams of LiteLLM are read; `make test-frameworks` installs it."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    if os.environ.get("TASKPILOT_OBS_FRAMEWORK") != "litellm":
        pytest.importorskip("litellm", reason="LiteLLM is large: `make test-frameworks` installs it and runs this test")
    import litellm

    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "api_key": "k"}
    for model, base in (("openai/gpt-4o", f"{provider.url}/v1"), ("anthropic/claude-sonnet-4-5", provider.url)):
        reading = read_response(litellm.completion(model, api_base=base, **asked))
        assert reading.usage is not None
        assert reading.usage[:3] == (100, 20, 40)
        assert reading.provider == model.partition("/")[0]
    embedded = litellm.embedding("openai/text-embedding-3-small", ["hi"], api_key="k", api_base=f"{provider.url}/v1")
    assert read_response(embedded).usage == Usage(7, 0)
    reader = StreamReader()
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    for event in litellm.completion("openai/gpt-4o", api_base=f"{provider.url}/v1", **streaming, **asked):
        reader.feed(event)
    assert tokens(reader.reading())


# --- booked once ------------------------------------------------------------------------------------------------------

COST = Decimal("0.0004")
"""gpt-4o: 60 input tokens at 2.5 USD, 40 cached at 1.25 USD, 20 output tokens at 10 USD, a million each."""


def test_the_sum_of_an_agent_is_booked_where_its_calls_are_not(provider: Provider, seen: Captured[Invocation]) -> None:
    """Without records of the calls, the result of an agent is booked as one call, with the cost of all."""
    result = run_of_agents(provider, "OpenAIResponsesModel", weather)
    with track_agent("Planner"), track_llm(model="gpt-4o") as call:
        call.record_response(result)
    live, agent = seen
    past = record_llm_call(model="gpt-4o", usage=result, agent="Planner")
    assert (live.usage, live.cost, live.pricing) == (read_response(result).usage, 2 * COST, Pricing.PRICED)
    assert (past.usage, past.cost) == (live.usage, live.cost)
    assert agent.rollup is not None
    assert (agent.rollup.llm_calls, agent.rollup.cost) == (1, 2 * COST)


@pytest.mark.parametrize("where", ["beneath", "beside", "beneath an agent beside", "after the fact"])
def test_the_sum_of_an_agent_is_not_booked_beside_its_calls(
    provider: Provider, seen: Captured[Invocation], where: str
) -> None:
    """Where the calls are recorded, the result that sums them adds neither tokens nor cost, and lacks none."""
    result = run_of_agents(provider, "OpenAIResponsesModel", weather)

    def calls() -> None:
        for response in result.raw_responses:
            record_llm_call(model="gpt-4o", usage=response)

    with track_workflow("triage"):
        if where == "beneath":
            with track_llm(model="gpt-4o") as call:
                calls()
                call.record_response(result)
        elif where == "after the fact":
            calls()
            record_llm_call(model="gpt-4o", usage=result)
        else:
            if where == "beside":
                calls()
            else:
                with track_agent("Planner"):
                    calls()
            with track_llm(model="gpt-4o") as call:
                call.record_response(result)
    workflow = seen[-1]
    booked = [run for run in seen if run.cost is not None]
    (summed,) = [run for run in seen[:-1] if run.cost is None and run.pricing is not None]
    assert [run.cost for run in booked] == [COST, COST]
    assert (summed.usage, summed.pricing, summed.is_usage_missing) == (None, Pricing.FREE, False)
    assert workflow.rollup is not None
    assert (workflow.rollup.llm_calls, workflow.rollup.cost, workflow.rollup.unpriced_calls) == (2, 2 * COST, 0)


def test_other_calls_do_not_hide_the_sum_of_an_agent(provider: Provider, seen: Captured[Invocation]) -> None:
    """Calls of the same run that are less than the sum cannot account for it: it is booked beside them."""
    result = run_of_agents(provider, "OpenAIResponsesModel", weather)
    with track_workflow("triage"):
        record_llm_call(model="gpt-4o", usage=Usage(50, 5))
        record_llm_call(model="gpt-4o", usage=result)
    assert seen[-1].rollup is not None
    assert seen[-1].rollup.input_tokens == 250


SUM_A = {"prompt_tokens": 300, "completion_tokens": 60, "requests": 2}
SUM_B = {"prompt_tokens": 200, "completion_tokens": 50, "requests": 2}


def test_two_sums_without_their_calls_are_both_booked(seen: Captured[Invocation]) -> None:
    """The result of an agent, booked as a call, does not account for the next result in the same run."""
    with track_workflow("triage"):
        record_llm_call(model="gpt-4o", usage=SUM_A)
        record_llm_call(model="gpt-4o", usage=SUM_B)
    one, two, workflow = seen
    assert (one.usage, two.usage) == (Usage(300, 60), Usage(200, 50))
    assert (one.pricing, two.pricing) == (Pricing.PRICED, Pricing.PRICED)
    assert workflow.rollup is not None
    assert workflow.rollup[:4] == (500, 110, Decimal("0.00235"), 2)


@pytest.mark.parametrize("within", ["the workflow", "an agent"])
def test_a_call_accounts_for_one_sum_only(seen: Captured[Invocation], within: str) -> None:
    """The calls that account for a result are used up: a second one is booked, unless calls of its own are recorded."""

    def one_agent(*, calls: int) -> None:
        for _ in range(calls):
            record_llm_call(model="gpt-4o", usage=Usage(150, 30))
        record_llm_call(model="gpt-4o", usage=SUM_A)

    def agents() -> None:
        one_agent(calls=2)
        if within == "an agent":
            with track_agent("Planner"):
                one_agent(calls=2)
        else:
            one_agent(calls=2)

    with track_workflow("triage"):
        agents()
        one_agent(calls=0)
    sums = [run for run in seen if run.usage in (None, Usage(300, 60)) and run.pricing is not None]
    assert [run.pricing for run in sums] == [Pricing.FREE, Pricing.FREE, Pricing.PRICED]
    assert seen[-1].rollup is not None
    assert seen[-1].rollup[:2] == (900, 180)
    assert seen[-1].rollup.llm_calls == 5


def test_fewer_calls_do_not_account_for_a_sum(seen: Captured[Invocation]) -> None:
    """One long call of the same run does not account for the result of two others, however many tokens it took."""
    with track_workflow("triage"):
        record_llm_call(model="gpt-4o", usage=Usage(1_000, 500))
        record_llm_call(model="gpt-4o", usage=SUM_A)
    assert seen[1].usage == Usage(300, 60)


@pytest.mark.parametrize(
    ("calls", "booked"),
    [
        ([Usage(150, 30), Usage(150, 30)], None),
        ([Usage(150, 30), Usage(149, 31)], Usage(300, 60)),
        ([Usage(150, 30), Usage(151, 29)], Usage(300, 60)),
        ([Usage(300, 60)], Usage(300, 60)),
    ],
    ids=["exactly", "fewer input tokens", "fewer output tokens", "fewer calls"],
)
def test_calls_account_for_a_sum_that_they_reach_in_all_three(
    seen: Captured[Invocation], calls: list[Usage], booked: Usage | None
) -> None:
    """Calls account for a result if they are as many, with as many input and as many output tokens."""
    with track_workflow("triage"):
        for usage in calls:
            record_llm_call(model="gpt-4o", usage=usage)
        record_llm_call(model="gpt-4o", usage=SUM_A)
    assert seen[len(calls)].usage == booked


@pytest.mark.parametrize(
    ("given", "generated", "booked"), [(300, 60, None), (301, 60, Usage(301, 60)), (300, 61, Usage(300, 61))]
)
def test_tokens_account_for_one_sum_only(
    seen: Captured[Invocation], given: int, generated: int, booked: Usage | None
) -> None:
    """Where calls are left over, the next result is left to them only if they have all of its tokens."""
    with track_workflow("triage"):
        for _ in range(4):
            record_llm_call(model="gpt-4o", usage=Usage(150, 30))
        record_llm_call(model="gpt-4o", usage=SUM_A)
        record_llm_call(model="gpt-4o", usage=SUM_A | {"prompt_tokens": given, "completion_tokens": generated})
    assert [run.usage for run in seen[4:6]] == [None, booked]


def test_calls_account_for_one_sum_only_although_tokens_are_left(seen: Captured[Invocation]) -> None:
    """Two long calls that account for one result of two calls account for no second one, whatever they took."""
    with track_workflow("triage"):
        for _ in range(2):
            record_llm_call(model="gpt-4o", usage=Usage(300, 60))
        record_llm_call(model="gpt-4o", usage=SUM_A)
        record_llm_call(model="gpt-4o", usage=SUM_A)
    assert [run.usage for run in seen[2:4]] == [None, Usage(300, 60)]


def test_a_cached_result_of_an_agent_uses_no_calls_up(seen: Captured[Invocation]) -> None:
    """A result from the application's cache is free, and the calls beside it still account for a paid one."""
    with track_workflow("triage"):
        for _ in range(2):
            record_llm_call(model="gpt-4o", usage=Usage(150, 30))
        record_llm_call(model="gpt-4o", usage=SUM_A, cached=True)
        record_llm_call(model="gpt-4o", usage=SUM_A)
    assert [run.pricing for run in seen[2:4]] == [Pricing.FREE, Pricing.FREE]
    assert seen[-1].rollup is not None
    assert seen[-1].rollup[:2] == (300, 60)


@pytest.mark.parametrize("calls", [0, 2])
def test_a_sum_is_on_spans_once(calls: int) -> None:
    """The span of a result has tokens and cost only where no spans of its calls have them; its run sums each once."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with fresh_recorder(tracer_provider=provider), track_workflow("triage"):
        for _ in range(calls):
            with track_llm(model="gpt-4o") as call:
                call.record_usage(150, 30)
        for stated in (SUM_A, SUM_A) if calls == 0 else (SUM_A,):
            with track_llm(model="gpt-4o") as call:
                call.record_usage(stated)
    *spans, workflow = [dict[str, Any](span.attributes or {}) for span in exporter.get_finished_spans()]
    booked = [span for span in spans if Attr.COST in span]
    assert len(booked) == 2
    assert [span for span in spans if Attr.INPUT_TOKENS in span] == booked
    assert workflow[Attr.ROLLUP_INPUT_TOKENS] == sum(span[Attr.INPUT_TOKENS] for span in booked)
    assert workflow[Attr.ROLLUP_LLM_CALLS] == 2
    assert workflow[Attr.ROLLUP_COST] == pytest.approx(sum(span[Attr.COST] for span in booked))


@pytest.mark.parametrize(("calls", "taken"), [(2, 360), (0, 720)])
def test_a_token_policy_counts_a_sum_once(calls: int, taken: int) -> None:
    """A result takes tokens of a policy where its calls have not taken them, and each result without calls does."""
    with fresh_recorder(), capture_records(Decision) as decisions:

        @observe_workflow("triage", policies=[MaxTokens(taken - 1)])
        def run() -> None:
            for _ in range(calls):
                record_llm_call(model="gpt-4o", usage=Usage(150, 30))
            for _ in range(1 if calls else 2):
                record_llm_call(model="gpt-4o", usage=SUM_A)

        run()
        (passed,) = [each for each in decisions if each.is_violation]
        assert passed.reason == f"{taken} tokens, allowed are {taken - 1}"
        assert len(decisions) == 2


def test_the_price_of_a_long_sum_is_partial(seen: Captured[Invocation]) -> None:
    """Where long calls have other rates, a sum that is long while its calls may be short is not priced in full."""
    usage = {"input_tokens": 300_000, "output_tokens": 10}
    summed = record_llm_call(model="gemini-2.5-pro", usage={**usage, "requests": 3})
    alone = record_llm_call(model="gemini-2.5-pro", usage=usage)
    short = record_llm_call(model="gemini-2.5-pro", usage={"input_tokens": 3_000, "output_tokens": 10, "requests": 3})
    assert all(one.cost for one in (summed, alone, short))
    assert [run.price_gap for run in seen] == ["summed", None, None]
