"""OpenAI's own clients, wrapped, against a provider on loopback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, assert_type

import openai
import pytest
from _provider import TEXT, Provider, serving
from _runs import cancel_under_way
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel
from taskpilot_obs_openai import wrap

from taskpilot_obs import observe_agent, observe_llm, track_llm
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, ConfigurationError, GuardrailBlockedError
from taskpilot_obs.integration import Recorder
from taskpilot_obs.records import Invocation, Usage
from taskpilot_obs.safety import blocked, check_with
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder

MODEL = "gpt-4o-mini"
WHOLE = Usage(100, 20, cache_read_tokens=40, reasoning_tokens=8)


def said(text: str = "hello") -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as running:
        yield running


@pytest.fixture
def client(provider: Provider) -> Iterator[OpenAI]:
    with OpenAI(api_key="k", base_url=f"{provider.url}/v1") as made:
        yield wrap(made)


def in_loop(provider: Provider, work: Any) -> Any:
    """Run work with a wrapped asynchronous client in an event loop of its own."""

    async def run() -> Any:
        async with AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1") as made:
            return await work(wrap(made))

    return asyncio.run(run())


def figures(seen: Any) -> list[tuple[Any, ...]]:
    return [(run.status.value, run.usage, run.cost is not None, run.streaming) for run in seen]


def test_a_call_is_recorded(client: OpenAI, seen: Captured[Invocation]) -> None:
    """Model, provider, usage, cost and answer of a chat completion are recorded, and the caller gets it."""
    assert_type(client, OpenAI)
    answer = client.chat.completions.create(model=MODEL, messages=said())
    assert answer.choices[0].message.content == "".join(TEXT)
    (run,) = seen
    assert (run.operation, run.request_model, run.provider) == ("chat", MODEL, "openai")
    assert run.response_model == f"{MODEL}-2024-07-18"
    assert figures(seen) == [("success", WHOLE, True, False)]


def test_responses_and_embeddings(client: OpenAI, seen: Captured[Invocation]) -> None:
    """The other two endpoints are recorded alike; what asks no model is not."""
    client.responses.create(model=MODEL, input="hello")
    client.embeddings.create(model="text-embedding-3-small", input="hello")
    with pytest.raises(openai.APIError):
        client.models.list()
    assert [(run.operation.value, run.usage) for run in seen] == [
        ("chat", WHOLE),
        ("embeddings", Usage(7, 0)),
    ]


class Weather(BaseModel):
    """What `parse` is asked for."""

    sunny: bool = True


def test_helpers_are_one_call_each(client: OpenAI, seen: Captured[Invocation]) -> None:
    """`parse`, `stream` and the raw responses are recorded once, with their usage."""
    with pytest.raises(ValueError, match="validation error"):  # the provider's answer is not JSON
        client.chat.completions.parse(model=MODEL, messages=said(), response_format=Weather)
    options: Any = {"stream_options": {"include_usage": True}}
    with client.chat.completions.stream(model=MODEL, messages=said(), **options) as stream:
        assert stream.get_final_completion().usage is not None
    with client.responses.stream(model=MODEL, input="hello") as events:
        for _ in events:
            pass
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=said())
    assert raw.parse().id.startswith("chatcmpl")
    assert [run.status.value for run in seen] == ["error", "success", "success", "success"]
    assert [run.usage for run in list(seen)[1:]] == [WHOLE] * 3


def test_a_body_that_the_application_reads_has_no_usage(client: OpenAI, seen: Captured[Invocation]) -> None:
    """`with_streaming_response` leaves the body to the application: the call is counted, its usage unknown."""
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=said()) as response:
        assert b"sunny" in response.read()
    assert figures(seen) == [("success", None, False, False)]


def test_a_stream_is_followed_to_its_end(client: OpenAI, seen: Captured[Invocation]) -> None:
    """The caller gets the SDK's stream; usage, time to first token and duration are those of the whole."""
    stream = client.chat.completions.create(
        model=MODEL, messages=said(), stream=True, stream_options={"include_usage": True}
    )
    assert isinstance(stream, openai.Stream)
    assert len(seen) == 0
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "".join(TEXT)
    assert figures(seen) == [("success", WHOLE, True, True)]
    assert seen[0].ttft_s is not None


def test_a_stream_that_is_left_is_abandoned(client: OpenAI, seen: Captured[Invocation]) -> None:
    """A stream that is not read to its end is not a success."""
    stream = client.chat.completions.create(model=MODEL, messages=said("SLOW"), stream=True)
    next(stream)
    stream.close()
    del stream
    assert [run.status.value for run in seen] == ["abandoned"]


def test_a_failure_passes_unchanged(client: OpenAI, seen: Captured[Invocation]) -> None:
    """The SDK's exception reaches the caller, and each attempt beyond the first is counted."""
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=2).chat.completions.create(model=MODEL, messages=said("FAIL"))
    (run,) = seen
    assert (run.status, run.error_type, run.error_category) == ("error", "openai.InternalServerError", "server")
    assert run.retries == 2


def test_retries_that_help_are_counted(client: OpenAI, provider: Provider, seen: Captured[Invocation]) -> None:
    """A call that a retry saves is one success with one retry."""
    client.chat.completions.create(model=MODEL, messages=said("RATE"))
    assert [(run.status.value, run.retries) for run in seen] == [("success", 1)]
    assert len(provider.calls) == 2


def test_asynchronous_clients(provider: Provider, seen: Captured[Invocation]) -> None:
    """Calls, streams and retries of an asynchronous client, many at once, beneath the agent that makes them."""

    @observe_agent("Asker")
    async def ask(client: AsyncOpenAI) -> None:
        await client.chat.completions.create(model=MODEL, messages=said("RATE"))
        stream = await client.responses.create(model=MODEL, input="hello", stream=True)
        async for _ in stream:
            pass

    async def work(client: AsyncOpenAI) -> None:
        await asyncio.gather(*(ask(client) for _ in range(5)))

    in_loop(provider, work)
    calls = [run for run in seen if run.operation == "chat"]
    agents = {run.invocation_id for run in seen if run.operation == "invoke_agent"}
    assert figures(calls).count(("success", WHOLE, True, False)) == 5
    assert figures(calls).count(("success", WHOLE, True, True)) == 5
    assert {run.parent_id for run in calls} == agents
    assert sum(run.retries for run in calls) == 1


def test_a_cancelled_call_is_cancelled(provider: Provider, seen: Captured[Invocation]) -> None:
    """Cancelling the task that waits for the model cancels the call."""

    async def work(client: AsyncOpenAI) -> None:
        await cancel_under_way(provider, client.chat.completions.create(model=MODEL, messages=said("HANG")))

    in_loop(provider, work)
    assert [run.status.value for run in seen] == ["cancelled"]


def test_a_call_that_is_recorded_already_is_recorded_once(client: OpenAI, seen: Captured[Invocation]) -> None:
    """Beneath `@observe_llm` and `track_llm` a wrapped client adds its retries, and no call of its own."""

    @observe_llm(provider="openai")
    def ask(model: str) -> Any:
        return client.chat.completions.create(model=model, messages=said("RATE"))

    ask(MODEL)
    with track_llm(provider="openai", model=MODEL) as call:
        call.record_response(client.chat.completions.create(model=MODEL, messages=said()))
    assert [(run.usage, run.retries) for run in seen] == [(WHOLE, 1), (WHOLE, 0)]


def test_langchain_over_wrapped_clients_is_recorded_once(provider: Provider, seen: Captured[Invocation]) -> None:
    """LangChain's handler and a wrapped client beneath it record one call, synchronous or not, many at once."""
    if find_spec("langchain_openai") is None:
        assert os.environ.get("TASKPILOT_OBS_FRAMEWORK") == "openai", "langchain-openai is not installed"
        pytest.skip("langchain-openai is NOT INSTALLED: it takes later versions of openai")
    from langchain_openai import ChatOpenAI
    from taskpilot_obs_langchain import ObservabilityHandler

    def model(client: Any, async_client: Any) -> Any:
        return ChatOpenAI(
            model=MODEL,
            api_key="k",
            client=client.chat.completions,
            async_client=async_client.chat.completions,
            callbacks=[ObservabilityHandler()],
        )

    async def work(async_client: AsyncOpenAI) -> None:
        with OpenAI(api_key="k", base_url=f"{provider.url}/v1") as made:
            chat = model(wrap(made), async_client)
            chat.invoke("hello")
            await asyncio.gather(*(chat.ainvoke(f"hello {n}") for n in range(5)))
            await async_client.chat.completions.create(model=MODEL, messages=said())

    in_loop(provider, work)
    assert len(provider.calls) == 7
    assert figures(seen) == [("success", WHOLE, True, False)] * 7


def test_a_budget_refuses_before_the_request(provider: Provider) -> None:
    """Once a budget is used up, no request leaves: synchronous, asynchronous and streamed."""
    with fresh_recorder(  # noqa: SIM117  the capture is of the fresh recorder
        budgets=[Budget("calls", limit_requests=1, period="day", action="enforce")]
    ):
        with OpenAI(api_key="k", base_url=f"{provider.url}/v1") as made, capture_invocations() as seen:
            client = wrap(made)
            client.chat.completions.create(model=MODEL, messages=said(), max_tokens=5)
            with pytest.raises(BudgetExceededError):
                client.chat.completions.create(model=MODEL, messages=said(), stream=True)

            async def work(client: AsyncOpenAI) -> None:
                with pytest.raises(BudgetExceededError):
                    await client.responses.create(model=MODEL, input="hello")

            in_loop(provider, work)
            assert [run.status.value for run in seen] == ["success", "blocked", "blocked"]
    assert len(provider.calls) == 1


def no_secrets(subject: Any) -> Any:
    """Blocks what is secret going in, and the weather coming out."""
    return blocked("secret") if "secret" in subject.text or "sunny" in subject.text else None


def test_guardrails_see_what_goes_in_and_out(provider: Provider) -> None:
    """An input is refused before the request, an answer withheld after it, whose tokens count."""
    with fresh_recorder(  # noqa: SIM117  the capture is of the fresh recorder
        guardrails=[check_with(no_secrets, stages=("input", "output"))], mode="enforce"
    ):
        with OpenAI(api_key="k", base_url=f"{provider.url}/v1") as made, capture_invocations() as seen:
            client = wrap(made)
            with pytest.raises(GuardrailBlockedError):
                client.chat.completions.create(model=MODEL, messages=said("a secret"))
            assert provider.calls == []
            with pytest.raises(GuardrailBlockedError):
                client.chat.completions.create(model=MODEL, messages=said())
            assert [(run.status.value, run.usage) for run in seen] == [("blocked", None), ("blocked", WHOLE)]


def test_azure_and_other_addresses(provider: Provider, seen: Captured[Invocation]) -> None:
    """The provider is who serves the model: named by the client's address, or by the model at an unknown one."""
    azure = wrap(AzureOpenAI(api_key="k", api_version="2024-10-21", azure_endpoint="https://acme.openai.azure.com"))
    with OpenAI(api_key="k", base_url=f"{provider.url}/v1") as made:
        wrap(made).chat.completions.create(model="llama-3.3-70b", messages=said())
    with (
        pytest.raises(openai.APIConnectionError),
        azure.with_options(max_retries=0, base_url="https://127.0.0.1:1/") as gone,
    ):
        gone.chat.completions.create(model=MODEL, messages=said())
    azure.close()
    assert seen[0].provider != "openai"


def test_wrapping_is_typed_repeatable_and_refuses_others(client: OpenAI, recorder: Recorder) -> None:
    """Wrapped twice, a call is recorded once; copies are wrapped; the class is still OpenAI's; others are refused."""
    assert wrap(client) is client
    assert isinstance(client, OpenAI)
    assert type(client).__name__ == "OpenAI"
    with capture_invocations() as seen:
        client.with_options(timeout=5).chat.completions.create(model=MODEL, messages=said())
        assert len(seen) == 1
    with pytest.raises(ConfigurationError, match="takes a client of the openai package, got object"):
        wrap(object())  # type: ignore[type-var]  # what the test is about


def test_clients_of_the_class_of_a_wrapped_one(provider: Provider, client: OpenAI, seen: Captured[Invocation]) -> None:
    """`type(client)(…)` makes a plain client; wrapped in turn, a call is recorded once, and each retry counted once."""
    with type(client)(api_key="k", base_url=f"{provider.url}/v1") as made:
        assert made.chat.completions.create(model=MODEL, messages=said()).usage is not None
        copied = made.with_options(timeout=5)
        assert copied.chat.completions.create(model=MODEL, messages=said()).usage is not None
        assert list(seen) == []
        wrap(made).chat.completions.create(model=MODEL, messages=said("RATE"))
    assert [(run.usage, run.retries) for run in seen] == [(WHOLE, 1)]
