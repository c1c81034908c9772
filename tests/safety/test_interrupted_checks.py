"""A caller gives up while an answer is checked or a stream is read: what was billed and decided is recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskpilot_obs._api.decorators import observe_llm
from taskpilot_obs.config import get_recorder
from taskpilot_obs.integration import ModelRequest, call_model, call_model_async
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.safety.guardrails import check_with
from taskpilot_obs.testing import capture_invocations, fresh_recorder

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
