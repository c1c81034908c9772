"""Anthropic's own clients, wrapped, against a provider on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, assert_type

import anthropic
import pytest
from _provider import TEXT, Provider, serving
from _runs import cancel_under_way
from anthropic import Anthropic, AnthropicBedrock, AsyncAnthropic
from taskpilot_obs_anthropic import wrap

from taskpilot_obs import observe_agent, track_llm
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, ConfigurationError
from taskpilot_obs.records import Invocation, Usage
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

MODEL = "claude-sonnet-4-6"
WHOLE = Usage(100, 20, cache_read_tokens=40, cache_write_tokens=0)


def asking(text: str = "hello") -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as running:
        yield running


@pytest.fixture
def client(provider: Provider) -> Iterator[Anthropic]:
    with Anthropic(api_key="k", base_url=provider.url) as made:
        yield wrap(made)


def in_loop(provider: Provider, work: Any) -> None:
    """Run work with a wrapped asynchronous client in an event loop of its own."""

    async def run() -> None:
        async with AsyncAnthropic(api_key="k", base_url=provider.url) as made:
            await work(wrap(made))

    asyncio.run(run())


def figures(seen: Any) -> list[tuple[Any, ...]]:
    return [(run.status.value, run.usage, run.cost is not None, run.streaming) for run in seen]


def test_a_call_is_recorded(client: Anthropic, seen: Captured[Invocation]) -> None:
    """Model, provider, usage and cost of a message are recorded, and the caller gets it."""
    assert_type(client, Anthropic)
    answer = client.messages.create(**asking())
    assert answer.content[0].text == "".join(TEXT)
    (run,) = seen
    assert (run.operation, run.request_model, run.provider) == ("chat", MODEL, "anthropic")
    assert figures(seen) == [("success", WHOLE, True, False)]


def test_streams_and_helpers_are_one_call_each(client: Anthropic, seen: Captured[Invocation]) -> None:
    """`stream=True`, `stream()` and raw responses are recorded once, at their end, with their usage."""
    for _ in client.messages.create(**asking(), stream=True):
        assert len(seen) == 0
    with client.messages.stream(**asking()) as stream:
        assert "".join(stream.text_stream) == "".join(TEXT)
    assert client.messages.with_raw_response.create(**asking()).parse().usage.output_tokens == 20
    with client.messages.with_streaming_response.create(**asking()) as response:
        assert b"sunny" in response.read()
    followed = ("success", WHOLE, True, True)
    read = ("success", WHOLE, True, False)
    assert figures(seen) == [followed, followed, read, ("success", None, False, False)]
    assert seen[0].ttft_s is not None


def test_a_stream_that_is_left_is_abandoned(client: Anthropic, seen: Captured[Invocation]) -> None:
    """A stream that is not read to its end is not a success, with a helper or without."""
    with client.messages.create(**asking("SLOW"), stream=True) as stream:
        next(iter(stream))
    with client.messages.stream(**asking("SLOW")) as events:
        next(iter(events))
    assert [run.status.value for run in seen] == ["abandoned", "abandoned"]


def test_failures_and_retries(client: Anthropic, seen: Captured[Invocation]) -> None:
    """The SDK's exception reaches the caller; each attempt beyond the first is counted, also where it helps."""
    with pytest.raises(anthropic.InternalServerError):
        client.with_options(max_retries=1).messages.create(**asking("FAIL"))
    client.messages.create(**asking("RATE"))
    found = [(run.status.value, run.error_category, run.retries) for run in seen]
    assert found == [("error", "server", 1), ("success", None, 1)]


def test_asynchronous_and_cancelled_calls(provider: Provider, seen: Captured[Invocation]) -> None:
    """Calls and streams of an asynchronous client, many at once, beneath the agent that makes them; and cancelled."""

    @observe_agent("Asker")
    async def ask(client: AsyncAnthropic) -> None:
        await client.messages.create(**asking())
        async with client.messages.stream(**asking()) as stream:
            await stream.get_final_message()

    async def work(client: AsyncAnthropic) -> None:
        await asyncio.gather(*(ask(client) for _ in range(5)))
        await cancel_under_way(provider, client.messages.create(**asking("HANG")))

    in_loop(provider, work)
    calls = [run for run in seen if run.operation == "chat"]
    agents = {run.invocation_id for run in seen if run.operation == "invoke_agent"}
    expected = [("success", WHOLE, True, False)] * 5 + [("success", WHOLE, True, True)] * 5
    assert sorted(figures(calls), key=str) == sorted([*expected, ("cancelled", None, False, False)], key=str)
    assert {run.parent_id for run in calls} - {None} == agents


def test_a_call_that_is_recorded_already_is_recorded_once(client: Anthropic, seen: Captured[Invocation]) -> None:
    """Beneath `track_llm` a wrapped client adds its retries, and no call of its own."""
    with track_llm(provider="anthropic", model=MODEL) as call:
        call.record_response(client.messages.create(**asking("RATE")))
    assert [(run.usage, run.retries) for run in seen] == [(WHOLE, 1)]


def test_a_budget_refuses_before_the_request(provider: Provider) -> None:
    """Once a budget is used up, no request leaves: synchronous, asynchronous and streamed."""
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with fresh_recorder(budgets=[budget]) as recorder, capture_invocations(recorder) as seen:

        async def work(client: AsyncAnthropic) -> None:
            await client.messages.create(**asking())
            with pytest.raises(BudgetExceededError):
                async with client.messages.stream(**asking()):
                    pass

        in_loop(provider, work)
        with Anthropic(api_key="k", base_url=provider.url) as made, pytest.raises(BudgetExceededError):
            wrap(made).messages.create(**asking())
        assert [run.status.value for run in seen] == ["success", "blocked", "blocked"]
    assert len(provider.calls) == 1


def test_clouds_and_other_clients(client: Anthropic, seen: Captured[Invocation]) -> None:
    """Bedrock's client names its provider; wrapped twice, a call is recorded once; another object is refused."""
    assert wrap(client) is client
    client.messages.create(**asking())
    keys: Any = {"aws_access_key": "a", "aws_secret_key": "s", "aws_region": "eu-west-1"}
    bedrock = wrap(AnthropicBedrock(**keys, base_url="http://127.0.0.1:1", max_retries=0))
    with bedrock, pytest.raises((anthropic.APIConnectionError, ImportError)):  # ImportError: boto3 signs requests
        bedrock.messages.create(**asking())
    assert [run.provider for run in seen] == ["anthropic", "aws.bedrock"]
    with pytest.raises(ConfigurationError, match="takes a client of the anthropic package, got object"):
        wrap(object())  # type: ignore[type-var]  # what the test is about
