"""What checks are shown of arguments that are objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from pydantic import BaseModel

from taskpilot_obs import observe_agent
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.safety import DenyWords


@dataclass
class Asked:
    question: str


class Wanted(BaseModel):
    question: str
    inner: dict[str, str] = {}


@observe_agent("Planner", policies=[DenyWords(["delete"])], mode="enforce")
def plan(asked: Any) -> str:
    return f"planned {asked}"


@pytest.mark.parametrize(
    "asked",
    [
        Asked("delete it"),
        Wanted(question="delete it"),
        Wanted(question="x", inner={"y": "delete it"}),
        [Asked("delete it")],
        ChatPromptValue(messages=[HumanMessage("delete it")]),
    ],
    ids=lambda asked: type(asked).__name__,
)
def test_text_in_the_fields_of_models_and_dataclasses_is_checked(asked: Any) -> None:
    """A request model or dataclass does not carry a denied word past an enforced policy."""
    with pytest.raises(PolicyViolationError):
        plan(asked)


def test_of_a_message_its_content_is_checked_and_nothing_else() -> None:
    """What a message says of itself (ids, metadata) is not what was asked."""
    assert plan(HumanMessage("keep it", id="delete", response_metadata={"x": "delete"})).startswith("planned")
