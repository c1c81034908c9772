"""Each failure inside the instrumentation is counted once, under the name of the place, and costs the call nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from taskpilot_obs import observe_agent, record_cache_size, record_feedback, record_llm_call, track_llm
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.records import Invocation, Usage
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.testing import Captured, fresh_recorder


class Untrue:
    """Cannot be asked whether it is true."""

    def __bool__(self) -> bool:
        raise RuntimeError


def internal_errors(recorder: Recorder) -> dict[str, int]:
    """How many were counted, by place."""
    recorder.drain()
    totals = recorder.counters.totals
    return {labels[0]: number for (metric, labels), number in totals.items() if metric is INTERNAL_ERRORS}


TOLD_WRONGLY: dict[str, Callable[[LlmInvocation], object]] = {
    "record_usage": lambda call: call.record_usage(object()),
    "set_cost": lambda call: call.set_cost("cheap"),
    "set_cached": lambda call: call.set_cached(Untrue()),  # type: ignore[arg-type]
    "first_token_after": lambda call: call.first_token_after(-1.0),
}


@pytest.mark.parametrize("where", TOLD_WRONGLY)
def test_what_a_call_is_told_wrongly_is_counted_by_the_method(
    recorder: Recorder, seen: Captured[Invocation], where: str
) -> None:
    """A value of no use is one internal error under the method's name, and the call keeps what it knew."""
    with track_llm(provider="openai", model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
        TOLD_WRONGLY[where](call)
    assert internal_errors(recorder) == {where: 1}
    assert (seen[0].usage, seen[0].cost) == (Usage(150, 50), Decimal("0.000875"))


@pytest.mark.parametrize(
    "told",
    [
        ((Usage(150, 50), 3), {}),
        ((Usage(150, 50),), {"output_tokens": 3}),
        (({"prompt_tokens": 150, "completion_tokens": 50},), {"reasoning_tokens": 3}),
    ],
)
def test_both_a_usage_and_counts_are_an_error(
    recorder: Recorder, seen: Captured[Invocation], told: tuple[tuple[Any, ...], dict[str, Any]]
) -> None:
    """A usage object together with counts, by place or by name, is counted as an error, and the object is taken."""
    with track_llm(provider="openai", model="gpt-4o") as call:
        call.record_usage(*told[0], **told[1])
    assert internal_errors(recorder) == {"record_usage": 1}
    assert (seen[0].usage, seen[0].cost) == (Usage(150, 50), Decimal("0.000875"))


EVENTS: dict[str, Callable[[], object]] = {
    "record_feedback": lambda: record_feedback("req-1", correct=Untrue()),  # type: ignore[arg-type]
    "record_cache_size": lambda: record_cache_size("answers", "many"),  # type: ignore[arg-type]
    "duration_seconds": lambda: record_llm_call(model="gpt-4o", duration_seconds="long"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("where", EVENTS)
def test_an_event_told_wrongly_is_counted_by_its_function(recorder: Recorder, where: str) -> None:
    """A value of no use in a point event is one internal error under the function or argument."""
    EVENTS[where]()
    assert internal_errors(recorder) == {where: 1}


def test_an_exception_that_cannot_be_classified_is_counted(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """An `expected=` that raises is counted under `classify`; the run has failed, and its exception passes."""

    def expected(_error: BaseException) -> bool:
        raise RuntimeError

    @observe_agent("planner", expected=expected)
    def plan() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        plan()
    assert internal_errors(recorder) == {"classify": 1}
    assert seen[0].status.value == "error"


class Unreadable(dict[str, Any]):
    """Raises when a value is asked for."""

    def get(self, *_args: Any) -> Any:
        raise RuntimeError


def test_content_that_cannot_be_read_is_counted() -> None:
    """With content capture, an input or output that raises when it is read is counted, as text and as messages."""
    with fresh_recorder(capture_content=True, tracer_provider=TracerProvider()) as recorder:
        with track_llm(model="gpt-4o") as call:
            call.set_input(Unreadable(messages=[]))
            call.set_output(Unreadable(choices=[]))
        assert internal_errors(recorder) == {"redaction": 2, "capture": 2}


def test_a_stream_whose_event_cannot_be_read_is_passed_on(recorder: Recorder) -> None:
    """An event that raises when it is read is counted once, and reaches the caller with all others."""

    def events() -> Iterator[dict[str, Any]]:
        yield {"choices": [{"delta": {"content": "a"}}]}
        yield Unreadable(usage=1)
        yield {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    with track_llm(model="gpt-4o") as call:
        assert len(list(call.stream(events()))) == 3
    assert internal_errors(recorder) == {"usage": 1}
    assert call.usage == Usage(3, 2)
