"""What the handler makes current, and that it leaves nothing behind: spans, context variables, log lines."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from _langchain_models import Model, asks_for
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import set_config_context
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from taskpilot_obs_langchain import ObservabilityHandler, observe_langchain

from taskpilot_obs import get_request_id, observe_tool
from taskpilot_obs._recording.current_run import current_run
from taskpilot_obs._recording.invocation import current_running
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs._recording.scope import current_scope
from taskpilot_obs.semconv import Attr
from taskpilot_obs.testing import fresh_recorder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of langgraph's own, about its own

ASK: Any = {"messages": [("user", "hello")]}


class Spans:
    """The spans that have ended, by name."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application's")

    def __getitem__(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return found

    def names(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]

    def above(self, name: str) -> str | None:
        """The name of the span around a span."""
        parent = self[name].parent
        by_id = {span.context.span_id: span.name for span in self.exporter.get_finished_spans() if span.context}
        return None if parent is None else by_id[parent.span_id]


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture(autouse=True)
def traced(spans: Spans, caplog: pytest.LogCaptureFixture) -> Iterator[Recorder]:
    """A recorder that traces; afterwards nothing is current, and OpenTelemetry has complained about nothing."""
    with fresh_recorder(tracer_provider=spans.provider) as recorder:
        yield recorder
    gc.collect()
    nothing_is_current()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def nothing_is_current() -> None:
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert (current_running.get(), current_scope.get(), current_run(), get_request_id()) == (
        None,
        None,
        None,
        None,
    )


def config(**more: Any) -> Any:
    return {"callbacks": [ObservabilityHandler()], **more}


def chain(spans: Spans, *steps: Any) -> Any:
    """A chain whose model and steps make spans of the application."""

    class Client(Model):
        def _generate(self, *given: Any, **more: Any) -> Any:
            with spans.tracer.start_as_current_span("http"):
                return super()._generate(*given, **more)

    made: Any = ChatPromptTemplate.from_template("Say {what}") | Client() | StrOutputParser()
    for step in steps:
        made |= step
    return made


def test_a_chain_makes_two_spans(spans: Spans) -> None:
    """The chain's span is around that of its model, with what the conventions ask for on each."""
    chain(spans).invoke({"what": "hello"}, config(run_name="greet"))
    assert spans.above("chat gpt-4o-mini") == "invoke_workflow greet"
    assert spans.above("invoke_workflow greet") is None
    attributes = dict(spans["chat gpt-4o-mini"].attributes or {})
    assert attributes[Attr.PROVIDER] == "openai"
    assert attributes[Attr.RESPONSE_MODEL] == "gpt-4o-mini-2024-07-18"
    assert (attributes[Attr.INPUT_TOKENS], attributes[Attr.OUTPUT_TOKENS]) == (150, 50)
    assert (attributes[Attr.REQUEST_TEMPERATURE], attributes[Attr.REQUEST_MAX_TOKENS]) == (0.5, 99)
    assert spans["chat gpt-4o-mini"].kind is trace.SpanKind.CLIENT


def test_a_clients_span_is_within_the_models(spans: Spans) -> None:
    """What an instrumented client does while a model is invoked belongs to the model's span."""
    chain(spans).invoke({"what": "hello"}, config())
    assert spans.above("http") == "chat gpt-4o-mini"


class Thorough(Model):
    """States why it stopped in two ways, which is more than the quick reader takes."""

    def _next(self) -> AIMessage:
        message = super()._next()
        message.response_metadata["stop_reason"] = "end_turn"
        return message


def test_an_answer_that_is_not_plain_is_on_the_span_as_well(spans: Spans) -> None:
    """What only the general reader knows is read before the span ends."""
    Thorough().invoke("hello", config())
    attributes = spans["chat gpt-4o-mini"].attributes or {}
    assert (attributes[Attr.INPUT_TOKENS], attributes[Attr.OUTPUT_TOKENS]) == (150, 50)
    assert attributes[Attr.RESPONSE_MODEL] == "gpt-4o-mini-2024-07-18"


def test_a_langchain_context_without_a_run_runs_nothing(spans: Spans) -> None:
    """Where LangChain's context holds callbacks and no run yet, a decorated function is what runs, beneath nothing."""

    @observe_tool
    def look() -> str | None:
        run = current_run()
        return None if run is None else run.name

    with set_config_context(config()) as inside:
        assert inside.run(look) == "look"
    assert spans.names() == ["execute_tool look"]


def test_a_users_span_between_two_runs_stays_between(spans: Spans) -> None:
    """A span of the application around a chain within a chain is between the two in the trace."""

    def inner(what: str) -> str:
        with spans.tracer.start_as_current_span("between"):
            return str(Model().invoke(what).content)

    RunnableLambda(inner).invoke("hello", config(run_name="outer"))
    assert spans.above("chat gpt-4o-mini") == "between"
    assert spans.above("between") == "invoke_workflow outer"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_tools_span_is_current_in_the_tool(spans: Spans, is_async: bool) -> None:
    """What a tool does belongs to the tool's span, in both worlds, and the span tells the call that asked for it."""

    @tool
    def look() -> str:
        """Look."""
        with spans.tracer.start_as_current_span("query"):
            return "it"

    @tool("look")
    async def look_async() -> str:
        """Look."""
        with spans.tracer.start_as_current_span("query"):
            return "it"

    tools = [look_async if is_async else look]
    agent = create_agent(Model(answers=[asks_for("look"), "it"]), tools, name="Looker")
    if is_async:
        asyncio.run(agent.ainvoke(ASK, config()))
    else:
        agent.invoke(ASK, config())
    assert spans.above("query") == "execute_tool look"
    assert spans.above("execute_tool look") == "invoke_agent Looker"
    attributes = dict(spans["execute_tool look"].attributes or {})
    assert (attributes[Attr.TOOL_TYPE], attributes[Attr.TOOL_CALL_ID]) == ("function", "call_1")


def test_a_retriever_is_a_tool_of_type_datastore(spans: Spans) -> None:
    """A retriever's span says `datastore`."""

    class Shelf(BaseRetriever):
        def _get_relevant_documents(self, query: str, **_: Any) -> list[Any]:
            return []

    Shelf().invoke("any", config())
    asyncio.run(Shelf().ainvoke("any", config(run_name="Other")))
    assert dict(spans["execute_tool Shelf"].attributes or {})[Attr.TOOL_TYPE] == "datastore"


def test_the_thread_is_the_conversation(spans: Spans) -> None:
    """LangGraph's thread is `gen_ai.conversation.id` on every span of the run; there is none without a thread."""

    def node(state: MessagesState) -> Any:
        return {"messages": [Model().invoke("hello")]}

    graph: Any = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()
    graph.invoke(ASK, config(configurable={"thread_id": "t-1"}))
    ended = spans.exporter.get_finished_spans()
    assert [dict(span.attributes or {})[Attr.CONVERSATION_ID] for span in ended] == ["t-1"] * 3
    spans.exporter.clear()
    graph.invoke(ASK, config())
    assert not any(Attr.CONVERSATION_ID in (span.attributes or {}) for span in spans.exporter.get_finished_spans())


def test_within_a_users_span_all_is_one_trace(spans: Spans) -> None:
    """Beneath a span of the application, every run of a chain belongs to its trace, in both worlds."""

    async def run() -> None:
        with spans.tracer.start_as_current_span("request"):
            await chain(spans).ainvoke({"what": "hello"}, config(run_name="greet"))
            async for _ in chain(spans).astream({"what": "hello"}, config(run_name="greet again")):
                pass

    asyncio.run(run())
    assert spans.above("invoke_workflow greet") == "request"
    assert spans.above("invoke_workflow greet again") == "request"
    assert len({span.context.trace_id for span in spans.exporter.get_finished_spans() if span.context}) == 1


def test_between_two_chunks_nothing_is_current(spans: Spans) -> None:
    """A consumer of a stream stands outside of it, whatever runs within, and so after leaving it."""
    stream = chain(spans).stream({"what": "hello"}, config())
    for _ in stream:
        nothing_is_current()
    left = chain(spans).stream({"what": "hello"}, config())
    next(left)
    left.close()
    nothing_is_current()

    async def consume() -> None:
        async for _ in chain(spans).astream({"what": "hello"}, config()):
            nothing_is_current()
        async for _ in chain(spans).astream({"what": "hello"}, config()):
            break
        nothing_is_current()

    asyncio.run(consume())


def test_nothing_stays_current_after_a_failure(spans: Spans) -> None:
    """A chain that fails leaves nothing current, and its spans say what failed without saying the words."""
    failing = ChatPromptTemplate.from_template("{what}") | Model(answers=[ValueError("secret")])
    with pytest.raises(ValueError, match="secret"):
        failing.invoke({"what": "hello"}, config())
    nothing_is_current()
    for span in spans.exporter.get_finished_spans():
        assert span.status.status_code is trace.StatusCode.ERROR
        assert "secret" not in span.to_json()


def test_several_prompts_at_once_leave_nothing(spans: Spans) -> None:
    """A batch, and a model asked several prompts in one breath, begin all runs before they end the first."""
    chain(spans).batch([{"what": "one"}, {"what": "two"}], config())
    with observe_langchain():
        Model().generate([[HumanMessage("one")], [HumanMessage("two")]])
    nothing_is_current()
    assert spans.names().count("chat gpt-4o-mini") == 4


def test_an_asynchronous_run_leaves_nothing_in_its_task(spans: Spans) -> None:
    """After `ainvoke`, in the same task, nothing is current, though LangChain ended the run in another context."""

    async def run() -> None:
        await chain(spans).ainvoke({"what": "hello"}, config())
        nothing_is_current()

        @tool
        async def look() -> str:
            """Look."""
            return "it"

        await look.ainvoke({}, config())
        nothing_is_current()
        await create_agent(Model(), [], name="Agent").ainvoke(ASK, config())
        nothing_is_current()

    asyncio.run(run())
