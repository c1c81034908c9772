"""Estimates the most that a call may take: its input, known or estimated, and its longest answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs.providers.limits import MAX_OUTPUT
from taskpilot_obs.records import Usage
from taskpilot_obs.usage.values import parse_token_count

if TYPE_CHECKING:
    from taskpilot_obs._support.guarded import guarded

INPUT_TOKENS: Final = "input_tokens"
BYTES_PER_TOKEN: Final = 3
"""English text has four to five bytes per token, Chinese and code about three, so the estimate is rather high."""
_MAX_DEPTH: Final = 6
_MAX_ITEMS: Final = 10_000
_OPTIONS: Final = frozenset({"model", "provider", *MAX_OUTPUT})
_MAX_STREAM_DEPTH: Final = 8
_SPOKEN: Final = (
    *("choices", "delta", "message", "candidates", "output", "content", "content_block", "parts", "text"),
    *("tool_calls", "tool_call_chunks", "function", "functionCall", "arguments", "args", "partial_json", "input"),
    *("thinking", "reasoning", "reasoning_content", "reasoning_text", "refusal", "bytes"),
)
"""Keys and attributes of providers' chunks that hold generated text."""
_HOLDERS: Final = ("content", "text", "messages", "parts")


class CallEstimate(NamedTuple):
    """The expected usage of a call."""

    input_tokens: int
    max_output_tokens: int | None
    """None where the call does not state its longest answer."""

    def usage(self, default_output: int) -> Usage:
        """Input and longest answer, as a usage that can be priced."""
        return Usage(self.input_tokens, default_output if self.max_output_tokens is None else self.max_output_tokens)


class StreamEstimate:
    """The tokens of a stream so far, estimated from its text."""

    __slots__ = ("_bytes", "_items")

    def __init__(self) -> None:
        self._bytes = self._items = 0

    @property
    def tokens(self) -> int:
        """At least one for each item with text."""
        return max(self._items, -(-self._bytes // BYTES_PER_TOKEN))

    def note(self, item: object) -> None:
        """Count the text of one item: a string, a provider's chunk, a message."""
        size = _spoken(item, 0)
        self._bytes += size
        self._items += size > 0


def estimate_call(args: Iterable[object], kwargs: Mapping[str, object]) -> CallEstimate:
    """Estimate a call from its arguments: from `input_tokens` and `max_tokens` if stated, else from the text."""
    stated = parse_token_count(kwargs.get(INPUT_TOKENS))
    if stated is None:
        texts = (*args, *(value for key, value in kwargs.items() if key not in _OPTIONS))
        stated = -(-_length(texts, 0) // BYTES_PER_TOKEN)
    limits = (parse_token_count(kwargs.get(name)) for name in MAX_OUTPUT)
    return CallEstimate(stated, next((limit for limit in limits if limit is not None), None))


def estimate_any(args: Iterable[object], kwargs: Mapping[str, object], guard: guarded) -> CallEstimate:
    """Like `estimate_call`; of arguments that cannot be read only the answer, so that the call is booked all the same.

    Args:
        args: the positional arguments.
        kwargs: the keyword arguments.
        guard: counts that they cannot be read.
    """
    with guard:
        return estimate_call(args, kwargs)
    return estimate_call((), {name: kwargs.get(name) for name in MAX_OUTPUT})


def _length(values: Iterable[object], depth: int) -> int:
    """Bytes of the text in these values: in lists, dicts and messages too."""
    total = 0
    for value in islice(values, _MAX_ITEMS):
        if isinstance(value, str):
            total += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif value is None or depth >= _MAX_DEPTH or isinstance(value, int | float | bytes | type):
            continue
        elif isinstance(value, Mapping):
            total += _length(value.values(), depth + 1)
        elif isinstance(value, list | tuple | set | frozenset):
            total += _length(value, depth + 1)
        else:
            total += _length((_held(value, name) for name in _HOLDERS), depth + 1)
    return total


def _spoken(value: object, depth: int) -> int:
    """Bytes of the text that a model has written in an item of a stream; identifiers and names do not count."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if value is None or depth >= _MAX_STREAM_DEPTH or isinstance(value, int | float | bytes | type):
        return 0
    if isinstance(value, Mapping):
        return sum(_spoken(value.get(name), depth + 1) for name in _SPOKEN)
    if isinstance(value, list | tuple):
        return sum(_spoken(each, depth + 1) for each in value)
    return sum(_spoken(_held(value, name), depth + 1) for name in _SPOKEN)


def _held(value: object, name: str) -> object:
    held = getattr(value, name, None)
    return None if callable(held) else held
