"""What a call may take, estimated from its arguments and from the items of a stream."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from taskpilot_obs.budgets.estimates import CallEstimate, StreamEstimate, estimate_call
from taskpilot_obs.records import Usage


def streamed(*items: object) -> int:
    """The tokens of a stream of these items."""
    estimate = StreamEstimate()
    for each in items:
        estimate.note(each)
    return estimate.tokens


@pytest.mark.parametrize(
    ("items", "tokens"),
    [
        ((), 0),
        (("a", "b", "c"), 3),
        (("abcdefg",), 3),
        (("abcdef", "g"), 3),
        (("日本",), 2),
        (("", None, 7, {"id": "not generated"}), 0),
    ],
)
def test_a_stream_has_a_token_for_each_item_or_three_bytes(items: tuple[object, ...], tokens: int) -> None:
    """Each item with text is a token at least, and so is each begun piece of three bytes of text."""
    assert streamed(*items) == tokens


@pytest.mark.parametrize(
    "item",
    [
        {"choices": [{"index": 0, "delta": {"content": "abcdefghi"}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"name": "find", "arguments": "abcdefghi"}}]}}]},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "abcdefghi"}},
        {"candidates": [{"content": {"parts": [{"text": "abcdefghi"}], "role": "model"}}]},
        SimpleNamespace(content="abcdefghi", id="run-1"),
        SimpleNamespace(content=[{"type": "text", "text": "abcdefghi"}], name=str.upper),
        SimpleNamespace(delta=SimpleNamespace(text="abcdefghi", content=None), index=1),
    ],
)
def test_only_the_text_of_a_chunk_counts(item: Any) -> None:
    """Identifiers, roles and names in a chunk are not generated; nine bytes of text are three tokens."""
    assert streamed(item) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"prompt": "abcdefghi"},
        {"messages": [{"role": "", "content": [{"type": "", "text": "abcdefghi"}]}], "model": "gpt-4o"},
        {"messages": [SimpleNamespace(content="abcdefghi")], "max_tokens": 7},
        {"messages": [SimpleNamespace(content=[{"text": "abcdefghi"}])]},
        {"contents": {"parts": ({"text": "abc"}, {"text": "def"}, {"text": "ghi"})}, "provider": "openai"},
    ],
)
def test_text_is_found_in_every_nesting(arguments: dict[str, Any]) -> None:
    """All text of the arguments is input, in lists, dicts and messages; model, provider and limits are not."""
    assert estimate_call((), arguments).input_tokens == 3


@pytest.mark.parametrize(("layers", "tokens"), [(1, 3), (5, 3), (6, 3), (7, 0)])
@pytest.mark.parametrize("wrap", [lambda inner: {"x": inner}, lambda inner: [inner]])
def test_text_counts_down_to_the_sixth_layer(wrap: Callable[[object], object], layers: int, tokens: int) -> None:
    """Arguments are searched so deep, and no deeper, because they may hold anything."""
    value: object = "abcdefghi"
    for _ in range(layers):
        value = wrap(value)
    assert estimate_call((), {"messages": value}).input_tokens == tokens


def test_the_answer_is_as_long_as_stated_or_as_usual() -> None:
    """An estimate without a longest answer takes the configured one."""
    assert CallEstimate(5, 0).usage(default_output=9) == Usage(5, 0)
    assert CallEstimate(5, None).usage(default_output=9) == Usage(5, 9)
