"""Hostile input of wrapped clients of OpenAI's, Anthropic's and Google's SDKs: users get what a plain client gives."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
import taskpilot_obs_anthropic
import taskpilot_obs_google_genai
import taskpilot_obs_openai
from _provider import chat, gemini, messages
from google.genai import Client, types
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError, PolicyViolationError
from taskpilot_obs.records import Invocation
from taskpilot_obs.safety import DenyWords, check_with
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.testing import capture_invocations, fresh_recorder

GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"
HOSTILE: tuple[Any, ...] = (
    math.nan,
    math.inf,
    -math.inf,
    -1,
    10**400,
    -(10**400),
    1e300,
    0.5,
    True,
    None,
    "many",
    "\ud800",
    [],
    {"a": [1]},
)


class HostileError(Exception):
    """Raises whatever it is asked."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Unreadable:
    """Raises when it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Transport:
    """Answers each request with the same bytes, or fails."""

    def __init__(
        self, http: Any, body: str = "", error: Exception | None = None, closing: Exception | None = None
    ) -> None:
        self.http = http
        self.body = body
        self.error = error
        self.closing = closing

    def handle_request(self, request: Any) -> Any:
        if self.error is not None:
            raise self.error
        kind = "text/event-stream" if self.body.startswith(("data:", "event:")) else "application/json"
        return self.http.Response(200, headers={"content-type": kind}, stream=_pieces(self), request=request)

    def close(self) -> None:
        """Nothing is open."""


def _pieces(transport: Transport) -> Any:
    class Pieces(transport.http.SyncByteStream):  # type: ignore[misc,name-defined]  # of either HTTP library
        def __iter__(self) -> Iterator[bytes]:
            yield transport.body.encode("utf-8", "surrogatepass")

        def close(self) -> None:
            if transport.closing is not None:
                raise transport.closing

    return Pieces()


class Sdk(NamedTuple):
    make: Callable[[Any], Any]
    wrap: Callable[..., Any]
    ask: Callable[..., Any]
    http: Any
    answer: Callable[[], Any]
    events: Callable[[], list[Any]]


def _http_of(kind: type) -> Any:
    """The HTTP library that an SDK's client derives from."""
    return sys.modules[
        next(each for each in kind.__mro__[1:] if each.__name__ == "Client").__module__.partition(".")[0]
    ]


def _gemini_client(transport: Transport) -> Client:
    return Client(api_key="k", http_options=types.HttpOptions(client_args={"transport": transport}))


def _ask_gemini(client: Any, content: Any = "hi", *, stream: bool = False) -> Any:
    ask = client.models.generate_content_stream if stream else client.models.generate_content
    return ask(model="gemini-2.5-flash", contents=content)


def _ask_openai(client: Any, content: Any = "hi", *, stream: bool = False) -> Any:
    return client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": content}], stream=stream
    )


def _ask_anthropic(client: Any, content: Any = "hi", *, stream: bool = False) -> Any:
    said = [{"role": "user", "content": content}]
    return client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=said, stream=stream)


OPENAI_BODY = {"model": "gpt-4o-mini", "stream_options": {"include_usage": True}}
SDKS = {
    "openai": Sdk(
        lambda transport: openai.OpenAI(
            api_key="k", max_retries=0, http_client=openai.DefaultHttpxClient(transport=transport)
        ),
        taskpilot_obs_openai.wrap,
        _ask_openai,
        _http_of(openai.DefaultHttpxClient),
        lambda: chat(OPENAI_BODY, had=False)[-1],
        lambda: chat(OPENAI_BODY, had=False)[:-1],
    ),
    "anthropic": Sdk(
        lambda transport: anthropic.Anthropic(
            api_key="k", max_retries=0, http_client=anthropic.DefaultHttpxClient(transport=transport)
        ),
        taskpilot_obs_anthropic.wrap,
        _ask_anthropic,
        _http_of(anthropic.DefaultHttpxClient),
        lambda: messages({"model": "claude-haiku-4-5"}, had=False)[-1],
        lambda: messages({"model": "claude-haiku-4-5"}, had=False)[:-1],
    ),
    "google_genai": Sdk(
        _gemini_client,
        taskpilot_obs_google_genai.wrap,
        _ask_gemini,
        _http_of(type(Client(api_key="k")._api_client._httpx_client)),
        lambda: gemini(GEMINI, {}),
        lambda: [gemini(GEMINI, {})] * 2,
    ),
}


def spoilt(document: Any, value: Any, inside: bool = False) -> Any:
    """A provider's document with a value in place of each count, and of the IDs."""
    if isinstance(document, dict):
        return {
            key: spoilt(each, value, inside or "usage" in key.lower())
            if key not in ("id", "responseId")
            else str(value)
            for key, each in document.items()
        }
    if isinstance(document, list):
        return [spoilt(each, value, inside) for each in document]
    return value if inside and isinstance(document, int) else document


def as_events(events: list[Any]) -> str:
    """A body of server-sent events."""
    return "".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        if "type" in event
        else f"data: {json.dumps(event)}\n\n"
        for event in events
    )


def outcome(work: Callable[[], Any]) -> Any:
    """What the user gets: the answer or the pieces as text, or the class of the exception."""
    try:
        answer = work()
        pieces = [answer] if hasattr(answer, "model_dump") else list(answer)
        return [repr(piece.model_dump(exclude={"sdk_http_response"}, warnings=False)) for piece in pieces]
    except Exception as error:
        return type(error)


def both(
    sdk: Sdk, body: str, content: Any = "hi", *, stream: bool = False, error: Exception | None = None
) -> list[Invocation]:
    """Ask by a plain client and by a wrapped one; hold that the user sees no difference, and return the records."""
    plain = sdk.make(Transport(sdk.http, body, error))
    expected = outcome(lambda: sdk.ask(plain, content, stream=stream))
    with fresh_recorder() as recorder, capture_invocations(recorder) as seen:
        wrapped = sdk.wrap(sdk.make(Transport(sdk.http, body, error)), recorder=recorder)
        assert outcome(lambda: sdk.ask(wrapped, content, stream=stream)) == expected
        return list(seen)


@pytest.mark.parametrize("name", SDKS)
@settings(max_examples=40, deadline=None)
@given(value=st.sampled_from(HOSTILE), stream=st.booleans())
def test_hostile_counts(name: str, value: Any, stream: bool) -> None:
    """Counts that are NaN, negative, huge or no numbers change nothing for the user; none of them becomes a figure."""
    sdk = SDKS[name]
    body = as_events(spoilt(sdk.events(), value)) if stream else json.dumps(spoilt(sdk.answer(), value))
    (run,) = both(sdk, body, stream=stream)
    for count in run.usage or ():
        assert count is None or 0 <= count < 10**30
    assert run.cost is None or run.cost.is_finite()


def _cycle() -> Any:
    cycle: list[Any] = []
    cycle.append({"type": "text", "text": cycle})
    return cycle


CONTENTS = {
    "cyclic": _cycle(),
    "unreadable": Unreadable(),
    "unreadable parts": [Unreadable()],
    "unreadable field": {"a": Unreadable()},
    "lone surrogate": "\ud800 \x00",
    "not a number": math.nan,
}


@pytest.mark.parametrize("name", SDKS)
@pytest.mark.parametrize("content", CONTENTS)
def test_hostile_requests(name: str, content: str) -> None:
    """Cyclic and unreadable requests and lone surrogates end for the user as without this library."""
    sdk = SDKS[name]
    found = both(sdk, json.dumps(sdk.answer()), CONTENTS[content])
    assert len(found) <= 1  # the SDK refuses some before they are requests


@pytest.mark.parametrize("name", SDKS)
@pytest.mark.parametrize("stream", [False, True])
def test_hostile_exceptions(name: str, stream: bool) -> None:
    """An exception that raises when it is printed or read passes as from a plain client, and fails the call."""
    (run,) = both(SDKS[name], "", stream=stream, error=HostileError())
    assert run.status.value == "error"


@pytest.mark.parametrize("name", SDKS)
@pytest.mark.parametrize("body", ["", "null", "[]", '"text"', "{", '{"error": NaN}', "data: {\n\n", "data: null\n\n"])
@pytest.mark.parametrize("stream", [False, True])
def test_bodies_that_are_no_answers(name: str, body: str, stream: bool) -> None:
    """What cannot be parsed reaches the user as from a plain client, and is one record."""
    assert len(both(SDKS[name], body, stream=stream)) == 1


def _unwrapped(client: Any, **_: Any) -> Any:
    return client


@pytest.mark.parametrize("name", ["openai", "anthropic"])  # Google's streams are generators, whose close closes nothing
def test_a_stream_that_raises_when_it_is_closed(name: str) -> None:
    """The exception of `close` is the user's; the call that was left is recorded once."""
    sdk, caught = SDKS[name], []
    for wrap in (_unwrapped, sdk.wrap):
        with fresh_recorder() as recorder, capture_invocations(recorder) as seen:
            closing = Transport(sdk.http, as_events(sdk.events()), closing=LookupError("closing"))
            stream = sdk.ask(wrap(sdk.make(closing), recorder=recorder), stream=True)
            next(iter(stream))
            with pytest.raises(LookupError) as raised:
                stream.close()
            caught.append(str(raised.value))
            found = [run.status.value for run in seen]
    assert caught == ["closing"] * 2
    assert found == ["abandoned"]


def test_a_request_that_cannot_be_read_is_counted() -> None:
    """A failure of this library on the way of a request is counted, and the user gets the answer."""
    sdk = SDKS["openai"]
    with fresh_recorder() as recorder:
        client = sdk.wrap(sdk.make(Transport(sdk.http, json.dumps(sdk.answer()))), recorder=recorder)
        _, kept = client.observed_by
        client.observed_by = (lambda *_: 1 / 0, kept)
        assert sdk.ask(client).usage.prompt_tokens == 100
        recorder.drain()
        assert recorder.counters.totals[INTERNAL_ERRORS, ("model_call",)] == 1


CONFIG: Any = types.GenerateContentConfig  # as Any, because its fields name a package that only images need


class Sealed(CONFIG):  # type: ignore[misc]
    """A configuration that the SDK can read, and this library cannot."""

    def __getattribute__(self, name: str) -> Any:
        if name == "system_instruction" and sys._getframe(1).f_globals["__name__"].startswith("taskpilot_obs"):
            raise RuntimeError("sealed")
        return super().__getattribute__(name)


def _ask_sealed(name: str, client: Any, content: Any) -> Any:
    """Ask by a request that this library cannot read."""
    if name == "google_genai":
        return client.models.generate_content(model="gemini-2.5-flash", contents=content, config=Sealed())
    _, recorder = client.observed_by
    client.observed_by = (lambda *_: 1 / 0, recorder)  # no request of these SDKs is known to be unreadable
    return SDKS[name].ask(client, content)


@pytest.mark.parametrize("name", SDKS)
@pytest.mark.parametrize("content", ["a secret", [{"type": "text", "text": "a secret"}]], ids=["text", "parts"])
def test_a_request_that_cannot_be_read_is_asked_about(name: str, content: Any) -> None:
    """In enforce mode its payload is checked as it is: what a check refuses is not sent, and recorded as blocked."""
    sdk = SDKS[name]
    if name == "google_genai" and isinstance(content, list):
        content = [types.Part(text="a secret")]
    with (
        fresh_recorder(policies=[DenyWords(["secret"])], mode="enforce") as recorder,
        capture_invocations(recorder) as seen,
    ):
        client = sdk.wrap(sdk.make(Transport(sdk.http, error=LookupError("sent"))), recorder=recorder)
        with pytest.raises(PolicyViolationError):
            _ask_sealed(name, client, content)
        assert [run.status.value for run in seen] == ["blocked"]


def test_an_asynchronous_request_that_cannot_be_read_is_asked_about() -> None:
    """So it is with an asynchronous client."""
    with fresh_recorder(policies=[DenyWords(["secret"])], mode="enforce") as recorder:
        client = taskpilot_obs_openai.wrap(openai.AsyncOpenAI(api_key="k", max_retries=0), recorder=recorder)

        async def work() -> None:
            async with client:
                await _ask_sealed("openai", client, "a secret")

        with pytest.raises(PolicyViolationError):
            asyncio.run(work())


@pytest.mark.parametrize("name", SDKS)
def test_a_request_that_cannot_be_read_is_booked(name: str) -> None:
    """It is sent and recorded as one call with what is known, and budgets count it: the next one is refused."""
    sdk, model = SDKS[name], "gemini-2.5-flash" if name == "google_genai" else None
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with fresh_recorder(budgets=[budget]) as recorder, capture_invocations(recorder) as seen:
        client = sdk.wrap(sdk.make(Transport(sdk.http, json.dumps(sdk.answer()))), recorder=recorder)
        assert _ask_sealed(name, client, "hi")
        with pytest.raises(BudgetExceededError):
            _ask_sealed(name, client, "hi")
        assert [(run.status.value, run.request_model) for run in seen] == [("success", model), ("blocked", model)]


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_budget_counts_content_that_cannot_be_read(name: str) -> None:
    """A used budget refuses a request whose messages raise when they are looked at; it did not ask about it."""
    sdk = SDKS[name]
    budget = Budget("calls", limit_requests=1, period="day", action="enforce")
    with fresh_recorder(budgets=[budget]) as recorder:
        client = sdk.wrap(sdk.make(Transport(sdk.http, json.dumps(sdk.answer()))), recorder=recorder)
        assert sdk.ask(client)
        with pytest.raises(BudgetExceededError):
            sdk.ask(client, [Unreadable()])


def test_a_raw_answer_that_cannot_be_read_is_asked_about() -> None:
    """In enforce mode a raw response that the SDK cannot parse is checked as text, as the application reads it."""
    sdk = SDKS["openai"]
    policy = check_with(DenyWords(["secret"]), stages="output")
    for body, is_refused in (('{"a secret', True), ('{"weather', False)):
        with fresh_recorder(policies=[policy], mode="enforce") as recorder:
            client = sdk.wrap(sdk.make(Transport(sdk.http, body)), recorder=recorder)
            found = outcome(lambda client=client: [_raw(client).text])  # type: ignore[misc]  # bound in the loop
            assert (found is PolicyViolationError) is is_refused


def _raw(client: Any) -> Any:
    said = [{"role": "user", "content": "hi"}]
    return client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=said)
