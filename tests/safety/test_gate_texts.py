"""What checks are shown of arguments that are objects."""

from __future__ import annotations

import logging
from collections import UserString
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from pydantic import BaseModel

from taskpilot_obs import observe_agent
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.safety import DenyWords
from taskpilot_obs.safety.texts import texts_in


@dataclass
class Asked:
    question: str


class Wanted(BaseModel):
    question: str
    inner: dict[str, str] = {}


class Called(Wanted):
    def __call__(self) -> str:
        return self.question


class Question:
    def __init__(self, said: Any) -> None:
        self.said = said
        self._client = "delete"


class Slotted:
    __slots__ = ("_hidden", "said")

    def __init__(self, said: str) -> None:
        self.said = said


class OneSlot:
    __slots__ = "said"  # noqa: PLC0205  what is tested

    def __init__(self, said: str) -> None:
        self.said = said


class Asker:
    """An agent whose own settings say what it must not do."""

    def __init__(self) -> None:
        self.instructions = "never delete"

    @observe_agent("Asker", policies=[DenyWords(["delete"])], mode="enforce")
    def ask(self, question: Any) -> str:
        return f"asked {question}"


def in_itself(said: str) -> Question:
    """A question that holds itself, twice."""
    question = Question(said)
    question.said = {"a": [question, said], "b": question}
    return question


@observe_agent("Planner", policies=[DenyWords(["delete"])], mode="enforce")
def plan(asked: Any) -> str:
    return f"planned {asked}"


@pytest.mark.parametrize(
    "asked",
    [
        Asked("delete it"),
        Wanted(question="delete it"),
        Wanted(question="x", inner={"y": "delete it"}),
        Called(question="delete it"),
        [Asked("delete it")],
        ChatPromptValue(messages=[HumanMessage("delete it")]),
        b"delete it",
        bytearray(b"\xff delete it"),
        memoryview(b"delete it"),
        {"delete it": 1},
        {b"delete it": {}},
        Question("delete it"),
        Question([Question({"x": "delete it"})]),
        Slotted("delete it"),
        OneSlot("delete it"),
        SimpleNamespace(said="delete it"),
        UserString("delete it"),
        in_itself("delete it"),
    ],
    ids=lambda asked: type(asked).__name__,
)
def test_text_in_the_fields_of_models_and_dataclasses_is_checked(asked: Any) -> None:
    """A model, dataclass, plain object, dict key or bytes do not carry a denied word past an enforced policy."""
    with pytest.raises(PolicyViolationError):
        plan(asked)


@pytest.mark.parametrize("bytelike", [b"\xff delete", bytearray(b"\xff delete"), memoryview(b"\xff delete")])
def test_bytes_are_text_whatever_they_hold(bytelike: Any) -> None:
    """Bytes that are not UTF-8 are shown to checks with a replacement character in their place."""
    assert texts_in([bytelike]) == ["\ufffd delete"]


def test_of_a_message_its_content_is_checked_and_nothing_else() -> None:
    """What a message says of itself (ids, metadata) is not what was asked."""
    assert plan(HumanMessage("keep it", id="delete", response_metadata={"x": "delete"})).startswith("planned")


@pytest.mark.parametrize(
    "asked",
    [
        {"role": "user", "content": "keep it"},
        Question("keep it"),
        logging.getLogger("delete"),
        len,
        Slotted,
        in_itself("keep it"),
        [{"x": [Question("keep it")] * 300}] * 300,
    ],
    ids=lambda asked: type(asked).__name__,
)
def test_what_works_is_not_what_is_said(asked: Any) -> None:
    """Private attributes, loggers, functions, classes and an object that holds itself are not refused."""
    assert plan(asked).startswith("planned")


def test_the_object_of_a_method_is_not_asked() -> None:
    """The instructions of an agent object are not its input; only the input is checked."""
    assert Asker().ask("keep it") == "asked keep it"
    with pytest.raises(PolicyViolationError):
        Asker().ask("delete it")
    with pytest.raises(PolicyViolationError):
        Asker().ask(question=Question("delete it"))


def test_attributes_are_looked_at_within_a_bound() -> None:
    """Of an object that leads to ever more objects so many attributes are looked at, and no more."""
    looked = []

    class Endless:
        def __init__(self) -> None:
            self.next = self.other = None

        def __getattribute__(self, name: str) -> Any:
            if name not in {"next", "other"}:
                return object.__getattribute__(self, name)
            looked.append(name)
            return Endless()

    assert texts_in([Endless()]) == []
    assert 0 < len(looked) <= 200


def test_pieces_of_a_stream_are_one_text_whatever_carries_them() -> None:
    """The keys of chunks that are dicts do not part the words that the pieces make."""

    @observe_agent("Streamer", policies=[DenyWords(["delete"], stages="output")], mode="enforce", buffer=True)
    def stream() -> Iterator[dict[str, str]]:
        yield {"delta": "del"}
        yield {"delta": "ete"}

    with pytest.raises(PolicyViolationError):
        list(stream())
