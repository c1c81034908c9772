"""The handler on chains: what becomes of each kind of run, in every way to run it."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from copy import deepcopy
from typing import Any
from uuid import UUID, uuid4

import pytest
from _handlers import handlers_forget
from _langchain_models import COST, Model, asks_for
from _runs import told
from langchain_core.caches import InMemoryCache
from langchain_core.documents import Document
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import ToolException, tool
from taskpilot_obs_langchain import ObservabilityHandler, observe_langchain, opening
from taskpilot_obs_langchain.runs import runs_of

from taskpilot_obs import observe_agent, observe_workflow, track_workflow
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.config import build_recorder
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.testing import Captured, capture_invocations
from taskpilot_obs.usage import Usage

Chain = Runnable[Any, str]
Seen = Captured[Invocation]


def chain(model: Any = None) -> Chain:
    return ChatPromptTemplate.from_template("Say {what}") | (model or Model()) | StrOutputParser()


def config(handler: ObservabilityHandler | None = None, **more: Any) -> Any:
    return {"callbacks": [handler or ObservabilityHandler()], **more}


nothing_stays = pytest.fixture(autouse=True)(handlers_forget)


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    """LangChain's cache of answers."""
    kept = InMemoryCache()
    set_llm_cache(kept)
    yield kept
    set_llm_cache(None)


# --- one chain, every way to run it -----------------------------------------------------------------------------------


async def ainvoke(runnable: Chain, given: Any, how: Any) -> None:
    await runnable.ainvoke(given, how)


async def astream(runnable: Chain, given: Any, how: Any) -> None:
    async for _ in runnable.astream(given, how):
        pass


async def astream_events(runnable: Chain, given: Any, how: Any) -> None:
    async for _ in runnable.astream_events(given, how, version="v2"):
        pass


WAYS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "invoke": lambda runnable, given, how: runnable.invoke(given, how),
    "stream": lambda runnable, given, how: list(runnable.stream(given, how)),
    "batch": lambda runnable, given, how: runnable.batch([given], how),
    "ainvoke": lambda runnable, given, how: asyncio.run(ainvoke(runnable, given, how)),
    "astream": lambda runnable, given, how: asyncio.run(astream(runnable, given, how)),
    "astream_events": lambda runnable, given, how: asyncio.run(astream_events(runnable, given, how)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_chain_is_a_workflow_with_an_llm_call(seen: Seen, way: str) -> None:
    """Prompt, parser and sequence are plumbing; the chain is one task, its model one priced call beneath it."""
    WAYS[way](chain(), {"what": "hello"}, config(run_name="greet"))
    assert told(seen) == [("chat", "gpt-4o-mini", "success"), ("invoke_workflow", "greet", "success")]
    call, task = seen
    assert call.parent_id == task.invocation_id
    assert (call.workflow, call.provider, call.response_model) == ("greet", "openai", "gpt-4o-mini-2024-07-18")
    assert call.usage == Usage(150, 50)
    assert call.cost is not None
    assert float(call.cost) == pytest.approx(COST)
    assert task.is_task
    assert task.rollup is not None
    assert task.rollup.cost == call.cost
    assert call.streaming is ("stream" in way)
    assert call.cached is None


@pytest.mark.parametrize("way", WAYS)
def test_a_failing_model_fails_its_chain(seen: Seen, way: str) -> None:
    """The user's exception passes as the same object; model and task end as errors that name its class."""
    error = ConnectionError("refused")
    with pytest.raises(ConnectionError) as raised:
        WAYS[way](chain(Model(answers=[error])), {"what": "hello"}, config())
    assert raised.value is error
    assert [(run.status, run.error_type) for run in seen] == [(Status.ERROR, "ConnectionError")] * 2
    assert seen[0].error_category == "connection"
    assert seen[0].cost is None
    assert seen[0].usage is None


def test_metadata_of_the_users_own_changes_nothing(seen: Seen) -> None:
    """Metadata that a user hands to a chain reaches its steps too, which are plumbing as ever."""
    chain().invoke({"what": "hello"}, config(metadata={"team": "billing"}))
    assert told(seen) == [("chat", "gpt-4o-mini", "success"), ("invoke_workflow", "RunnableSequence", "success")]


def test_a_batch_is_as_many_tasks_as_inputs(seen: Seen) -> None:
    """Each input of a batch is a task with its own LLM call beneath it."""
    chain().batch([{"what": str(number)} for number in range(5)], config())
    tasks = {run.invocation_id for run in seen if run.is_task}
    assert len(tasks) == 5
    assert {run.parent_id for run in seen if not run.is_task} == tasks


def test_the_caller_says_what_the_root_is(seen: Seen) -> None:
    """`root="agent"` makes the outermost run an agent, and `name` names it; anything else is refused at once."""
    chain().invoke({"what": "hello"}, config(ObservabilityHandler(root="agent", name="Greeter")))
    assert told(seen)[1] == ("invoke_agent", "Greeter", "success")
    assert seen[0].agent == "Greeter"
    assert seen[1].is_task
    with pytest.raises(ValueError, match="'task'"):
        ObservabilityHandler(root="task")  # type: ignore[arg-type]  # what is being tested


def test_a_model_on_its_own_is_an_llm_call(seen: Seen) -> None:
    """A model that no chain surrounds is an LLM call without a task."""
    Model().invoke("hello", config())
    assert told(seen) == [("chat", "gpt-4o-mini", "success")]
    assert seen[0].input_length == 5
    assert seen[0].output_length == len("An answer.")


def test_a_model_that_completes_text_is_an_llm_call(seen: Seen) -> None:
    """Models without chat are LLM calls too; one that states no usage has unknown usage."""
    FakeListLLM(responses=["Yes."]).invoke("hello", config())
    assert (seen[0].operation.value, seen[0].usage, seen[0].is_usage_missing) == ("chat", None, True)
    assert seen[0].input_length == 5


# --- within recorded runs ---------------------------------------------------------------------------------------------


def test_within_a_workflow_the_chain_makes_no_second_task(seen: Seen) -> None:
    """Beneath a decorated workflow or agent the chain's root is plumbing: its call belongs to the nearest run."""

    @observe_agent("Writer")
    def write() -> str:
        return chain().invoke({"what": "hello"}, config())

    @observe_workflow("report")
    def report() -> str:
        return write()

    report()
    assert told(seen) == [
        ("chat", "gpt-4o-mini", "success"),
        ("invoke_agent", "Writer", "success"),
        ("invoke_workflow", "report", "success"),
    ]
    assert (seen[0].agent, seen[0].workflow, seen[0].parent_id) == ("Writer", "report", seen[1].invocation_id)
    assert [run.is_task for run in seen] == [False, False, True]


def test_within_a_workflow_the_caller_may_still_say(seen: Seen) -> None:
    """With `root="agent"` the chain within a workflow is an agent of it."""
    with track_workflow("report"):
        chain().invoke({"what": "hello"}, config(ObservabilityHandler(root="agent", name="Writer")))
    assert told(seen)[1:] == [("invoke_agent", "Writer", "success"), ("invoke_workflow", "report", "success")]
    assert [run.is_task for run in seen] == [False, False, True]


@pytest.mark.parametrize("way", WAYS)
def test_decorated_functions_within_a_chain_belong_to_it(seen: Seen, way: str) -> None:
    """A decorated function that a chain calls is beneath the chain, and a chain that it calls is beneath it."""

    @observe_agent("Inner")
    def inner(what: str) -> str:
        return chain().invoke({"what": what})

    WAYS[way](RunnableLambda(inner), "hello", config(run_name="outer"))
    assert told(seen) == [
        ("chat", "gpt-4o-mini", "success"),
        ("invoke_agent", "Inner", "success"),
        ("invoke_workflow", "outer", "success"),
    ]
    call, agent, task = seen
    assert (call.parent_id, agent.parent_id) == (agent.invocation_id, task.invocation_id)
    assert (call.agent, call.workflow, call.request_id) == ("Inner", "outer", task.request_id)


def test_handler_in_constructor_and_config_counts_once(seen: Seen) -> None:
    """One handler in two places, two handlers, and one given twice: each run is recorded once."""
    handler = ObservabilityHandler()
    model = Model(callbacks=[handler])
    chain(model).invoke({"what": "hello"}, config(handler))
    assert len(seen) == 2
    chain(Model(callbacks=[ObservabilityHandler()])).invoke({"what": "hello"}, config())
    assert len(seen) == 4
    chain().invoke({"what": "hello"}, {"callbacks": [handler, handler]})
    assert len(seen) == 6
    assert {run.status for run in seen} == {Status.SUCCESS}


def test_a_block_observes_all_that_begins_in_it(seen: Seen) -> None:
    """`observe_langchain()` needs no call site touched, adds nothing to a handler given, and ends with its block."""
    with observe_langchain(name="greet"):
        chain().invoke({"what": "hello"})
        chain().invoke({"what": "hello"}, config(run_name="own"))
        asyncio.run(ainvoke(chain(), {"what": "hello"}, {}))
    chain().invoke({"what": "hello"})
    assert [run.name for run in seen if run.is_task] == ["greet", "own", "greet"]
    assert len(seen) == 6


# --- tools and retrievers ---------------------------------------------------------------------------------------------


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    if a < 0:
        raise ToolException("too small")
    return a + b


def test_a_tool_is_a_tool_call(seen: Seen) -> None:
    """A tool's run is a tool call, successful or failed with its exception."""
    add.invoke({"a": 1, "b": 2}, config())
    with pytest.raises(ToolException):
        add.invoke({"a": -1, "b": 2}, config())
    asyncio.run(add.ainvoke({"a": 1, "b": 2}, config()))
    assert told(seen) == [
        ("execute_tool", "add", "success"),
        ("execute_tool", "add", "error"),
        ("execute_tool", "add", "success"),
    ]
    assert seen[1].error_type == "langchain_core.tools.base.ToolException"


def test_a_tool_that_answers_with_its_error_has_failed(seen: Seen) -> None:
    """A tool that turns its exception into a message for the model has failed all the same."""
    careful = add.model_copy(update={"handle_tool_error": True})
    careful.invoke({"name": "add", "args": {"a": -1, "b": 2}, "id": "call_1", "type": "tool_call"}, config())
    assert told(seen) == [("execute_tool", "add", "error")]


class Shelf(BaseRetriever):
    """A retriever with one book."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        if query == "none":
            raise LookupError(query)
        return [Document("A book.")]


def test_a_retriever_is_a_tool(seen: Seen) -> None:
    """A retriever's run is a tool call under its name, in both worlds."""
    Shelf().invoke("any", config())
    asyncio.run(Shelf().ainvoke("any", config()))
    with pytest.raises(LookupError):
        Shelf().invoke("none", config())
    assert told(seen) == [
        ("execute_tool", "Shelf", "success"),
        ("execute_tool", "Shelf", "success"),
        ("execute_tool", "Shelf", "error"),
    ]


# --- usage ------------------------------------------------------------------------------------------------------------


def test_the_cache_of_langchain_makes_hits_and_misses(seen: Seen, cache: InMemoryCache) -> None:
    """A first answer is a miss; its repetition a hit, with neither tokens nor cost; a stream asks no cache."""
    chain().invoke({"what": "hello"}, config())
    chain().invoke({"what": "hello"}, config())
    list(chain().stream({"what": "hello"}, config()))
    asyncio.run(ainvoke(chain(), {"what": "hello"}, config()))
    calls = [run for run in seen if not run.is_task]
    assert [run.cached for run in calls] == [False, True, None, True]
    assert [run.usage for run in calls] == [Usage(150, 50), None, Usage(150, 50), None]
    assert [run.cost is None for run in calls] == [False, True, False, True]
    assert not calls[1].is_unpriced
    assert not calls[1].is_usage_missing


def test_several_generations_count_once(seen: Seen) -> None:
    """With n > 1 each generation repeats the usage of the whole call: it is booked once."""
    usage: Any = {"input_tokens": 10, "output_tokens": 30, "total_tokens": 40}
    generations = [ChatGeneration(message=AIMessage("x", usage_metadata=usage)) for _ in range(3)]
    handler, run_id = ObservabilityHandler(), uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run_id)
    handler.on_llm_end(LLMResult(generations=[[*generations]]), run_id=run_id)
    assert seen[0].usage == Usage(10, 30)


def test_an_empty_answer_has_unknown_usage(seen: Seen) -> None:
    """No generation, or one without usage: unknown, and counted as such, never 0."""
    for result in (LLMResult(generations=[]), LLMResult(generations=[[ChatGeneration(message=AIMessage("x"))]])):
        handler, run_id = ObservabilityHandler(), uuid4()
        handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run_id)
        handler.on_llm_end(result, run_id=run_id)
    assert [(run.usage, run.is_usage_missing) for run in seen] == [(None, True)] * 2


def test_retries_are_counted_on_their_call(seen: Seen) -> None:
    """Each retry that LangChain reports counts once, however many handlers see it; the request is one."""
    handlers = [ObservabilityHandler(), ObservabilityHandler()]
    run_id, usual = uuid4(), LLMResult(generations=[])
    for handler in handlers:
        handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run_id)
    for handler in handlers:
        handler.on_retry(None, run_id=run_id)
        handler.on_retry(None, run_id=run_id)
    for handler in handlers:
        handler.on_llm_end(usual, run_id=run_id)
    assert [run.retries for run in seen] == [2]


def test_the_newer_way_of_streaming_shows_its_first_token(seen: Seen) -> None:
    """`on_stream_event` marks the first token with the first content, not with the message's start."""
    handler, run_id = ObservabilityHandler(), uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run_id)
    handler.on_stream_event({"event": "message-start"}, run_id=run_id)
    assert handler._runs.silent
    handler.on_stream_event({"event": "content-block-delta"}, run_id=run_id)
    handler.on_stream_event({"event": "content-block-delta"}, run_id=run_id)
    handler.on_llm_end(LLMResult(generations=[]), run_id=run_id)
    assert seen[0].ttft_s is not None
    assert seen[0].streaming


# --- ends that come late, twice or never ------------------------------------------------------------------------------


def test_a_stream_that_is_left_is_abandoned(seen: Seen) -> None:
    """A consumer that stops reading abandons task and call, by `close` or by dropping the generator.

    LangChain then reads the rest of the model's stream by itself: what that call took is known, and booked.
    """
    for leave in (lambda stream: stream.close(), lambda stream: None):
        stream = chain(Model(answers=["a b c d"])).stream({"what": "hello"}, config())
        next(stream)
        leave(stream)
        del stream
        gc.collect()
    assert told(seen) == 2 * [
        ("invoke_workflow", "RunnableSequence", "abandoned"),
        ("chat", "gpt-4o-mini", "abandoned"),
    ]
    assert all(call.usage is not None and call.cost is not None for call in seen if not call.is_task)


def test_a_models_stream_that_is_left_is_abandoned(seen: Seen) -> None:
    """A model's own stream, left by its consumer, is an abandoned call."""
    stream: Any = Model(answers=["a b c d"]).stream("hello", config())
    next(stream)
    stream.close()
    assert told(seen) == [("chat", "gpt-4o-mini", "abandoned")]
    assert seen[0].ttft_s is not None
    assert seen[0].usage is None


def test_an_asynchronous_stream_that_is_left_is_abandoned(seen: Seen) -> None:
    """A model's asynchronous stream, closed or left to the event loop, is an abandoned call."""

    async def leave(close: bool) -> None:
        stream: Any = chain(Model(answers=["a b c d"])).astream({"what": "hello"}, config())
        async for _ in stream:
            break
        if close:
            await stream.aclose()

    for close in (True, False):
        asyncio.run(leave(close))
        gc.collect()
    assert len(seen) == 4
    assert {run.status for run in seen} <= {Status.ABANDONED, Status.CANCELLED}
    assert [run.status for run in seen if run.is_task] == [Status.ABANDONED] * 2


def test_a_cancelled_task_is_cancelled(seen: Seen) -> None:
    """Cancelling the asyncio task cancels the recorded task and the call beneath it."""

    async def cancel() -> None:
        running = asyncio.create_task(chain(Model(hangs=True)).ainvoke({"what": "hello"}, config()))
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    assert [run.status for run in seen] == [Status.CANCELLED] * 2


def test_a_deep_copy_of_a_model_is_recorded_too(seen: Seen) -> None:
    """A handler within a model does not stand in the way of copying it; the copy's calls are recorded, once."""
    model = Model(callbacks=[ObservabilityHandler()])
    deepcopy(model).invoke("hello")
    model.model_copy(deep=True).invoke("hello", config={"callbacks": model.callbacks})
    assert told(seen) == [("chat", "gpt-4o-mini", "success")] * 2


def test_a_run_that_never_ends_leaves_nothing(seen: Seen) -> None:
    """When LangChain drops a run without a word, its invocation ends as abandoned and its entry is gone."""
    handler, run_id = ObservabilityHandler(), uuid4()
    handler.on_chain_start(None, {}, run_id=run_id, name="lost")
    handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=(call_id := uuid4()), parent_run_id=run_id)
    del run_id, call_id
    gc.collect()
    assert {(run.operation.value, run.status.value) for run in seen} == {
        ("chat", "abandoned"),
        ("invoke_workflow", "abandoned"),
    }


def test_ends_without_a_start_are_harmless(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """Ends without a start, repeated ends, tokens of unknown runs: nothing is recorded, raised or logged."""
    handler, run_id, nothing = ObservabilityHandler(), uuid4(), LLMResult(generations=[])
    for _ in range(2):
        handler.on_chain_end({}, run_id=run_id)
        handler.on_chain_error(ValueError(), run_id=run_id)
        handler.on_llm_new_token("x", run_id=run_id)
        handler.on_stream_event({"event": "content-block-delta"}, run_id=run_id)
        handler.on_retry(None, run_id=run_id)
        handler.on_llm_end(nothing, run_id=run_id)
        handler.on_llm_error(ValueError(), run_id=run_id)
        handler.on_tool_end("x", run_id=run_id)
        handler.on_tool_error(ValueError(), run_id=run_id)
        handler.on_retriever_end([], run_id=run_id)
        handler.on_retriever_error(ValueError(), run_id=run_id)
    handler.on_chain_start(None, {}, run_id=run_id, name="one")
    handler.on_chain_error(ValueError(), run_id=run_id)
    handler.on_chain_end({}, run_id=run_id)
    assert told(seen) == [("invoke_workflow", "one", "error")]
    assert caplog.records == []


def test_an_unknown_parent_makes_a_root(seen: Seen) -> None:
    """A run whose parent was not seen is a root."""
    handler, parent_id, run_id = ObservabilityHandler(), uuid4(), uuid4()
    handler.on_chain_start(None, {}, run_id=run_id, parent_run_id=parent_id, name="one")
    handler.on_chain_end({}, run_id=run_id)
    assert told(seen) == [("invoke_workflow", "one", "success")]
    assert seen[0].parent_id is None


def test_what_ends_in_plumbing_ends_beneath_it_only(seen: Seen) -> None:
    """A step that is cancelled cancels the calls of its own; what begins in a step of an ended chain stands alone."""
    handler = ObservabilityHandler()
    root, one, other, first, second, late = (uuid4() for _ in range(6))
    handler.on_chain_start(None, {}, run_id=root, name="chain")
    for step, call in ((one, first), (other, second)):
        handler.on_chain_start(None, {}, run_id=step, parent_run_id=root, name="step")
        handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=call, parent_run_id=step)
    handler.on_chain_error(asyncio.CancelledError(), run_id=one)
    handler.on_llm_end(LLMResult(generations=[]), run_id=second)
    handler.on_chain_end({}, run_id=root)
    handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=late, parent_run_id=other)
    handler.on_llm_end(LLMResult(generations=[]), run_id=late)
    assert [run.status for run in seen] == ["cancelled", "success", "success", "success"]
    assert [run.parent_id for run in seen] == [seen[2].invocation_id] * 2 + [None] * 2


def test_an_id_may_be_used_again(seen: Seen) -> None:
    """A caller that gives the same run ID to run after run, even to one that never ended, sees each recorded."""
    fixed = uuid4()
    for _ in range(2):
        chain().invoke({"what": "hello"}, config(run_id=fixed))
    handler, first, second = ObservabilityHandler(), UUID(int=fixed.int), UUID(int=fixed.int)
    handler.on_chain_start(None, {}, run_id=first, name="one")
    handler.on_chain_start(None, {}, run_id=second, name="two")
    handler.on_chain_end({}, run_id=second)
    assert len(seen) == 6
    assert {(run.name, run.status.value) for run in seen[4:]} == {("one", "abandoned"), ("two", "success")}


def test_our_failure_is_not_the_users(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """What breaks in the handler is counted and logged once by us; the chain goes on, and LangChain logs nothing."""
    handler = ObservabilityHandler()
    handler._open = None  # type: ignore[assignment]  # broken on purpose
    with caplog.at_level(logging.WARNING):
        assert chain().invoke({"what": "hello"}, config(handler)) == "An answer."
        assert asyncio.run(chain().ainvoke({"what": "hello"}, config(handler))) == "An answer."
    assert {record.name for record in caplog.records} == {"taskpilot_obs"}
    assert not handler.raise_error
    gc.collect()


def test_switched_off_it_does_nothing() -> None:
    """With `enabled=False` nothing is recorded and no state is kept."""
    recorder = build_recorder(enabled=False)
    handler = ObservabilityHandler(recorder=recorder)
    with capture_invocations(recorder) as seen:
        chain().invoke({"what": "hello"}, config(handler))
        add.invoke({"a": 1, "b": 2}, config(handler))
        Shelf().invoke("any", config(handler))
    assert len(seen) == 0
    assert not runs_of(recorder)
    recorder.shutdown()


def test_content_is_kept_only_when_asked_for_and_redacted() -> None:
    """With content capture on, prompts, answers, arguments and results are kept, without their secrets."""
    recorder = build_recorder(capture_content=True, prometheus=False)
    handler = ObservabilityHandler(recorder=recorder)
    with capture_invocations(recorder) as seen:
        chain(Model(answers=["Write to bob@example.com."])).invoke({"what": "to ann@example.com"}, config(handler))
        FakeListLLM(responses=["Yes."]).invoke("hello", config(handler))
        add.invoke({"a": 1, "b": 2}, config(handler))
        Shelf().invoke("any", config(handler))
    texts = [(run.input_text or "", run.output_text or "") for run in seen]
    assert "human" in texts[0][0]
    assert "Write to" in texts[0][1]
    assert "Yes." in texts[2][1]
    assert "hello" in texts[2][0]
    assert ("'a': 1" in texts[3][0], texts[3][1]) == (True, "3")
    assert "A book." in texts[4][1]
    assert not any("example.com" in text for pair in texts for text in pair)
    recorder.shutdown()


def test_usage_stated_before_a_failure_is_kept(seen: Seen) -> None:
    """What a stream had stated before it broke is booked: it was billed."""
    usage: Any = {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13}
    partial = ChatGeneration(message=AIMessage("x", usage_metadata=usage))
    handler, run_id = ObservabilityHandler(), uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run_id)
    handler.on_llm_error(ConnectionError(), run_id=run_id, response=LLMResult(generations=[[partial]]))
    assert (seen[0].status, seen[0].usage) == (Status.ERROR, Usage(10, 3))


def test_beneath_a_decorated_function_in_a_chain_all_belongs_to_it(seen: Seen) -> None:
    """However deep decorated functions are in a chain's step, runs beneath the innermost belong to that one."""

    @observe_agent("Innermost")
    def innermost() -> str:
        return chain().invoke({"what": "hello"})

    @observe_agent("Middle")
    def middle(_: str) -> str:
        return innermost()

    (RunnableLambda(middle) | RunnableLambda(str)).invoke("hello", config(run_name="outer"))
    assert [run.name for run in seen] == ["gpt-4o-mini", "Innermost", "Middle", "outer"]
    assert [run.parent_id for run in seen[:3]] == [run.invocation_id for run in seen[1:]]


def test_work_that_outlives_its_chain_stands_alone(seen: Seen) -> None:
    """A thread that goes on after the chain has ended begins tasks of its own, as do unobserved chains."""
    waiting, ended = threading.Event(), threading.Thread()

    @observe_agent("Late")
    def late() -> None:
        assert waiting.wait(10)

    def start(_: str) -> str:
        nonlocal ended
        context = copy_context()
        ended = threading.Thread(target=lambda: (waiting.wait(10), context.run(late)))
        ended.start()
        return "started"

    RunnableLambda(start).invoke("hello", config(run_name="early"))
    waiting.set()
    ended.join()
    unobserved: Runnable[str, None] = RunnableLambda(lambda _: late())
    unobserved.invoke("hello")
    assert [(run.name, run.is_task) for run in seen] == [("early", True), ("Late", True), ("Late", True)]


def test_options_of_any_kind_are_harmless(seen: Seen) -> None:
    """Options that are neither texts nor numbers, which an application can put into the metadata, lose no call."""
    handler = ObservabilityHandler()
    said = {"ls_model_name": "gpt-4o", "ls_provider": "openai", "ls_temperature": [0.5], "ls_max_tokens": {}}
    for run_id in (uuid4(), uuid4()):
        handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run_id, metadata=said)
        handler.on_llm_end(LLMResult(generations=[]), run_id=run_id)
    assert told(seen) == 2 * [("chat", "gpt-4o", "success")]


def test_names_do_not_pile_up(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of chains, tools and models is bounded, and forgetting changes nothing."""
    monkeypatch.setattr(opening, "_MAX_SITES", 2)
    handler = ObservabilityHandler()
    for number in range(5):
        run_id = uuid4()
        handler.on_chain_start(None, {}, run_id=run_id, name=f"chain{number}")
        handler.on_chain_end({}, run_id=run_id)
        handler.on_tool_start({"name": f"tool{number}"}, "x", run_id=run_id)
        handler.on_tool_end("x", run_id=run_id)
        said = {"ls_model_name": f"model{number}", "ls_provider": "openai"}
        handler.on_chat_model_start({}, [[HumanMessage("x")]], run_id=run_id, metadata=said)
        handler.on_llm_end(LLMResult(generations=[]), run_id=run_id)
    kinds = ("chain", "tool", "model")
    assert [run.name for run in seen] == [f"{kind}{number}" for number in range(5) for kind in kinds]
    assert len(handler._open._callsites) <= 2
    assert len(handler._open._tools) <= 2
    assert len(handler._open._models) <= 2


# --- many at once -----------------------------------------------------------------------------------------------------


def storm(runs: int, handler: ObservabilityHandler) -> None:
    """Runs in threads and tasks at once: three in ten fail, one in ten is left in mid-stream."""
    fates = [["fails", "fails", "fails", "left", *["ends"] * 6][number % 10] for number in range(runs)]
    random.Random(7).shuffle(fates)

    def one(fate: str) -> None:
        model = Model(answers=[ValueError("no")] if fate == "fails" else ["a b c"])
        stream = chain(model).stream({"what": "hello"}, config(handler))
        try:
            for _ in stream:
                if fate == "left":
                    break
        except ValueError:
            pass

    async def one_async(fate: str) -> None:
        model = Model(answers=[ValueError("no")] if fate == "fails" else ["a b c"])
        try:
            async for _ in chain(model).astream({"what": "hello"}, config(handler)):
                if fate == "left":
                    break
        except ValueError:
            pass

    async def all_async(some: list[str]) -> None:
        await asyncio.gather(*(one_async(fate) for fate in some))

    half = runs // 2
    tasks = threading.Thread(target=lambda: asyncio.run(all_async(fates[half:])))
    tasks.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, fates[:half]))
    tasks.join()
    gc.collect()


@pytest.mark.parametrize("runs", [200, pytest.param(10_000, marks=pytest.mark.full)])
def test_many_runs_at_once_leave_no_state(recorder: Recorder, seen: Seen, runs: int) -> None:
    """After thousands of concurrent runs with errors and abandoned streams every run has ended and no state is left."""
    handler = ObservabilityHandler()
    storm(runs, handler)
    assert not handler._runs
    assert not handler._runs.silent
    tasks = [run.status for run in seen if run.is_task]
    assert len(seen) == 2 * runs
    assert len(tasks) == runs
    assert tasks.count(Status.ERROR) == runs * 3 // 10
    assert tasks.count(Status.SUCCESS) == runs * 6 // 10
    assert tasks.count(Status.ABANDONED) == runs // 10


def test_an_asked_for_tool_is_not_called_by_the_model(seen: Seen) -> None:
    """An answer that asks for a tool is an LLM call like any other."""
    Model(answers=[asks_for("add", a=1, b=2)]).invoke("hello", config())
    assert told(seen) == [("chat", "gpt-4o-mini", "success")]
