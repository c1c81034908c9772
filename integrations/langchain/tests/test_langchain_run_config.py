"""Metadata and tags of a run's configuration, and names for a graph's nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from taskpilot_obs_langchain import ObservabilityHandler

from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import capture_invocations, fresh_recorder


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def seen(spans: InMemorySpanExporter) -> Iterator[Sequence[Invocation]]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with fresh_recorder(tracer_provider=provider), capture_invocations() as found:
        yield found
    provider.shutdown()


@tool
def search(query: str) -> str:
    """Search."""
    return query


def test_metadata_and_tags_reach_records_and_spans(seen: Sequence[Invocation], spans: InMemorySpanExporter) -> None:
    """What the configuration says stands under a prefix on every run beneath, and nothing of the framework's own."""
    model = FakeListChatModel(responses=["yes"])
    chain: Any = RunnableLambda(lambda _: "q") | model | RunnableLambda(lambda _: search.invoke({"query": "x"}))
    config: Any = {
        "callbacks": [ObservabilityHandler(name="chain")],
        "metadata": {"experiment": "v2", "thread_id": "t", "count": 3},
        "tags": ["prod", "seq:step:99", "eu"],
    }
    chain.invoke("?", config=config)
    expected = {"langchain.metadata.experiment": "v2", "langchain.metadata.count": 3}
    assert sorted(run.name for run in seen) == ["", "chain", "search"]  # the fake model has no name
    for run in seen:
        kept = dict(run.attributes)
        assert kept.pop("langchain.tags") == "prod,eu"
        assert kept == expected
    for span in spans.get_finished_spans():
        attributes = span.attributes or {}
        assert attributes["taskpilot.attributes.langchain.metadata.experiment"] == "v2"
        assert attributes["taskpilot.attributes.langchain.tags"] == "prod,eu"


def test_without_metadata_nothing_is_added(seen: Sequence[Invocation]) -> None:
    """A run of which nothing is said has no attributes."""
    FakeListChatModel(responses=["yes"]).invoke("?", config={"callbacks": [ObservabilityHandler()]})
    assert [dict(run.attributes) for run in seen] == [{}]


class State(TypedDict):
    text: str


def graph() -> Any:
    builder = StateGraph(State)
    builder.add_node("plan", lambda state: state)
    builder.add_node("tools", lambda state: {"text": search.invoke({"query": state["text"]})})
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "tools")
    builder.add_edge("tools", END)
    return builder.compile()


def test_nodes_can_be_renamed_and_left_out(seen: Sequence[Invocation]) -> None:
    """A node gets the agent's name that the user gives it; one that is left out leaves its tools to the run above."""
    handler = ObservabilityHandler(name="graph", nodes={"plan": "planner", "tools": None})
    graph().invoke({"text": "x"}, config={"callbacks": [handler]})
    runs = {run.name: run for run in seen}
    assert set(runs) == {"graph", "planner", "search"}
    assert runs["search"].parent_id == runs["graph"].invocation_id
    assert (runs["search"].agent, runs["search"].workflow) == (None, "graph")


def test_nodes_keep_their_names_by_default(seen: Sequence[Invocation]) -> None:
    """Without an option each node is an agent of its own name."""
    graph().invoke({"text": "x"}, config={"callbacks": [ObservabilityHandler(name="graph")]})
    assert {run.name for run in seen} == {"graph", "plan", "tools", "search"}
