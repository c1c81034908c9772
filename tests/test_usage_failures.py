"""Responses that cannot be read: the failure is counted under `usage`, and what was read before it is kept."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from taskpilot_obs import track_llm
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.records import Invocation
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.testing import Captured
from taskpilot_obs.usage import Reading, StreamReader, Usage, read_response
from taskpilot_obs.usage.failures import read_failure


class Unreadable(dict[str, Any]):
    """A mapping that raises whenever it is asked."""

    def get(self, *_args: Any) -> Any:
        raise RuntimeError


STATED = {"object": "chat.completion", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
XAI = Usage(100, 103, reasoning_tokens=94)


def test_a_response_that_cannot_be_read_is_counted() -> None:
    """A response that raises is a reading without values, and one internal error under `usage`."""
    counters = InternalCounters()
    assert read_response(Unreadable(usage=1), counters=counters) == Reading()
    assert counters.take() == {(INTERNAL_ERRORS, ("usage",)): 1}


def test_an_event_that_cannot_be_read_is_counted_and_the_rest_is_kept() -> None:
    """A stream's reader counts an event that raises, and goes on with the next."""
    counters = InternalCounters()
    reader = StreamReader("openai", counters)
    assert reader.is_empty is True
    assert reader.feed(STATED) is False
    assert reader.is_empty is False
    assert reader.feed(Unreadable(usage=1)) is False
    assert reader.reading().usage == Usage(3, 2)
    assert counters.take() == {(INTERNAL_ERRORS, ("usage",)): 1}


def test_an_event_that_cannot_be_read_is_an_event() -> None:
    """A stream whose only event raises was not empty."""
    reader = StreamReader()
    reader.feed(Unreadable())
    assert reader.is_empty is False


@pytest.mark.parametrize(("provider", "expected"), [("openai", Usage(100, 9, reasoning_tokens=9)), ("xai", XAI)])
def test_the_stated_provider_reads_the_counts(provider: str, expected: Usage) -> None:
    """`Usage.read` reads a usage object alone as the stated provider counts: xAI puts reasoning beside the output."""
    counts = {"prompt_tokens": 100, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 94}}
    assert Usage.read(counts, provider=provider) == expected


ANTHROPIC = {
    "type": "message",
    "role": "assistant",
    "model": "my-deployment",
    "content": [],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def test_a_message_of_anthropic_is_known_by_its_structure() -> None:
    """Type, role and model together prove the provider, whatever the model is called; two of them do not."""
    assert read_response(ANTHROPIC).provider == "anthropic"
    for key in ("type", "role", "model"):
        assert read_response({name: value for name, value in ANTHROPIC.items() if name != key}).provider is None
        assert read_response(ANTHROPIC | {key: None}).provider is None


@pytest.mark.parametrize(
    ("message", "category"),
    [
        ("This model's maximum context length is 8192 tokens", "context_length"),
        ("invalid api key", "auth"),
        ("blocked by the content policy", "content_filter"),
        ("something else", "other"),
    ],
)
def test_an_error_with_status_200_has_the_category_of_its_message(
    seen: Captured[Invocation], message: str, category: str
) -> None:
    """A body that states an error by its message alone ends the call as an error of that category."""
    with track_llm(model="gpt-4o") as call:
        call.record_response({"error": {"message": message}})
    assert (seen[0].status, seen[0].error_category) == ("error", category)


@pytest.mark.parametrize(("status", "usage"), [(200, Usage(3, 2)), (399, Usage(3, 2)), (400, None), (500, None)])
def test_the_body_of_a_refusal_states_no_usage(status: int, usage: Usage | None) -> None:
    """The HTTP response in an exception is read only if the provider answered: a refusal is not billed."""
    error = RuntimeError("cannot be parsed")
    error.response = httpx.Response(status, json=STATED)  # type: ignore[attr-defined]
    assert read_failure(error).usage == usage
