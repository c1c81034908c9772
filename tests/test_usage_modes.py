"""The same answers through every way of asking: real SDKs, whole and streamed, native clients and LangChain.

The cases are in `usage_mode_cases.jsonl`, one a line: what a provider answers, by its documentation, and the usage that
is right. A way that loses a number marks the call as unpriced or partially priced; it never states another number.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
from google import genai
from langchain_anthropic import ChatAnthropic
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI
from taskpilot_obs_anthropic import wrap as wrap_anthropic
from taskpilot_obs_google_genai import wrap as wrap_google
from taskpilot_obs_langchain import ObservabilityHandler
from taskpilot_obs_openai import wrap as wrap_openai

from taskpilot_obs.records import Invocation, Operation, Pricing, Usage
from taskpilot_obs.testing import Captured

LINES = Path(__file__).with_name("usage_mode_cases.jsonl").read_text(encoding="utf-8").splitlines()
CASES: dict[str, dict[str, Any]] = {case["case"]: case for case in map(json.loads, LINES)}
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
TOTALS = ("input_tokens", "output_tokens")


class Server(ThreadingHTTPServer):
    """Answers every request with the current case."""

    daemon_threads = True
    answer: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        answer, is_stream = self.server.answer, isinstance(self.server.answer, list)
        body = "".join(map(_event, answer)) if is_stream else json.dumps(answer)
        if is_stream and "choices" in answer[0]:
            body += "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if is_stream else "application/json")
        self.end_headers()
        self.wfile.write(body.encode())


def _event(event: dict[str, Any]) -> str:
    kind = f"event: {event['type']}\n" if "type" in event else ""
    return f"{kind}data: {json.dumps(event)}\n\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Ways(NamedTuple):
    """How to ask one provider in one way: by its own client, and by LangChain."""

    native: Callable[[str, str], Any]
    native_async: Callable[[str, str], Any] | None
    langchain: Callable[[str, str], Any]


def read(answer: Any) -> Any:
    """Read a stream to its end."""
    return [*answer] if isinstance(answer, Iterator) or hasattr(answer, "__next__") else answer


async def read_async(answer: Any) -> Any:
    return [item async for item in answer] if isinstance(answer, AsyncIterator) else answer


def openai_client(url: str) -> Any:
    return wrap_openai(openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0))


async def openai_async(url: str, ask: Callable[[Any], Any]) -> Any:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        return await read_async(await ask(wrap_openai(client)))


def anthropic_client(url: str) -> Any:
    return wrap_anthropic(anthropic.Anthropic(api_key="k", base_url=url, max_retries=0))


async def anthropic_async(url: str, **options: Any) -> Any:
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client:
        return await read_async(await wrap_anthropic(client).messages.create(max_tokens=9, **ASKED, **options))


def google_call(url: str, method: str, model: str) -> Any:
    with genai.Client(api_key="k", http_options=genai.types.HttpOptions(base_url=url)) as client:
        return read(getattr(wrap_google(client).models, method)(model=model, contents="hello"))


async def google_async(url: str, method: str, model: str) -> Any:
    client = genai.Client(api_key="k", http_options=genai.types.HttpOptions(base_url=url))
    async with wrap_google(client).aio as asking:
        return await read_async(await getattr(asking.models, method)(model=model, contents="hello"))


def through(model: Any, *, stream: bool) -> Any:
    config = {"callbacks": [ObservabilityHandler()]}
    return read(model.stream("hello", config)) if stream else model.invoke("hello", config)


def chat_openai(url: str, model: str, **options: Any) -> Any:
    return ChatOpenAI(model=model, api_key="k", base_url=f"{url}/v1", max_retries=0, **options)


def ways_of(answer: Any) -> Ways:
    """The ways to get such an answer."""
    streams = isinstance(answer, list)
    first = answer[0] if streams else answer
    if "choices" in first:
        return Ways(
            lambda url, model: read(openai_client(url).chat.completions.create(model=model, stream=streams, **ASKED)),
            lambda url, model: openai_async(
                url, lambda client: client.chat.completions.create(model=model, stream=streams, **ASKED)
            ),
            lambda url, model: through(
                chat_openai(url, model, use_responses_api=False, stream_usage=True), stream=streams
            ),
        )
    if first.get("object") == "response" or first.get("type") == "response.created":
        return Ways(
            lambda url, model: read(openai_client(url).responses.create(model=model, input="hello", stream=streams)),
            lambda url, model: openai_async(
                url, lambda client: client.responses.create(model=model, input="hello", stream=streams)
            ),
            lambda url, model: through(chat_openai(url, model, use_responses_api=True), stream=streams),
        )
    if first.get("type") in ("message", "message_start"):
        return Ways(
            lambda url, model: read(
                anthropic_client(url).messages.create(model=model, max_tokens=9, stream=streams, **ASKED)
            ),
            lambda url, model: anthropic_async(url, model=model, stream=streams),
            lambda url, model: through(
                ChatAnthropic(model=model, api_key="k", base_url=url, max_retries=0, max_tokens=9),
                stream=streams,
            ),
        )
    method = "generate_content_stream" if streams else "generate_content"
    return Ways(
        lambda url, model: google_call(url, method, model),
        lambda url, model: google_async(url, method, model),
        lambda url, model: through(
            ChatGoogleGenerativeAI(model=model, google_api_key="k", base_url=url, max_retries=1),
            stream=streams,
        ),
    )


def model_of(answer: Any) -> str:
    first = answer[0] if isinstance(answer, list) else answer
    inner = first.get("response") or first.get("message") or first
    return str(inner.get("model") or inner.get("modelVersion"))


def differing(found: Usage | None, right: Usage | None) -> dict[str, tuple[int | None, int | None]]:
    """The counts that are not right. A detail that is 0 and one that is not stated are the same."""
    pairs = zip(Usage._fields, found or Usage(), right or Usage(), strict=True)
    return {
        name: (ours, theirs)
        for name, ours, theirs in pairs
        if (ours != theirs if name in TOTALS else (ours or 0) != (theirs or 0))
    }


@pytest.mark.parametrize("way", Ways._fields)
@pytest.mark.parametrize("name", CASES)
def test_no_way_states_another_number(server: Server, seen: Captured[Invocation], name: str, way: str) -> None:
    """Every way records one call with the usage that is right; the provider's own clients lose nothing."""
    case = CASES[name]
    server.answer = case["response"]
    ask = getattr(ways_of(case["response"]), way)
    asked = ask(server.url, model_of(case["response"]))
    if way == "native_async":
        asyncio.run(asked)
    (call,) = (run for run in seen if run.operation is Operation.CHAT)
    wrong = differing(call.usage, None if case["usage"] is None else Usage(**case["usage"]))
    if way == "langchain" and wrong:
        assert {ours for ours, _ in wrong.values()} == {None}
        assert call.pricing in (Pricing.PARTIAL, Pricing.UNPRICED)
    else:
        assert wrong == {}
    if call.pricing is Pricing.PARTIAL and not wrong:
        assert call.price_gap == case["says"].get("gap")
    assert not (case["says"].get("gap") and call.pricing is Pricing.PRICED)
