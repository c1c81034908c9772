"""Requests of wrapped SDK clients whose body is anything but a dict, or whose answer the application reads itself."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest
import taskpilot_obs_anthropic
import taskpilot_obs_google_genai
import taskpilot_obs_openai
from _provider import Provider, serving
from google.genai import Client, types
from pydantic import BaseModel

from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, PolicyViolationError
from taskpilot_obs.safety import DenyWords
from taskpilot_obs.testing import capture_invocations, fresh_recorder


class Body(BaseModel):
    """A body as a model of pydantic."""

    model: str = "gpt-4o-mini"
    max_tokens: int = 9
    messages: list[dict[str, str]] = []


class Sdk(NamedTuple):
    """How to reach a provider's model by its SDK."""

    path: str
    make: Callable[..., Any]
    make_async: Callable[..., Any]
    wrap: Callable[..., Any]
    base: str


SDKS = {
    "openai": Sdk("/chat/completions", openai.OpenAI, openai.AsyncOpenAI, taskpilot_obs_openai.wrap, "/v1"),
    "anthropic": Sdk("/v1/messages", anthropic.Anthropic, anthropic.AsyncAnthropic, taskpilot_obs_anthropic.wrap, ""),
}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def document(text: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "max_tokens": 9, "messages": said(text)}


def create(client: Any, text: str, **options: Any) -> Any:
    """Ask by the SDK's own method."""
    resource = client.messages if hasattr(client, "messages") else client.chat.completions
    return resource.create(**{**document(text), **options})


def post(client: Any, text: str, path: str | None = None, **options: Any) -> Any:
    """Ask past the SDK's resources."""
    given = options or {"body": document(text)}
    return client.post(path or client.asked_at, cast_to=object, **given)


def parts(text: str) -> Any:
    return ({"type": "text", "text": each} for each in [text])


WAYS: dict[str, Callable[[Any, str], Any]] = {
    "a dict": create,
    "extra_body": lambda client, text: create(client, "hi", extra_body={"messages": said(text)}),
    "extra_body alone": lambda client, text: post(client, text, options={"extra_json": document(text)}),
    "an iterator in extra_body": lambda client, text: create(client, "", extra_body={"messages": iter(said(text))}),
    "an iterator": lambda client, text: create(client, "", messages=iter(said(text))),
    "parts of an iterator": lambda client, text: create(
        client, "", messages=[{"role": "user", "content": parts(text)}]
    ),
    "a model": lambda client, text: post(client, text, body=Body(messages=said(text), max_tokens=9, model="m")),
    "bytes": lambda client, text: post(client, text, content=json.dumps(document(text)).encode()),
    "bytes as the body": lambda client, text: post(client, text, body=json.dumps(document(text)).encode()),
    "a file": lambda client, text: post(client, text, content=io.BytesIO(json.dumps(document(text)).encode())),
    "pieces": lambda client, text: post(client, text, content=iter([json.dumps(document(text)).encode()])),
    "a path without its slash": lambda client, text: post(client, text, client.asked_at.strip("/")),
    "a whole address": lambda client, text: post(client, text, f"{str(client.base_url).strip('/')}{client.asked_at}"),
}

REFUSED = [("anthropic", "bytes as the body")]
"""What an SDK refuses by itself."""
STATED = [(name, way) for name in SDKS for way in WAYS if (name, way) not in REFUSED]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with serving() as running:
        yield running


@pytest.fixture
def bodies() -> list[Any]:
    """What the clients send."""
    return []


def client_of(sdk: Sdk, provider: Provider, bodies: list[Any], *, is_async: bool = False) -> Any:
    """A wrapped client that notes what it sends."""

    def note(request: Any) -> None:
        bodies.append(json.loads(request.content))

    async def note_async(request: Any) -> None:
        note(request)

    http = httpx2.AsyncClient if is_async else httpx2.Client
    sending = http(verify=False, event_hooks={"request": [note_async if is_async else note]})
    make = sdk.make_async if is_async else sdk.make
    client = make(api_key="k", max_retries=0, base_url=f"{provider.url}{sdk.base}", http_client=sending)
    client.asked_at = sdk.path
    return client


def ask(sdk: Sdk, provider: Provider, bodies: list[Any], way: str, text: str, *, is_async: bool) -> Any:
    """Ask by a wrapped client."""
    if not is_async:
        with client_of(sdk, provider, bodies) as client:
            return WAYS[way](sdk.wrap(client), text)

    async def work() -> Any:
        async with client_of(sdk, provider, bodies, is_async=True) as client:
            return await WAYS[way](sdk.wrap(client), text)

    return asyncio.run(work())


@pytest.mark.filterwarnings("ignore:Passing raw bytes as `body` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("name", "way"), STATED)
def test_whatever_the_body_is(name: str, way: str, is_async: bool, provider: Provider, bodies: list[Any]) -> None:
    """It is asked about before the request, sent as the application states it, counted by budgets, recorded once."""
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with (
        fresh_recorder(policies=[DenyWords(["secret"])], budgets=[budget], mode="enforce") as recorder,
        capture_invocations(recorder) as seen,
    ):
        with pytest.raises(PolicyViolationError):
            ask(SDKS[name], provider, bodies, way, "a secret", is_async=is_async)
        assert bodies == []
        assert ask(SDKS[name], provider, bodies, way, "weather?", is_async=is_async)
        assert "weather?" in json.dumps(bodies[0]["messages"])
        with pytest.raises(BudgetExceededError):
            ask(SDKS[name], provider, bodies, way, "weather?", is_async=is_async)
        assert len(bodies) == 1
        assert [run.status.value for run in seen] == ["blocked", "success", "blocked"]
        assert seen[1].usage is not None
        assert seen[1].usage[:2] == (100, 20)


class Upload(io.BytesIO):
    """A file, which notes how much of it is read at once."""

    def __init__(self) -> None:
        super().__init__(b"x" * 1_000_000)
        self.most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.most = max(self.most, len(piece))
        return piece


@pytest.mark.parametrize("name", SDKS)
def test_the_body_of_an_upload_is_not_read(name: str) -> None:
    """A file that is posted to a path at which no model is asked is streamed by the SDK, and not read whole before."""
    sdk, upload = SDKS[name], Upload()
    sending = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json={})))
    with (
        fresh_recorder(policies=[DenyWords(["secret"])], mode="enforce") as recorder,
        capture_invocations(recorder) as seen,
        sdk.make(api_key="k", max_retries=0, base_url="http://uploads", http_client=sending) as client,
    ):
        sdk.wrap(client).post("/uploads/1/parts", cast_to=object, content=upload)
        assert list(seen) == []
    assert 0 < upload.most < 1_000_000


def _raw(resource: Any, stream: bool) -> None:
    answer = resource.with_raw_response.create(**document("weather?"), stream=stream).parse()
    assert not stream or len(list(answer)) > 1


def _read(resource: Any, stream: bool) -> None:
    with resource.with_streaming_response.create(**document("weather?"), stream=stream) as response:
        assert b"sunny" in response.read()


def _parsed(resource: Any, stream: bool) -> None:
    with resource.with_streaming_response.create(**document("weather?"), stream=stream) as response:
        answer = response.parse()
        assert not stream or len(list(answer)) > 1


READINGS = {"raw": _raw, "read": _read, "parsed": _parsed}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("name", SDKS)
def test_however_the_answer_is_read(
    name: str, reading: str, stream: bool, provider: Provider, bodies: list[Any]
) -> None:
    """A raw response is one call, asked about before the request; where the application reads it, usage is unknown."""
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with fresh_recorder(budgets=[budget]) as recorder, capture_invocations(recorder) as seen:
        with client_of(SDKS[name], provider, bodies) as client:
            wrapped = SDKS[name].wrap(client)
            resource = wrapped.messages if name == "anthropic" else wrapped.chat.completions
            READINGS[reading](resource, stream)
            with pytest.raises(BudgetExceededError):
                READINGS[reading](resource, stream)
        assert len(bodies) == 1
        assert [run.status.value for run in seen] == ["success", "blocked"]
        stated = reading == "raw" and (name == "anthropic" or not stream)  # OpenAI's streams state usage when asked
        assert (seen[0].usage is not None) is stated


def test_the_body_that_google_merges_in_is_asked_about(provider: Provider) -> None:
    """`extra_body`, of a request or of its client, is part of what a model is given."""
    plain = types.HttpOptions(base_url=provider.url)
    extra = plain.model_copy(update={"extra_body": {"systemInstruction": {"parts": [{"text": "a secret"}]}}})
    with fresh_recorder(policies=[DenyWords(["secret"])], mode="enforce") as recorder:
        for of_client, of_request in ((extra, plain), (plain, extra)):
            config: Any = {"http_options": of_request}
            with Client(api_key="k", http_options=of_client) as made, pytest.raises(PolicyViolationError):
                taskpilot_obs_google_genai.wrap(made, recorder=recorder).models.generate_content(
                    model="gemini-2.5-flash", contents="hi", config=config
                )
