"""LLM calls by hand: what a caller says is what is booked, and nothing that he says can hurt him."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs import record_llm_call, track_llm
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.exceptions import PolicyViolationError
from taskpilot_obs.records import Invocation, Operation, Pricing, Status
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder
from taskpilot_obs.usage import Reading, Usage

CHUNKS = [
    {"object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06", "choices": [{"delta": {"content": "Hello"}}]},
    {"object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06", "choices": [{"delta": {"content": "!"}}]},
    {
        "object": "chat.completion.chunk",
        "model": "gpt-4o-2024-08-06",
        "choices": [],
        "usage": {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200},
    },
]


def test_usage_by_hand_is_priced(seen: Captured[Invocation]) -> None:
    """Tokens stated by hand are priced by the table; the provider follows from the model."""
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
    (run,) = seen
    assert (run.operation, run.provider, run.request_model) == (Operation.CHAT, "openai", "gpt-4o")
    assert run.usage == Usage(input_tokens=150, output_tokens=50)
    assert (run.cost, run.cost_source) == (Decimal("0.000875"), "price_table")


def test_a_usage_object_and_embeddings(seen: Captured[Invocation]) -> None:
    """A `Usage` is taken whole, also for embeddings."""
    with track_llm(model="text-embedding-3-small", operation="embeddings") as call:
        call.record_usage(Usage(input_tokens=1_000_000, output_tokens=0))
    assert (seen[0].operation, seen[0].cost) == (Operation.EMBEDDINGS, Decimal("0.02"))


def test_the_response_model_is_priced(seen: Captured[Invocation]) -> None:
    """The model that answered decides the price, not the one that was asked for."""
    with track_llm(model="gpt-4o") as call:
        call.record_model("gpt-4o-mini")
        call.record_usage(input_tokens=150, output_tokens=50)
    assert seen[0].cost == Decimal("0.0000525")


def test_unknown_stays_unknown(seen: Captured[Invocation]) -> None:
    """Without usage, or without a price, the cost is None and the call is unpriced."""
    with track_llm(model="gpt-4o"):
        pass
    with track_llm(model="never-heard-of", provider="openai") as call:
        call.record_usage(input_tokens=1, output_tokens=1)
    missing, unknown = seen
    assert (missing.cost, missing.is_unpriced, missing.is_usage_missing) == (None, True, True)
    assert (unknown.cost, unknown.is_unpriced, unknown.is_usage_missing) == (None, True, False)


def test_a_cache_hit_has_no_tokens_and_no_cost(seen: Captured[Invocation]) -> None:
    """What the application's cache answered costs nothing, whatever usage it repeats."""
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
        call.set_cached(True)
    (run,) = seen
    assert (run.cached, run.usage, run.cost, run.is_unpriced) == (True, None, None, False)


def test_a_stated_cost_wins(seen: Captured[Invocation]) -> None:
    """A cost that the caller states wins over the table."""
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
        call.set_cost("0.25")
    assert (seen[0].cost, seen[0].cost_source) == (Decimal("0.25"), "caller")


@pytest.mark.parametrize("amount", [-1, "NaN", float("inf"), "a lot", None])
def test_what_is_no_amount_is_counted_and_not_taken(
    seen: Captured[Invocation], recorder: Recorder, amount: Any
) -> None:
    """An invalid cost is ignored without an exception; the table's is kept."""
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
        call.set_cost(amount)
    assert seen[0].cost == Decimal("0.000875")
    assert recorder.parts is not None
    assert recorder.parts.counters.totals
    assert any(labels == ("set_cost",) for _, labels in recorder.parts.counters.totals)


@given(
    st.dictionaries(st.sampled_from(Usage._fields), st.integers() | st.floats() | st.text() | st.none() | st.booleans())
)
def test_hand_given_numbers_never_raise_and_are_never_negative(counts: dict[str, Any]) -> None:
    """Whatever is given as usage, nothing is raised and nothing negative is booked."""
    with fresh_recorder() as recorder, capture_invocations(recorder) as runs:
        with track_llm(model="gpt-4o") as call:
            call.record_usage(**counts)
        for run in runs:
            assert all(tokens is None or (type(tokens) is int and tokens >= 0) for tokens in run.usage or ())
            assert run.cost is None or run.cost >= 0


def test_a_stream_is_timed_and_read(seen: Captured[Invocation]) -> None:
    """The stream helper passes every chunk on, times the first token and keeps the last usage."""
    with track_llm(model="gpt-4o") as call:
        assert list(call.stream(CHUNKS)) == CHUNKS
    (run,) = seen
    assert run.status is Status.SUCCESS
    assert (run.streaming, run.response_model, run.cost) == (True, "gpt-4o-2024-08-06", Decimal("0.000875"))
    assert run.ttft_s is not None
    assert 0 <= run.ttft_s <= run.duration_s


def test_a_stream_that_is_left_is_abandoned(seen: Captured[Invocation]) -> None:
    """A consumer that stops reading abandons the call, whether or not he closes the stream."""
    with track_llm(model="gpt-4o") as call:
        for _ in call.stream(CHUNKS):
            break
    with track_llm(model="gpt-4o") as call:
        stream = iter(call.stream(CHUNKS))
        next(stream)
    assert [run.status for run in seen] == [Status.ABANDONED, Status.ABANDONED]
    assert [run.usage for run in seen] == [None, None]


def test_an_asynchronous_stream(seen: Captured[Invocation]) -> None:
    """An asynchronous stream succeeds when it is read to the end, and is abandoned or failed when left or broken."""

    async def chunks(*, fail: bool = False) -> AsyncIterator[object]:
        for chunk in CHUNKS:
            await asyncio.sleep(0)
            yield chunk
        if fail:
            raise ConnectionError

    async def consume() -> None:
        async with track_llm(model="gpt-4o") as call:
            assert [chunk async for chunk in call.astream(chunks())] == CHUNKS
        async with track_llm(model="gpt-4o") as call:
            async for _ in call.astream(chunks()):
                break

    async def consume_failing() -> None:
        async with track_llm(model="gpt-4o") as call:
            async for _ in call.astream(chunks(fail=True)):
                pass

    asyncio.run(consume())
    with pytest.raises(ConnectionError):
        asyncio.run(consume_failing())
    whole, left, failed = seen
    assert (whole.status, whole.usage) == (Status.SUCCESS, Usage(input_tokens=150, output_tokens=50))
    assert left.status is Status.ABANDONED
    assert (failed.status, failed.error_category) == (Status.ERROR, "connection")
    assert failed.usage == whole.usage


def test_a_stream_that_fails_keeps_what_it_said(seen: Captured[Invocation]) -> None:
    """A stream that breaks off raises as it would, with the usage seen before."""

    def broken() -> Iterator[object]:
        yield from CHUNKS
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError), track_llm(model="gpt-4o") as call:
        list(call.stream(broken()))
    assert (seen[0].status, seen[0].cost) == (Status.ERROR, Decimal("0.000875"))


def test_errors_have_a_bounded_category(seen: Captured[Invocation]) -> None:
    """A failed call is one of the known categories, by class and HTTP status."""

    class RateLimitError(Exception):
        status_code = 429

    for error in (RateLimitError(), ValueError()):
        with pytest.raises(type(error)), track_llm(model="gpt-4o"):
            raise error
    assert [run.error_category for run in seen] == ["rate_limit", "other"]


def test_retries_are_counted_apart(seen: Captured[Invocation]) -> None:
    """Three attempts are one call with two retries."""
    with track_llm(model="gpt-4o") as call:
        call.retry()
        call.retry()
    assert (len(seen), seen[0].retries) == (1, 2)


def test_after_the_end_nothing_changes(seen: Captured[Invocation]) -> None:
    """What is said after the end is not heard."""
    with track_llm(model="gpt-4o") as call:
        pass
    call.record_usage(input_tokens=1)
    call.record_response({"usage": {"input_tokens": 3, "output_tokens": 1}})
    call.record_model("other")
    call.set_cost(3)
    call.set_cached(True)
    call.first_token()
    call.retry()
    call.set_attribute("k", 1)
    (run,) = seen
    assert (run.usage, run.cost, run.cached, run.ttft_s, run.retries) == (None, None, None, None, 0)


def test_a_response_tells_the_provider_where_nobody_else_did(seen: Captured[Invocation]) -> None:
    """Where neither provider nor model was given, the response decides."""
    with track_llm() as call:
        call.record_response(
            {
                "type": "message",
                "role": "assistant",
                "model": "claude-sonnet-4-5",
                "content": [{"type": "text", "text": "hi"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 5},
            }
        )
    (run,) = seen
    assert (run.provider, run.model) == ("anthropic", "claude-sonnet-4-5")
    assert run.usage is not None
    assert (run.usage.input_tokens, run.usage.cache_read_tokens) == (100, 90)


def test_a_call_after_the_fact(seen: Captured[Invocation], recorder: Recorder) -> None:
    """A call that is over already is recorded with its duration, usage, cost and status."""
    record_llm_call(model="gpt-4o", duration_seconds=1.5, usage={"input_tokens": 150, "output_tokens": 50})
    record_llm_call(model="m", provider="p", status="error", usage=Usage(1, 2), cost=0.5, cached=False)
    done, failed = seen
    assert done.duration_s == pytest.approx(1.5, abs=0.1)
    assert done.cost == Decimal("0.000875")
    assert (failed.status, failed.cost, failed.cached) == (Status.ERROR, Decimal("0.5"), False)
    recorder.drain()
    assert recorder.registry is not None
    active = [s for f in recorder.registry.collect() for s in f.samples if s.name == "llm_active_requests"]
    assert sum(sample.value for sample in active) == 0


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_duration_that_is_none_loses_no_call(seen: Captured[Invocation], seconds: float) -> None:
    """A call with an invalid duration is recorded without one."""
    record_llm_call(model="gpt-4o", status="error", duration_seconds=seconds)
    assert seen[0].status is Status.ERROR
    assert seen[0].duration_s < 1


def test_after_the_fact_while_disabled() -> None:
    """Switched off, a call after the fact is nothing."""
    with fresh_recorder(enabled=False) as off:
        record_llm_call(model="gpt-4o")
        assert off.pipeline.backlog == 0


RESPONSE = {
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200},
}


def test_a_response_that_is_read_later_is_booked_the_same(seen: Captured[Invocation]) -> None:
    """A response that is read off the caller's thread has the same usage, model and cost; after the end it is none."""
    for read in ("record_response", "read_later"):
        with track_llm(model="gpt-4o") as call:
            getattr(call, read)(RESPONSE)
    with track_llm(model="gpt-4o") as call:
        pass
    call.read_later(RESPONSE)
    now, later, late = seen
    assert later.cost == now.cost == Decimal("0.000875")
    assert (later.usage, later.response_model) == (now.usage, now.response_model)
    assert later.usage == Usage(input_tokens=150, output_tokens=50)
    assert (late.usage, late.cost) == (None, None)


def test_a_repeated_answer_out_of_a_frameworks_cache(seen: Captured[Invocation]) -> None:
    """A reading that says that a framework's own cache answered makes the call a hit: no tokens, no cost."""
    with track_llm(model="gpt-4o") as call:
        call.record_reading(Reading(model="gpt-4o", cached=True))
    (run,) = seen
    assert (run.cached, run.usage, run.cost, run.is_unpriced) == (True, None, None, False)


def test_usage_that_does_not_tell_the_cost(seen: Captured[Invocation]) -> None:
    """A call that is left unpriced keeps its tokens and counts as unpriced; after the end it cannot be changed."""
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
        call.leave_unpriced()
    with track_llm(model="gpt-4o") as call:
        call.record_usage(input_tokens=150, output_tokens=50)
    call.leave_unpriced()
    unpriced, priced = seen
    assert (unpriced.usage, unpriced.cost, unpriced.is_unpriced) == (priced.usage, None, True)
    assert priced.cost == Decimal("0.000875")


def test_embeddings_whose_usage_is_a_total_alone(seen: Captured[Invocation]) -> None:
    """All tokens of an embeddings call are input, so `total_tokens` alone is enough for it."""
    for usage in ({"total_tokens": 12}, SimpleNamespace(total_tokens=12)):
        with track_llm(model="text-embedding-3-small", operation=Operation.EMBEDDINGS) as call:
            call.record_usage(usage)
    with track_llm(model="gpt-4o-mini") as call:
        call.record_usage({"total_tokens": 12})
    assert [run.usage for run in seen] == [Usage(12, 0), Usage(12, 0), None]


def test_a_usage_of_embeddings_without_tokens_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """An object that states no tokens is refused as such, and costs the call nothing else."""
    with track_llm(model="text-embedding-3-small", operation=Operation.EMBEDDINGS) as call:
        call.record_usage(object())
    assert "taskpilot_obs: record_usage failed with ValueError" in caplog.text


def test_an_answer_that_is_withheld_is_not_free(seen: Captured[Invocation]) -> None:
    """A blocked call costs nothing unless the model answered; then its cost is unknown where no usage is stated."""

    def blocked(response: object) -> None:
        with track_llm(model="gpt-4o") as call:
            if response is not None:
                call.record_response(response)
            raise PolicyViolationError("words", "no")

    for response in (None, {"model": "gpt-4o", "choices": [{"message": {"content": "hi"}}]}):
        with pytest.raises(PolicyViolationError):
            blocked(response)
    assert [(run.status, run.pricing) for run in seen] == [
        (Status.BLOCKED, Pricing.FREE),
        (Status.BLOCKED, Pricing.UNPRICED),
    ]
