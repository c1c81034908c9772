"""Streams and models of decorated functions, with the real SDK against a loopback server."""

from __future__ import annotations

import asyncio
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
        yield head | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]}
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
