"""Hostile answers, results, configurations and orders of callbacks: the chain is left alone, its run is recorded."""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from taskpilot_obs_langchain import ObservabilityHandler
from taskpilot_obs_langchain.runs import runs_of

from taskpilot_obs.integration import RefusedError
from taskpilot_obs.records import Invocation
from taskpilot_obs.safety import blocked, check_with
from taskpilot_obs.testing import capture_records, fresh_recorder

USAGE = {"input_tokens": 150, "output_tokens": 50, "total_tokens": 200}


class Boom:
    """An object that raises whatever it is asked."""

    __hash__ = None  # type: ignore[assignment]  # what cannot be a key

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__

    def __bool__(self) -> bool:
        raise RuntimeError


class BoomError(Exception):
    """An exception that raises when it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class BadMapping(Mapping[str, Any]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 1


class Text(str):
    """Text that cannot be made text."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError


LOOP: dict[str, Any] = {}
LOOP["messages"] = LOOP
ODD = {
    "NaN": math.nan,
    "negative": -5,
    "bool": True,
    "huge": 10**400,
    "decimal": Decimal("1e100000"),
    "text": "150",
    "megabyte": "x" * 1_000_000,
    "surrogate": "\ud800",
    "NUL": "a\0b",
    "list": [1],
    "loop": LOOP,
    "raises": Boom(),
    "object": object(),
    "mapping": BadMapping(),
    "odd text": Text("a"),
}


class Model(BaseChatModel):
    """Answers with a message that was not checked."""

    said: Any

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"}

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._message(AIMessage))])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=self._message(AIMessageChunk))

    def _message(self, kind: Any) -> Any:
        message = kind(content="An answer.")
        for field, value in self.said.items():
            message.__dict__[field] = value
        return message


def answers(value: object) -> Iterator[dict[str, Any]]:
    """Messages with an odd value in each of the places that are read; the usage is sound, but for the last ones."""
    yield {"usage_metadata": USAGE, "response_metadata": value}
    yield {"usage_metadata": USAGE, "content": [{"type": value, "text": "An answer."}]}
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        yield {"usage_metadata": {**USAGE, name: value}}
    yield {"usage_metadata": {**USAGE, "input_token_details": {"cache_read": value}}}
    yield {"usage_metadata": value}


def outcome(work: Callable[[], object]) -> tuple[object, ...]:
    """What came of it."""
    try:
        return type(work()).__name__, None
    except Exception as error:
        return None, type(error)


WAYS: dict[str, Callable[[Model, Any], object]] = {
    "invoke": lambda model, config: model.invoke("hi", config),
    "ainvoke": lambda model, config: asyncio.run(model.ainvoke("hi", config)),
    "stream": lambda model, config: list(model.stream("hi", config)),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("way", WAYS)
def test_an_odd_answer_comes_back_and_is_recorded(name: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """The answer is the one without the handler; one run; sound usage is kept, and odd usage is never 0."""
    for number, said in enumerate(answers(ODD[name])):
        caplog.clear()
        alone = outcome(lambda said=said: WAYS[way](Model(said=said), {}))  # type: ignore[misc]
        with fresh_recorder() as recorder, capture_records(Invocation, recorder) as seen:
            config = {"callbacks": [ObservabilityHandler(recorder=recorder)]}
            assert outcome(lambda said=said, config=config: WAYS[way](Model(said=said), config)) == alone  # type: ignore[misc]
            (run,) = seen
        if alone[1] is not None:
            continue
        assert run.status == "success"
        assert not [record for record in caplog.records if record.name.startswith("langchain")]
        counts = run.usage[:2] if run.usage is not None else (None, None)
        assert counts == (150, 50) if number < 2 else set(counts) <= {150, 50, None}


class Found(BaseRetriever):
    """Returns what it was made with."""

    held: Any

    def _get_relevant_documents(self, query: str, **_: Any) -> Any:
        return self.held


def chain(answer: object) -> Any:
    """A chain that returns this."""
    return RunnableLambda(lambda _: answer).with_config(run_name="chain")


def returning(value: object) -> Iterator[tuple[str, Callable[[Any], object]]]:
    """A chain, a tool and a retriever that return an odd value, by the name of the run."""
    tool = StructuredTool.from_function(lambda q: value, name="tool", description="d")
    metadata = {"k": value, "thread_id": value, "langgraph_node": value}
    yield "chain", lambda config: chain(value).invoke("x", config)
    yield "tool", lambda config: tool.invoke({"q": "x"}, config)
    yield "Found", lambda config: Found(held=value).invoke("x", config)
    yield "chain", lambda config: chain(1).invoke(value, config)
    yield "chain", lambda config: chain(1).invoke("x", {**config, "metadata": metadata})


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("captured", [False, True])
def test_an_odd_result_input_or_configuration_costs_no_run(
    name: str, captured: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Chain, tool and retriever return what they would, each is one run with its name, and LangChain logs no error."""
    for expected, work in returning(ODD[name]):
        alone = outcome(lambda work=work: work({"callbacks": []}))  # type: ignore[misc]
        caplog.clear()
        with (
            fresh_recorder(capture_content=captured) as recorder,
            capture_records(Invocation, recorder) as seen,
        ):
            config = {"callbacks": [ObservabilityHandler(recorder=recorder)]}
            assert outcome(lambda work=work, config=config: work(config)) == alone  # type: ignore[misc]
            assert [run.name for run in seen] == [expected]
            assert (seen[0].status == "success") == (alone[1] is None)
        assert not [record for record in caplog.records if record.name.startswith("langchain")]


def test_a_result_that_raises_when_it_is_read_is_still_asked_about() -> None:
    """In enforce mode a guardrail withholds a tool's result of any class: failing to read it does not open the door."""
    tool = StructuredTool.from_function(lambda q: Boom(), name="tool", description="d")
    refuse = check_with(lambda _: blocked("no"), stages=["output"], name="refuse")
    with fresh_recorder(guardrails=[refuse], mode="enforce") as recorder:
        config: Any = {"callbacks": [ObservabilityHandler(recorder=recorder)]}
        with pytest.raises(RefusedError):
            tool.invoke({"q": "x"}, config)


EVENTS: dict[str, Callable[[ObservabilityHandler, random.Random, UUID, UUID | None], object]] = {
    "chain starts": lambda h, _, i, p: h.on_chain_start(None, "x", run_id=i, parent_run_id=p, name="c"),
    "node starts": lambda h, _, i, p: h.on_chain_start(
        None, "x", run_id=i, parent_run_id=p, name="n", metadata={"langgraph_node": "n"}
    ),
    "chain ends": lambda h, c, i, _: h.on_chain_end("x", run_id=i, **c.choice([{}, {"inputs": 1}])),
    "chain fails": lambda h, c, i, _: h.on_chain_error(c.choice([BoomError(), GeneratorExit()]), run_id=i),
    "model starts": lambda h, _, i, p: h.on_chat_model_start({}, [[HumanMessage("x")]], run_id=i, parent_run_id=p),
    "text starts": lambda h, _, i, p: h.on_llm_start({}, ["x"], run_id=i, parent_run_id=p),
    "token": lambda h, _, i, __: h.on_llm_new_token(
        "", run_id=i, chunk=ChatGenerationChunk(message=AIMessageChunk(content="a"))
    ),
    "retry": lambda h, _, i, __: h.on_retry(None, run_id=i),
    "model ends": lambda h, c, i, _: h.on_llm_end(
        LLMResult(generations=c.choice([[], [[]], [[ChatGeneration(message=AIMessage("a"))]]])), run_id=i
    ),
    "model fails": lambda h, _, i, __: h.on_llm_error(BoomError(), run_id=i, response=LLMResult(generations=[])),
    "tool starts": lambda h, _, i, p: h.on_tool_start({"name": "t"}, "x", run_id=i, parent_run_id=p),
    "tool ends": lambda h, _, i, __: h.on_tool_end("x", run_id=i),
    "tool fails": lambda h, _, i, __: h.on_tool_error(BoomError(), run_id=i),
    "retriever starts": lambda h, _, i, p: h.on_retriever_start({"name": "r"}, "x", run_id=i, parent_run_id=p),
    "retriever ends": lambda h, _, i, __: h.on_retriever_end([Document("x")], run_id=i),
}


@pytest.mark.parametrize("seed", range(40))
def test_callbacks_in_any_order_raise_nothing_and_leave_nothing(seed: int) -> None:
    """Doubled, unknown, without a start or an end: nothing is raised, every run ends once, and no state stays."""
    chance = random.Random(seed)
    with fresh_recorder() as recorder, capture_records(Invocation, recorder) as seen:
        handler = ObservabilityHandler(recorder=recorder)
        ids = [uuid4() for _ in range(4)]
        for _ in range(30):
            EVENTS[chance.choice([*EVENTS])](handler, chance, chance.choice(ids), chance.choice([*ids, None]))
        ids.clear()
        gc.collect()
        assert len({run.invocation_id for run in seen}) == len(seen)
        runs = runs_of(recorder)
        assert (dict(runs), runs.silent, runs.stated) == ({}, {}, {})
