"""Google's own client, wrapped, against a provider on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, assert_type

import pytest
from _provider import TEXT, Provider, serving
from _runs import cancel_under_way
from google.genai import Client, errors, types
from taskpilot_obs_google_genai import wrap

from taskpilot_obs import observe_agent, track_llm
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, ConfigurationError
from taskpilot_obs.records import Invocation, Usage
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

MODEL = "gemini-2.5-flash"
WHOLE = Usage(100, 20, cache_read_tokens=40, reasoning_tokens=8)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as running:
        yield running


def client_of(provider: Provider) -> Client:
    return Client(api_key="k", http_options=types.HttpOptions(base_url=provider.url))


@pytest.fixture
def client(provider: Provider) -> Iterator[Client]:
    with client_of(provider) as made:
        yield wrap(made)


def figures(seen: Any) -> list[tuple[Any, ...]]:
    return [(run.status.value, run.usage, run.cost is not None, run.streaming) for run in seen]


def test_a_call_is_recorded(client: Client, seen: Captured[Invocation]) -> None:
    """Model, provider, usage and cost of an answer are recorded, and the caller gets it."""
    assert_type(client, Client)
    answer = client.models.generate_content(model=MODEL, contents="hello", config={"max_output_tokens": 5})
    assert answer.text == "".join(TEXT)
    (run,) = seen
    assert (run.operation, run.request_model, run.provider) == ("chat", MODEL, "gcp.gemini")
    assert figures(seen) == [("success", WHOLE, True, False)]


def test_chats_streams_that_are_left_and_embeddings(client: Client, seen: Captured[Invocation]) -> None:
    """A chat is its calls, a stream is followed to its end, one that is left is abandoned, embeddings count."""
    assert client.chats.create(model=MODEL).send_message("hello").text == "".join(TEXT)
    assert len(list(client.models.generate_content_stream(model=MODEL, contents="hello"))) == 2
    left: Any = client.models.generate_content_stream(model=MODEL, contents="SLOW")
    next(left)
    left.close()
    client.models.embed_content(model="gemini-embedding-001", contents="hello")
    found = [(run.operation.value, run.status.value, run.streaming) for run in seen]
    assert found == [
        ("chat", "success", False),
        ("chat", "success", True),
        ("chat", "abandoned", True),
        ("embeddings", "success", False),
    ]
    assert seen[1].usage == WHOLE


def test_a_failure_passes_unchanged(client: Client, seen: Captured[Invocation]) -> None:
    """The SDK's exception reaches the caller."""
    with pytest.raises(errors.ServerError):
        client.models.generate_content(model=MODEL, contents="FAIL")
    assert [(run.status.value, run.error_category) for run in seen] == [("error", "server")]


def test_asynchronous_and_cancelled_calls(provider: Provider, seen: Captured[Invocation]) -> None:
    """Calls and streams of `client.aio`, many at once, beneath the agent that makes them; and cancelled ones."""

    @observe_agent("Asker")
    async def ask(client: Client) -> None:
        await client.aio.models.generate_content(model=MODEL, contents="hello")
        async for _ in await client.aio.models.generate_content_stream(model=MODEL, contents="hello"):
            pass

    async def work() -> None:
        client = wrap(client_of(provider))
        await asyncio.gather(*(ask(client) for _ in range(5)))
        await cancel_under_way(provider, client.aio.models.generate_content(model=MODEL, contents="HANG"))
        await client.aio.aclose()
        client.close()

    asyncio.run(work())
    calls = [run for run in seen if run.operation == "chat"]
    agents = {run.invocation_id for run in seen if run.operation == "invoke_agent"}
    expected = [("success", WHOLE, True, False)] * 5 + [("success", WHOLE, True, True)] * 5
    assert sorted(figures(calls), key=str) == sorted([*expected, ("cancelled", None, False, False)], key=str)
    assert {run.parent_id for run in calls} - {None} == agents


def test_recorded_once_and_wrapped_once(client: Client, seen: Captured[Invocation]) -> None:
    """Beneath `track_llm` there is one record; wrapped twice, too; another object is refused."""
    assert wrap(client) is client
    with track_llm(provider="google", model=MODEL) as call:
        call.record_response(client.models.generate_content(model=MODEL, contents="hello"))
    client.models.generate_content(model=MODEL, contents="hello")
    assert [run.usage for run in seen] == [WHOLE, WHOLE]
    with pytest.raises(ConfigurationError, match="takes a client of the google-genai package, got object"):
        wrap(object())  # type: ignore[arg-type]  # what the test is about


def test_a_budget_refuses_before_the_request(provider: Provider) -> None:
    """Once a budget is used up, no request leaves: whole, streamed and asynchronous."""
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with fresh_recorder(budgets=[budget]) as recorder, capture_invocations(recorder) as seen:
        with client_of(provider) as made:
            client = wrap(made)
            client.models.generate_content(model=MODEL, contents="hello")
            with pytest.raises(BudgetExceededError):
                next(client.models.generate_content_stream(model=MODEL, contents="hello"))
            with pytest.raises(BudgetExceededError):
                asyncio.run(client.aio.models.generate_content(model=MODEL, contents="hello"))
        assert [run.status.value for run in seen] == ["success", "blocked", "blocked"]
    assert len(provider.calls) == 1
