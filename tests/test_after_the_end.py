"""What a call is told after its end changes nothing, and how a framework ends one without the exception."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taskpilot_obs import record_llm_call, record_run, track_llm
from taskpilot_obs._recording.llm_invocation import LlmInvocation
from taskpilot_obs.records import Invocation, Status, Usage
from taskpilot_obs.testing import Captured, FixedClock, capture_invocations, fresh_recorder

TOLD: dict[str, Callable[[LlmInvocation], object]] = {
    "record_usage": lambda call: call.record_usage(1, 1),
    "record_usage of a provider": lambda call: call.record_usage({"prompt_tokens": 1, "completion_tokens": 1}),
    "record_model": lambda call: call.record_model("gpt-4o-mini"),
    "record_request": lambda call: call.record_request(model="gpt-4o-mini", provider="azure"),
    "record_answer": lambda call: call.record_answer(
        model="gpt-4o-mini", response_id="r", finish_reasons=["stop"], service_tier="flex"
    ),
    "record_response": lambda call: call.record_response({"model": "x", "usage": {"input_tokens": 1}}),
    "set_streaming": lambda call: call.set_streaming(),
    "first_token": lambda call: call.first_token(),
    "first_token_after": lambda call: call.first_token_after(0.0),
    "set_cached": lambda call: call.set_cached(cached=True),
    "set_cost": lambda call: call.set_cost("9"),
    "leave_unpriced": lambda call: call.leave_unpriced(),
    "set_attribute": lambda call: call.set_attribute("late", "yes"),
    "set_input": lambda call: call.set_input("late"),
    "set_arguments": lambda call: call.set_arguments(("late",), {}),
    "set_output": lambda call: call.set_output("late"),
    "stop": lambda call: call.stop(),
    "fail": lambda call: call.fail(RuntimeError("late")),
    "end_as": lambda call: call.end_as(Status.TIMEOUT, error_type="Late", error_message="late"),
}


def recorded(told: Callable[[LlmInvocation], object]) -> Invocation:
    """The record of a call that was told something after its end, before the drainer read it."""
    with fresh_recorder(clock=FixedClock(), capture_content=True) as recorder, capture_invocations(recorder) as seen:
        with recorder.pipeline._lock:  # no thread reads it meanwhile
            call = recorder.start_llm(model=None)
            call.record_usage(150, 50)
            call.stop()
            told(call)
        return seen[0]._replace(invocation_id="", request_id="")


@pytest.mark.parametrize("what", TOLD)
def test_a_call_that_has_ended_is_told_nothing(what: str) -> None:
    """The record of a call is that of the moment at which it ended."""
    assert recorded(TOLD[what]) == recorded(lambda _call: None)


def test_a_request_that_a_framework_states_late_is_taken_once(seen: Captured[Invocation]) -> None:
    """Model and provider that were unknown at the start are taken; known ones stay."""
    with track_llm(model=None) as call:
        call.record_request(provider="azure")
        call.record_request(model="gpt-4o")
        call.record_request(model="gpt-4o-mini", provider="openai")
        call.record_usage(150, 50)
    assert (seen[0].request_model, seen[0].provider, seen[0].usage) == ("gpt-4o", "azure.ai.openai", Usage(150, 50))


def test_details_of_an_answer_are_kept_where_the_next_ones_lack_them(seen: Captured[Invocation]) -> None:
    """What a framework states of an answer piece by piece adds up; a tier is spelt in lower case."""
    with track_llm(model="gpt-4o") as call:
        call.record_answer(response_id="r", finish_reasons=["length"], service_tier="Flex")
        call.record_answer(model="gpt-4o-2024-08-06")
        assert (call.response_id, call.finish_reasons, call.service_tier) == ("r", ("length",), "flex")
    assert seen[0].response_model == "gpt-4o-2024-08-06"


def test_a_stream_is_one_without_a_known_first_token(seen: Captured[Invocation]) -> None:
    """A framework may state that an answer was streamed, and not when it began."""
    with track_llm(model="gpt-4o") as call:
        call.set_streaming()
    assert (seen[0].streaming, seen[0].ttft_s) == (True, None)


@pytest.mark.parametrize(
    ("message", "category"),
    [("maximum context length exceeded", "context_length"), ("no", "other"), (None, "other")],
)
def test_the_message_of_an_error_decides_its_category(
    seen: Captured[Invocation], message: str | None, category: str
) -> None:
    """An error that a framework states by name and text has the category of its text."""
    record_llm_call(model="gpt-4o", error_type="acme.ApiError", error_message=message)
    assert (seen[0].status, seen[0].error_category, seen[0].error_message) == (Status.ERROR, category, None)


def test_the_message_of_an_error_is_kept_redacted_with_capture() -> None:
    """The text of an error that a framework states is content: kept with capture only, and redacted."""
    for captures, kept in ((True, "mail [REDACTED:email]"), (False, None)):
        with fresh_recorder(capture_content=captures) as recorder, capture_invocations(recorder) as seen:
            record_run("tool", "search", error_type="acme.Failed", error_message="mail ann@example.com")
            record_run("tool", "search", error_type="acme.Failed")
            assert [(run.error_type, run.error_message) for run in seen] == [
                ("acme.Failed", kept),
                ("acme.Failed", None),
            ]


def test_an_input_that_comes_after_the_start_is_on_the_end() -> None:
    """A start that was recorded already stays as it was; the record of the end has the input."""
    with fresh_recorder(capture_content=True) as made, capture_invocations(made) as seen:
        with track_llm(model="gpt-4o") as call:
            made.drain()
            call.set_input("late")
        assert (seen[0].input_length, seen[0].input_text) == (4, "late")
