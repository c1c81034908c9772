"""The real Haystack against a provider on loopback: pipelines, agents, tools, ends of every kind, refusals."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from _bridged import openai_spans_bridged
from _provider import Provider, serving
from _runs import cancel_under_way, figures, table

from taskpilot_obs import observe_tool, track_workflow
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.integration import Recorder
from taskpilot_obs.records import Invocation
from taskpilot_obs.safety import DenyTools, DenyWords, check_with
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

if find_spec("haystack") is None:
    assert os.environ.get("TASKPILOT_OBS_FRAMEWORK") != "haystack", "haystack-ai is not installed"
    pytest.skip("haystack-ai is NOT INSTALLED: scripts/test_frameworks.sh haystack", allow_module_level=True)

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from haystack import Pipeline, tracing
from haystack.components.agents import Agent
from haystack.components.builders import ChatPromptBuilder
from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import FallbackChatGenerator, OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function
from haystack.utils import Secret
from taskpilot_obs_haystack import observe

pytestmark = pytest.mark.filterwarnings("ignore")  # Haystack's own
ran: list[str] = []


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """A provider that closes each connection, because Haystack leaves its clients to the garbage collector."""
    with serving() as server:
        handler: Any = server.RequestHandlerClass
        server.RequestHandlerClass = type("OneAnswer", (handler,), {"protocol_version": "HTTP/1.0"})
        yield server


@pytest.fixture(autouse=True)
def tracer(recorder: Recorder) -> Iterator[None]:
    observe()
    yield
    tracing.disable_tracing()


@observe_tool
def lookup(city: str) -> str:
    ran.append(city)
    return f"sunny in {city}"


def get_weather(city: str) -> str:
    """The weather of a city."""
    return lookup(city)


def broken(city: str) -> str:
    """Always fails."""
    raise LookupError(city)


def generator(provider: Provider, **options: Any) -> Any:
    key = Secret.from_token("x")
    return OpenAIChatGenerator(
        model="gpt-4o-mini", api_key=key, api_base_url=f"{provider.url}/v1", max_retries=0, **options
    )


def agent(provider: Provider, *functions: Any, **options: Any) -> Any:
    tools = [create_tool_from_function(function) for function in functions]
    return Agent(chat_generator=generator(provider), tools=tools, **options)


def said(text: str = "hi") -> list[Any]:
    return [ChatMessage.from_user(text)]


def calls(seen: Captured[Invocation]) -> list[Invocation]:
    return [run for run in seen if run.operation.value == "chat"]


def test_an_agent(provider: Provider, seen: Captured[Invocation]) -> None:
    """The agent above its calls and its tool, the decorated function beneath the tool; right figures and sums."""
    agent(provider, get_weather).run(messages=said())
    model = "gpt-4o-mini-2024-07-18"
    names = [(model if run == "chat" else run, above) for run, above, _ in table(seen)]
    assert [above for _, above in names] == [None, "Agent", "Agent", "get_weather", "Agent"]
    assert {status for _, _, status in table(seen)} == {"success"}
    assert [figures(run) for run in calls(seen)] == [(100, 20, 40, 8)] * 2
    assert all(run.cost is not None and run.provider == "openai" for run in calls(seen))
    (top,) = [run for run in seen if run.name == "Agent"]
    assert top.rollup is not None
    assert (top.rollup.llm_calls, top.rollup.input_tokens) == (2, 200)


def test_an_asynchronous_agent(provider: Provider, seen: Captured[Invocation]) -> None:
    """Ten at once: twenty calls, each beneath its own agent."""

    async def crowd() -> None:
        await asyncio.gather(*(agent(provider, get_weather).run_async(messages=said()) for _ in range(10)))

    asyncio.run(crowd())
    assert len(calls(seen)) == 20
    assert sorted(run.rollup.llm_calls for run in seen if run.name == "Agent" and run.rollup) == [2] * 10


def test_a_pipeline(provider: Provider, seen: Captured[Invocation]) -> None:
    """A pipeline is a workflow beneath the decorated one; generators are calls, other components have no record."""
    pipeline = Pipeline(metadata={"name": "answering"})
    pipeline.add_component("builder", ChatPromptBuilder(template=said("{{ question }}"), required_variables="*"))
    pipeline.add_component("llm", generator(provider))
    pipeline.connect("builder.prompt", "llm.messages")
    with track_workflow("outer"):
        pipeline.run({"builder": {"question": "why"}})
    found = table(seen)
    assert [(above, status) for _, above, status in found] == [
        (None, "success"),
        ("outer", "success"),
        ("answering", "success"),
    ]
    assert figures(calls(seen)[0]) == (100, 20, 40, 8)


def test_an_agent_in_a_pipeline_has_its_components_name(provider: Provider, seen: Captured[Invocation]) -> None:
    """Nested: pipeline, agent by the component's name, call; the asynchronous pipeline as well."""
    pipeline = Pipeline(metadata={"name": "support"})
    pipeline.add_component("planner", agent(provider))
    pipeline.run({"planner": {"messages": said()}})
    asyncio.run(pipeline.run_async({"planner": {"messages": said()}}))
    assert [(above, status) for _, above, status in table(seen)] == [
        (None, "success"),
        ("support", "success"),
        ("planner", "success"),
    ] * 2


def test_a_generator_within_a_generator_is_one_call(provider: Provider, seen: Captured[Invocation]) -> None:
    """The component that tries generators one after the other is not a second call."""
    pipeline = Pipeline()
    pipeline.add_component("llm", FallbackChatGenerator([generator(provider)]))
    pipeline.run({"llm": {"messages": said()}})
    assert [figures(run) for run in calls(seen)] == [(100, 20, 40, 8)]


def test_embeddings(provider: Provider, seen: Captured[Invocation]) -> None:
    """An embedder is a call for embeddings, with its tokens."""
    pipeline = Pipeline()
    url, key = f"{provider.url}/v1", Secret.from_token("x")
    pipeline.add_component(
        "embedder", OpenAITextEmbedder(model="text-embedding-3-small", api_base_url=url, api_key=key)
    )
    pipeline.run({"embedder": {"text": "hi"}})
    (run,) = [run for run in seen if run.operation.value == "embeddings"]
    assert (run.usage is not None and run.usage.input_tokens, run.cost is not None) == (7, True)


@pytest.mark.parametrize("stated", [True, False])
def test_a_stream(stated: bool, provider: Provider, seen: Captured[Invocation]) -> None:
    """A stream has its first token; its usage is what the provider states, or unknown."""
    options = {"stream_options": {"include_usage": True}} if stated else {}
    pieces: list[Any] = []
    made = Agent(chat_generator=generator(provider, generation_kwargs=options), streaming_callback=pieces.append)
    made.run(messages=said())
    (run,) = calls(seen)
    assert len(pieces) > 2
    assert figures(run) == ((100, 20, 40, 8) if stated else None)
    assert (run.streaming, run.ttft_s is not None) == (True, True)


def test_a_stream_that_is_left(provider: Provider, seen: Captured[Invocation]) -> None:
    """Haystack cancels a pipeline whose stream is left; its runs are cancelled, and nothing stays open."""
    pipeline = Pipeline(metadata={"name": "support"})
    pipeline.add_component("planner", Agent(chat_generator=generator(provider)))

    async def read_in_part() -> None:
        async for _ in pipeline.stream({"planner": {"messages": said("SLOW")}}):
            break

    asyncio.run(read_in_part())
    gc.collect()
    assert [status for _, _, status in table(seen)] == ["cancelled"] * 3


def test_a_stream_that_is_left_by_its_callback(provider: Provider, seen: Captured[Invocation]) -> None:
    """A callback leaves a stream by an exception: the call fails with it, and what is above fails with Haystack's."""

    class EnoughError(Exception):
        """The application has read enough."""

    def leave(piece: Any) -> None:
        raise EnoughError

    made = Agent(chat_generator=generator(provider), streaming_callback=leave)
    with pytest.raises(EnoughError):
        made.run(messages=said())
    gc.collect()
    assert [status for _, _, status in table(seen)] == ["error"] * 2
    assert {str(run.error_type).rpartition(".")[2] for run in seen} == {"EnoughError"}


def test_failed(provider: Provider, seen: Captured[Invocation]) -> None:
    """A failed call fails its agent and its pipeline, each with the class of its exception."""
    pipeline = Pipeline(metadata={"name": "support"})
    pipeline.add_component("planner", agent(provider))
    with pytest.raises(Exception, match="boom"):
        pipeline.run({"planner": {"messages": said("FAIL")}})
    assert {status for _, _, status in table(seen)} == {"error"}
    assert calls(seen)[0].error_type == "openai.InternalServerError"


def test_a_tool_that_fails_is_an_error(provider: Provider, seen: Captured[Invocation]) -> None:
    """Haystack makes a message of a tool's exception; the tool is an error, and its agent goes on."""
    agent(provider, broken).run(messages=said())
    found = {name: status for name, _, status in table(seen)}
    assert (found["broken"], found["Agent"]) == ("error", "success")


def test_cancelled(provider: Provider, seen: Captured[Invocation]) -> None:
    """A cancelled agent and its call are cancelled; nothing stays open."""
    asyncio.run(cancel_under_way(provider, agent(provider).run_async(messages=said("HANG"))))
    assert {status for _, _, status in table(seen)} == {"cancelled"}
    assert len(calls(seen)) == 1


@pytest.mark.parametrize("is_async", [True, False])
def test_a_refused_tool_does_not_run(is_async: bool, provider: Provider) -> None:
    """A policy in enforce mode refuses before the tool runs; tool and agent are blocked."""
    ran.clear()
    with fresh_recorder(policies=[DenyTools(["get_weather"])], mode="enforce") as fresh:
        made = agent(provider, get_weather)

        def work() -> None:
            asyncio.run(made.run_async(messages=said())) if is_async else made.run(messages=said())

        with capture_invocations(fresh) as seen, pytest.raises(PolicyViolationError):
            work()
        found = {name: status for name, _, status in table(seen)}
    assert ran == []
    assert (found["get_weather"], found["Agent"]) == ("blocked", "blocked")


def test_a_refused_call_is_not_sent(provider: Provider) -> None:
    """A refusal in a pipeline is the cause of Haystack's exception; call, agent and pipeline are blocked."""
    before = len(provider.calls)
    pipeline = Pipeline(metadata={"name": "support"})
    pipeline.add_component("planner", agent(provider))
    with fresh_recorder(policies=[DenyWords(["forbidden"])], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(Exception, match="denied word"):
            pipeline.run({"planner": {"messages": said("forbidden")}})
        assert {status for _, _, status in table(seen)} == {"blocked"}
    assert len(provider.calls) == before


def test_an_output_is_withheld(provider: Provider) -> None:
    """A guardrail in enforce mode withholds what a model answered; its tokens are booked."""
    with fresh_recorder(guardrails=[check_with(DenyWords(["sunny"]), stages="output")], mode="enforce") as fresh:
        with capture_invocations(fresh) as seen, pytest.raises(Exception, match="blocked the output"):
            agent(provider).run(messages=said())
        assert [figures(run) for run in calls(seen)] == [(100, 20, 40, 8)]
        assert {status for _, _, status in table(seen)} == {"blocked"}


def test_the_bridge_beside_it_adds_no_record(
    provider: Provider, recorder: Recorder, seen: Captured[Invocation]
) -> None:
    """OpenAI's instrumentor sees each call as well; each is one record."""
    with openai_spans_bridged(recorder):
        agent(provider, get_weather).run(messages=said())
    assert len(calls(seen)) == 2
