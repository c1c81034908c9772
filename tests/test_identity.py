"""Whose work it is: request, tenant and parent are those of the call, wherever its steps run."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import django
import pytest
from django.conf import settings as django_settings
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from flask import Flask, Response
from sse_starlette import EventSourceResponse

from taskpilot_obs import (
    get_request_id,
    observe_agent,
    observe_llm,
    observe_tool,
    observe_workflow,
    request_context,
    track_tool,
)
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.testing import capture_invocations, fresh_recorder

WORKER_S = 20.0


@pytest.fixture
def seen() -> Iterator[Sequence[Invocation]]:
    with fresh_recorder(), capture_invocations() as found:
        yield found


def by_name(runs: Sequence[Invocation]) -> dict[str, Invocation]:
    assert len({run.name for run in runs}) == len(runs)
    return {run.name: run for run in runs}


@observe_tool("lookup")
def lookup() -> None: ...


@observe_agent("sync")
def sync_stream() -> Iterator[str | None]:
    lookup()
    yield get_request_id()


@observe_agent("async")
async def async_stream() -> AsyncIterator[str | None]:
    lookup()
    yield get_request_id()


@observe_agent("coroutine")
async def coroutine() -> str | None:
    lookup()
    return get_request_id()


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "sync": (sync_stream, list),
    "async": (async_stream, lambda items: asyncio.run(_all(items))),
    "coroutine": (coroutine, asyncio.run),
}


def in_thread(work: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(WORKER_S)
    return found[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("elsewhere", [lambda work: work(), in_thread], ids=["same thread", "another thread"])
def test_lazy_work_belongs_to_the_request_that_called_it(
    seen: Sequence[Invocation], kind: str, elsewhere: Callable[[Callable[[], Any]], Any]
) -> None:
    """Called in one request and run in another: run, tools beneath it and tenant are those of the call."""
    call, read = KINDS[kind]
    with request_context(request_id="call", tenant_id="acme", user_id="u", session_id="s", task="t"):
        work = call()

    def consume() -> Any:
        with request_context(request_id="reader", tenant_id="other"):
            return read(work), get_request_id()

    said, around = elsewhere(consume)
    assert said in ("call", ["call"])
    assert around == "reader"
    runs = by_name(seen)
    for run in (runs[kind], runs["lookup"]):
        assert (run.request_id, run.tenant, run.user, run.session) == ("call", "acme", "u", "s")
        assert run.attributes == {"task": "t"}
    assert runs["lookup"].parent_id == runs[kind].invocation_id


@pytest.mark.parametrize("kind", KINDS)
def test_lazy_work_called_outside_of_a_request_is_a_request_of_its_own(seen: Sequence[Invocation], kind: str) -> None:
    """A stream keeps its request when a reader has another one."""
    call, read = KINDS[kind]
    work = call()
    with request_context(request_id="reader", tenant_id="other"):
        read(work)
    runs = by_name(seen)
    assert runs[kind].request_id == runs[kind].invocation_id == runs["lookup"].request_id
    assert (runs[kind].tenant, runs["lookup"].tenant) == (None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parent_is_the_run_that_called(seen: Sequence[Invocation], kind: str) -> None:
    """A run that hands lazy work out is above it, also when another run consumes it."""
    call, read = KINDS[kind]
    held: list[Any] = []

    @observe_workflow("caller")
    def caller() -> None:
        held.append(call())

    @observe_workflow("reader")
    def reader() -> None:
        read(held[0])

    caller()
    reader()
    runs = by_name(seen)
    assert runs[kind].parent_id == runs["caller"].invocation_id
    assert runs[kind].workflow == "caller"


@pytest.mark.parametrize("kind", KINDS)
def test_lazy_work_that_never_runs_is_no_event(seen: Sequence[Invocation], kind: str) -> None:
    """What was called and dropped has no run: it did nothing."""
    work = KINDS[kind][0]()
    if kind == "coroutine":
        work.close()
    del work
    assert list(seen) == []


def test_decorated_functions_keep_their_kind() -> None:
    """`inspect` takes each for what it was, and each is still a plain function object."""
    assert inspect.isgeneratorfunction(sync_stream)
    assert inspect.isasyncgenfunction(async_stream)
    assert inspect.iscoroutinefunction(coroutine)
    assert all(inspect.isfunction(each) for each in (sync_stream, async_stream, coroutine))


def test_a_coroutine_that_is_never_awaited_is_named_in_the_warning() -> None:
    """Python's warning names the user's function, not a wrapper."""
    with fresh_recorder(), pytest.warns(RuntimeWarning, match="coroutine 'coroutine' was never awaited"):
        coroutine().__class__  # noqa: B018  made and dropped


# Streamed responses, by the real frameworks


@observe_llm(model="gpt-4o-mini", provider="openai")
def call_model() -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "usage": {"prompt_tokens": 1000, "completion_tokens": 1000}}


def sync_body() -> Iterator[str]:
    call_model()
    yield "data"


async def async_body() -> AsyncIterator[str]:
    await asyncio.sleep(0)
    call_model()
    yield "data"


async def broken_body() -> AsyncIterator[str]:
    yield "data"
    raise RuntimeError("the model broke")


RESPONSES: dict[str, Callable[[], Any]] = {
    "sync body": lambda: StreamingResponse(sync_body()),
    "async body": lambda: StreamingResponse(async_body()),
    "server-sent events": lambda: EventSourceResponse(async_body()),
}


def client_of(endpoint: Callable[..., Any]) -> TestClient:
    app = FastAPI()
    app.get("/")(endpoint)
    return TestClient(app)


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
def test_a_streamed_response_is_followed_to_its_end(
    seen: Sequence[Invocation], response: str, *, is_async: bool
) -> None:
    """A decorated route that returns a stream is one task, which includes what the body calls and what it costs."""

    @observe_workflow("chat")
    def route() -> Any:
        return RESPONSES[response]()

    @observe_workflow("chat")
    async def async_route() -> Any:
        return RESPONSES[response]()

    with request_context(request_id="r"):
        answer = client_of(async_route if is_async else route).get("/")
    assert "data" in answer.text
    runs = by_name(seen)
    assert [name for name, run in runs.items() if run.is_task] == ["chat"]
    chat, call = runs["chat"], runs["gpt-4o-mini"]
    assert (call.parent_id, chat.status) == (chat.invocation_id, Status.SUCCESS)
    assert chat.rollup is not None
    assert chat.rollup.llm_calls == 1
    assert chat.rollup.cost == call.cost


def test_a_body_that_breaks_is_a_failed_task(seen: Sequence[Invocation]) -> None:
    """The exception reaches the server unchanged, and the run is an error."""

    @observe_workflow("chat")
    async def chat() -> StreamingResponse:
        return StreamingResponse(broken_body())

    with pytest.raises(RuntimeError, match="the model broke"):
        client_of(chat).get("/")
    (run,) = seen
    assert (run.status, run.error_type) == (Status.ERROR, "RuntimeError")


def _whole() -> Response:
    return Response("whole")


def _django_sync() -> Any:
    return _django_response(sync_body())


def _django_async() -> Any:
    return _django_response(async_body())


def test_a_finished_response_ends_its_run_at_once(seen: Sequence[Invocation]) -> None:
    """A response with a whole body is not a stream."""
    with Flask(__name__).app_context():
        route = observe_workflow("whole")(_whole)
        assert route().get_data(as_text=True) == "whole"
    assert [run.status for run in seen] == [Status.SUCCESS]


def test_a_streamed_response_of_flask_is_followed(seen: Sequence[Invocation]) -> None:
    """Flask's own client reads the body; the run ends with it."""
    app = Flask(__name__)

    @app.get("/")
    @observe_workflow("chat")
    def chat() -> Response:
        return Response(sync_body())

    assert app.test_client().get("/").get_data(as_text=True) == "data"
    runs = by_name(seen)
    assert runs["gpt-4o-mini"].parent_id == runs["chat"].invocation_id
    assert runs["chat"].rollup is not None


def _django_response(body: Any) -> Any:
    if not django_settings.configured:
        django_settings.configure(DEFAULT_CHARSET="utf-8")
        django.setup()
    from django.http import StreamingHttpResponse

    return StreamingHttpResponse(body)


def test_a_streamed_response_of_django_is_followed(seen: Sequence[Invocation]) -> None:
    """Django's response keeps its class, and its body is followed, synchronous and asynchronous."""
    chat = observe_workflow("chat")(_django_sync)
    assert b"".join(chat()) == b"data"
    later = observe_workflow("later")(_django_async)
    assert asyncio.run(_all(aiter(later()))) == [b"data"]
    assert [(run.name, run.status) for run in seen if run.is_task] == [
        ("chat", Status.SUCCESS),
        ("later", Status.SUCCESS),
    ]
    calls = [run for run in seen if run.name == "gpt-4o-mini"]
    assert {run.parent_id for run in calls} == {run.invocation_id for run in seen if run.is_task}


def test_a_client_that_leaves_abandons_the_task(seen: Sequence[Invocation]) -> None:
    """A body that is closed before its end is abandoned: neither success nor failure."""
    app = Flask(__name__)

    @observe_workflow("chat")
    def chat() -> Response:
        return Response(iter(["one", "two"]))

    with app.app_context():
        response = chat()
        assert next(iter(response.response)) == "one"
        response.close()
    assert [run.status for run in seen] == [Status.ABANDONED]


def test_a_lookalike_is_left_alone(seen: Sequence[Invocation]) -> None:
    """An object that answers every attribute, and one whose body is not an iterator, are results like others."""
    from unittest.mock import MagicMock

    for result in (MagicMock(), type("Odd", (), {"is_streamed": True})()):
        assert observe_tool("odd")(lambda result=result: result)() is result
    assert [run.status for run in seen] == [Status.SUCCESS] * 2


def test_a_synchronous_dependency_that_sets_a_context_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """FastAPI runs `def` dependencies in a thread, where a request context is lost: the log says what to write."""
    from fastapi import Depends

    def dependency() -> Iterator[None]:
        with request_context(request_id="lost", tenant_id="acme"):
            yield

    app = FastAPI()

    @app.get("/", dependencies=[Depends(dependency)])
    async def route() -> str | None:
        return get_request_id()

    for _ in range(3):
        assert TestClient(app).get("/").json() is None
    said = [record for record in caplog.records if "async def" in record.getMessage()]
    assert len(said) == 1


def test_an_asynchronous_dependency_binds_the_route(
    seen: Sequence[Invocation], caplog: pytest.LogCaptureFixture
) -> None:
    """The same dependency as `async def` reaches the route, and nothing is reported."""
    from fastapi import Depends

    async def dependency() -> AsyncIterator[None]:
        with request_context(request_id="kept"):
            yield

    app = FastAPI()

    @app.get("/", dependencies=[Depends(dependency)])
    @observe_workflow("chat")
    async def route() -> str | None:
        with track_tool("inner"):
            return get_request_id()

    assert TestClient(app).get("/").json() == "kept"
    assert {run.request_id for run in seen} == {"kept"}
    assert caplog.records == []
