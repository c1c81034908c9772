"""Streams and models of decorated functions, with the real SDK against a loopback server."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from taskpilot_obs import observe_llm
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.testing import Captured

WORDS = ("one ", "two ", "three")


def _chunks() -> Iterator[dict[str, Any]]:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
    for word in WORDS:
        delta, reason = {"role": "assistant", "content": word}, "stop" if word == WORDS[-1] else None
        yield head | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    yield head | {"choices": [], "usage": usage}


class _Provider(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for chunk in _chunks():
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A provider that streams three words and then the usage."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


def test_a_stream_of_the_sdk_is_followed_to_its_end(url: str, seen: Captured[Invocation]) -> None:
    """A function that returns the SDK's stream ends with it: first token, usage and cost are those of the stream."""
    with OpenAI(api_key="x", base_url=url) as client:

        @observe_llm(model="gpt-4o", provider="openai")
        def ask() -> Any:
            return client.chat.completions.create(model="gpt-4o", **ASK)

        stream = ask()
        assert type(stream).__name__ == "Stream"
        assert not list(seen)
        assert [chunk.choices[0].delta.content for chunk in stream if chunk.choices] == list(WORDS)
    (run,) = seen
    assert (run.status, run.streaming, run.response_model) == (Status.SUCCESS, True, "gpt-4o-2024-08-06")
    assert run.usage is not None
    assert run.usage[:2] == (10, 3)
    assert run.ttft_s is not None


def test_an_asynchronous_stream_is_followed_too(url: str, seen: Captured[Invocation]) -> None:
    """The same holds of a coroutine function that returns the SDK's asynchronous stream."""

    async def main() -> int:
        async with AsyncOpenAI(api_key="x", base_url=url) as client:

            @observe_llm(provider="openai")
            async def ask(model: str = "gpt-4o") -> Any:
                return await client.chat.completions.create(model=model, **ASK)

            return len([chunk async for chunk in await ask("gpt-4o-mini")])

    assert asyncio.run(main()) == len(WORDS) + 1
    (run,) = seen
    assert (run.status, run.request_model, run.usage and run.usage[:2]) == (Status.SUCCESS, "gpt-4o-mini", (10, 3))


class Around:
    """A stream that reads another one, by `for` or by `async for`, as LiteLLM's does."""

    def __init__(self, inner: Any) -> None:
        self.completion_stream = inner

    def __iter__(self) -> Around:
        return self

    def __aiter__(self) -> Around:
        return self

    def __next__(self) -> Any:
        return next(self.completion_stream)

    async def __anext__(self) -> Any:
        async for chunk in self.completion_stream:  # LiteLLM begins again for each item
            return chunk
        raise StopAsyncIteration

    def close(self) -> None:
        self.completion_stream.close()

    async def aclose(self) -> None:
        if hasattr(self.completion_stream, "aclose"):
            await self.completion_stream.aclose()


ENDS = {"whole": (Status.SUCCESS, (10, 3)), "left": (Status.ABANDONED, None), "never begun": (Status.ABANDONED, None)}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("around", [[Around], [Around, Around]], ids=["around", "around around"])
def test_a_stream_around_a_stream_of_the_sdk(
    end: str, around: list[type[Around]], url: str, seen: Captured[Invocation]
) -> None:
    """A stream that reads the SDK's is followed: the call ends with it, or where it is closed; so does the SDK's."""
    with OpenAI(api_key="x", base_url=url) as client:
        made = client.chat.completions.create(model="gpt-4o", **ASK)

        @observe_llm(model="gpt-4o", provider="openai")
        def ask() -> Any:
            return functools.reduce(lambda inner, each: each(inner), around, made)

        stream = ask()
        assert type(stream) is Around
        if end == "whole":
            assert [chunk.choices[0].delta.content for chunk in stream if chunk.choices] == list(WORDS)
        elif end == "left":
            next(stream)
        stream.close()
        assert made.response.is_closed
    assert [(run.status, run.usage and run.usage[:2]) for run in seen] == [ENDS[end]]


@pytest.mark.parametrize("end", ENDS)
def test_an_asynchronous_stream_around_one_of_the_sdk(end: str, url: str, seen: Captured[Invocation]) -> None:
    """An asynchronous stream that reads the SDK's is followed, and closes it."""

    async def main() -> None:
        async with AsyncOpenAI(api_key="x", base_url=url) as client:
            made = await client.chat.completions.create(model="gpt-4o", **ASK)

            @observe_llm(model="gpt-4o", provider="openai")
            async def ask() -> Any:
                return Around(made)

            stream = await ask()
            assert stream.completion_stream.response is made.response
            if end == "whole":
                assert len([chunk async for chunk in stream]) == len(WORDS) + 1
            elif end == "left":
                await anext(stream)
            await stream.aclose()
            assert made.response.is_closed

    asyncio.run(main())
    assert [(run.status, run.usage and run.usage[:2]) for run in seen] == [ENDS[end]]


def test_a_stream_that_closes_the_one_it_reads_behind_its_finish_reason(url: str, seen: Captured[Invocation]) -> None:
    """What an outer stream leaves unread behind the finish reason makes no abandoned call of it, as with LiteLLM's."""
    with OpenAI(api_key="x", base_url=url) as client:

        @observe_llm(model="gpt-4o", provider="openai")
        def ask() -> Any:
            return Around(client.chat.completions.create(model="gpt-4o", **ASK))

        stream = ask()
        while next(stream).choices[0].finish_reason is None:
            assert not list(seen)
        stream.close()
    assert [(run.status, run.usage) for run in seen] == [(Status.SUCCESS, None)]


class Foreign:
    """A stream that keeps nothing of what it is made of in reach."""

    def __iter__(self) -> Foreign:
        return self

    def __next__(self) -> str:
        raise StopIteration


def test_a_stream_that_cannot_be_followed_is_reported_once(
    seen: Captured[Invocation], caplog: pytest.LogCaptureFixture
) -> None:
    """A stream of another make comes back as it is; its usage is missing, its cost unknown, and the log states so."""

    @observe_llm(model="gpt-4o")
    def ask() -> Foreign:
        return Foreign()

    with caplog.at_level(logging.WARNING, "taskpilot_obs"):
        assert [type(ask()), type(ask())] == [Foreign, Foreign]
    assert [run.is_usage_missing and run.is_unpriced for run in seen] == [True, True]
    assert sum("not followed" in record.message for record in caplog.records) == 1


def test_the_model_is_found_among_the_arguments(seen: Captured[Invocation]) -> None:
    """Without `model=` the decorated function's own argument names the model: by name, by position, by default."""
    answer = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}

    @observe_llm
    def ask(prompt: str, model: str = "gpt-4o") -> dict[str, Any]:
        return {**answer, "echo": prompt}

    ask("hi")
    ask("hi", "claude-sonnet-4-5")
    ask("hi", model="openai/gpt-4o-mini")
    assert [(run.request_model, run.model, run.provider) for run in seen] == [
        ("gpt-4o", "gpt-4o", "openai"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5", "anthropic"),
        ("openai/gpt-4o-mini", "gpt-4o-mini", "openai"),
    ]
    assert all(run.cost for run in seen)


def test_a_function_that_yields_names_its_model_too(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A generator function's argument is found in the same way."""

    @observe_llm(recorder=recorder)
    def ask(*, model: str) -> Iterator[dict[str, Any]]:
        yield from _chunks()

    assert len(list(ask(model="gpt-4o-mini"))) == len(WORDS) + 1
    (run,) = seen
    assert (run.request_model, run.model) == ("gpt-4o-mini", "gpt-4o-mini")
