"""A caller gives up while an answer is checked or a stream is read: what was billed and decided is recorded."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from taskpilot_obs._api.decorators import observe_llm
from taskpilot_obs._enforcement import streams
from taskpilot_obs.config import get_recorder
from taskpilot_obs.integration import ModelRequest, call_model, call_model_async
from taskpilot_obs.records import CheckResult, Decision, Invocation, Status
from taskpilot_obs.safety.guardrails import check_with
from taskpilot_obs.safety.subjects import CheckInput
from taskpilot_obs.testing import capture_invocations, capture_records, fresh_recorder

ANSWER = {
    "model": "gpt-4o",
    "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1_000, "completion_tokens": 500},
}
REQUEST = ModelRequest("gpt-4o", "openai", content="x")


class GivenUp(BaseException):
    """Ends a synchronous check from outside, as Ctrl-C does."""


class Slow:
    """An asynchronous check of outputs that answers only when it is let."""

    name = "slow"
    stages = ("output",)

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def check(self, _subject: object) -> bool:
        self.asked.set()
        await asyncio.Event().wait()
        return True


def tokens(call: Invocation) -> tuple[int | None, int | None]:
    assert call.usage is not None
    return call.usage.input_tokens, call.usage.output_tokens


async def cancelled(check: Slow, work: Any) -> None:
    """Run something until the check is asked, and cancel it there."""
    task = asyncio.ensure_future(work())
    await check.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def answered() -> Any:
    return ANSWER


async def chunks() -> Any:
    yield {"model": "gpt-4o", "choices": [{"delta": {"content": "hi"}}]}
    yield {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 1_000, "completion_tokens": 500}}


def wrapped() -> Any:
    return call_model_async(get_recorder(), REQUEST, answered)


async def buffered() -> None:
    stream = observe_llm(model="gpt-4o", provider="openai", buffer=True)(chunks)
    async for _ in stream():
        pass


@pytest.mark.parametrize("work", [wrapped, observe_llm(model="gpt-4o", provider="openai")(answered), buffered])
def test_an_answer_that_is_cancelled_in_its_check_was_billed(work: Any) -> None:
    """A caller's cancellation falls into a slow output check: the call has its usage and its cost."""

    async def main() -> None:
        check = Slow()
        with fresh_recorder(guardrails=[check]) as recorder, capture_invocations(recorder) as seen:
            await cancelled(check, work)
            [call] = seen
            assert (call.status, tokens(call)) == (Status.CANCELLED, (1_000, 500))
            assert call.cost

    asyncio.run(main())


def test_an_interrupt_in_a_synchronous_check_keeps_the_usage() -> None:
    """An interrupt in a synchronous output check: the call has its usage."""

    def interrupted(_subject: object) -> bool:
        raise GivenUp

    check = check_with(interrupted, name="interrupted", stages="output")
    with fresh_recorder(guardrails=[check]) as recorder, capture_invocations(recorder) as seen:
        with pytest.raises(GivenUp):
            call_model(recorder, REQUEST, lambda: ANSWER)
        assert [tokens(each) for each in seen] == [(1_000, 500)]


def test_a_stream_that_breaks_while_it_is_held_back_was_billed() -> None:
    """A buffered stream fails after it stated its usage: the call has it."""

    def broken() -> Any:
        yield {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 1_000, "completion_tokens": 500}}
        raise ConnectionError

    async def broken_async() -> Any:
        for chunk in broken():
            yield chunk

    async def read() -> None:
        await anext(observe_llm(model="gpt-4o", provider="openai", buffer=True)(broken_async)())

    check = check_with(lambda _: True, name="yes", stages="output")
    with fresh_recorder(guardrails=[check]) as recorder, capture_invocations(recorder) as seen:
        with pytest.raises(ConnectionError):
            list(observe_llm(model="gpt-4o", provider="openai", buffer=True)(broken)())
        with pytest.raises(ConnectionError):
            asyncio.run(read())
        assert [(each.status, tokens(each)) for each in seen] == [(Status.ERROR, (1_000, 500))] * 2


# --- streams ----------------------------------------------------------------------------------------------------------


def pieces() -> Any:
    yield "my card "
    yield "is 4111"
    yield " and more"


def cut() -> Any:
    yield "my card "
    yield "is 4111"
    raise ConnectionError


def read_two(stream: Any) -> None:
    next(stream)
    next(stream)
    stream.close()


def read_to_the_cut(stream: Any) -> None:
    with pytest.raises(ConnectionError):
        list(stream)


def judged(how: Any, **options: Any) -> tuple[list[str], list[CheckResult]]:
    """What an output check in enforce mode was asked about, and the results, while a stream is read in some way."""
    texts: list[str] = []

    def no(subject: CheckInput) -> bool:
        texts.append(subject.text)
        return False

    check = check_with(no, name="no", stages="output", **options)
    with fresh_recorder(guardrails=[check], mode="enforce") as recorder, capture_records(Decision, recorder) as seen:
        how()
        return texts, [each.result for each in seen]


LEFT = (["my card is 4111"], [CheckResult.BYPASSED])


@pytest.mark.parametrize(("make", "read"), [(pieces, read_two), (cut, read_to_the_cut)])
def test_a_stream_that_goes_no_further_is_judged(make: Any, read: Any) -> None:
    """What a stream has handed out is checked when it is left or cut: the decision is `bypassed`, once."""
    assert judged(lambda: read(call_model(get_recorder(), REQUEST, make))) == LEFT
    observed = observe_llm(model="gpt-4o")(make)
    assert judged(lambda: read(observed())) == LEFT


async def read_async(*, how: str) -> None:
    """Read two pieces of an asynchronous stream, and go."""
    waits = asyncio.Event()

    async def send() -> Any:
        yield "my card "
        yield "is 4111"
        waits.set()
        await asyncio.Event().wait()

    async def sent() -> Any:
        return send()

    stream = await call_model_async(get_recorder(), REQUEST, sent)
    await anext(stream)
    await anext(stream)
    if how == "closed":
        await stream.aclose()
        return
    task = asyncio.ensure_future(anext(stream))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_an_asynchronous_stream_that_goes_no_further_is_judged(how: str) -> None:
    """What an asynchronous stream has handed out is checked when it is closed or cancelled."""
    assert judged(lambda: asyncio.run(read_async(how=how))) == LEFT


def test_a_check_that_never_answers_does_not_hold_up_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    """An asynchronous check of a stream that is left gets only so long."""
    monkeypatch.setattr(streams, "LONGEST_AT_LEAVING_S", 0.01)

    async def main() -> None:
        check = Slow()
        with fresh_recorder(guardrails=[check]) as recorder, capture_records(Decision, recorder) as seen:
            await read_async(how="cancelled")
            assert check.asked.is_set()
            assert [each.result for each in seen] == [CheckResult.BYPASSED]

    asyncio.run(main())


class SdkStream:
    """A stream object as provider SDKs have it, whose response is closed by those who leave it."""

    def __init__(self) -> None:
        self._iterator = pieces()
        self.response = Response()

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    def close(self) -> None:
        self.response.close()


class Response:
    def close(self) -> None:
        """Close the connection."""


def test_a_stream_of_an_sdk_that_is_closed_is_judged() -> None:
    """Closing an SDK's stream closes only its response: what was handed out is checked all the same."""
    assert judged(lambda: read_two(call_model(get_recorder(), REQUEST, SdkStream))) == LEFT


def test_the_garbage_collector_asks_no_checks() -> None:
    """A stream that only the garbage collector finds is counted: a check could wait for what the collector stopped."""
    counted: list[float] = []

    def drop() -> None:
        holder: list[Any] = [call_model(get_recorder(), REQUEST, pieces)]
        holder.append(holder)
        next(holder[0])
        del holder
        gc.collect()
        recorder = get_recorder()
        recorder.flush()
        assert recorder.registry is not None
        value = recorder.registry.get_sample_value("taskpilot_obs_internal_errors_total", {"where": "bypassed"})
        counted.append(value or 0)

    assert judged(drop) == ([], [])
    assert counted == [1]


def test_a_stream_that_was_read_whole_is_a_success() -> None:
    """A cancellation falls into the last check of a stream: it was handed out whole, with its usage."""

    async def main() -> None:
        check = Slow()

        async def read() -> None:
            async for _ in observe_llm(model="gpt-4o", provider="openai")(chunks)():
                pass

        with fresh_recorder(guardrails=[check]) as recorder, capture_invocations(recorder) as seen:
            await cancelled(check, read)
            assert [(each.status, tokens(each)) for each in seen] == [(Status.SUCCESS, (1_000, 500))]

    asyncio.run(main())
