"""Django's own handlers, WSGI and ASGI, with the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path
from taskpilot_obs_django import Identity, ObservabilityMiddleware

from taskpilot_obs import get_request_id, observe_agent, observe_workflow
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.integration import Recorder
from taskpilot_obs.propagation import inject
from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import Captured

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def by_headers(request: HttpRequest) -> Identity:
    return Identity(request.headers.get("x-tenant"), request.headers.get("x-user"))


async def by_headers_later(request: HttpRequest) -> Identity:
    await asyncio.sleep(0)
    return by_headers(request)


def out_of_order(request: HttpRequest) -> Identity:
    raise KeyError("no token")


@observe_workflow("plain")
def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_request_id())


@observe_workflow("plain_async")
async def plain_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(get_request_id())


def stream(request: HttpRequest) -> StreamingHttpResponse:
    @observe_agent("Writer")
    def write() -> Iterator[str]:
        for _ in range(3):
            yield f"{get_request_id()} "

    return StreamingHttpResponse(write())


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    async def plain_steps() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield f"{get_request_id()} "

    return StreamingHttpResponse(plain_steps())


@observe_workflow("down")
def down(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("down")


def following(request: HttpRequest) -> JsonResponse:
    headers: dict[str, str] = {}
    inject(headers, baggage=True)
    return JsonResponse(headers)


def this_file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


class Urls:
    urlpatterns = [  # noqa: RUF012  as Django wants it
        path(f"{view.__name__}", view)
        for view in (plain, plain_async, stream, stream_async, down, following, this_file)
    ]


if not settings.configured:
    settings.configure(
        ROOT_URLCONF=Urls,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="for tests only",  # noqa: S106
        MIDDLEWARE=["taskpilot_obs_django.ObservabilityMiddleware"],
    )
    django.setup()


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    middleware = ["taskpilot_obs_django.ObservabilityMiddleware"]
    with override_settings(ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], MIDDLEWARE=middleware):
        yield


def ask(name: str, headers: Mapping[str, str] = {}) -> Any:
    return Client(raise_request_exception=False).get(f"/{name}", headers=dict(headers))


async def ask_async(name: str, headers: Mapping[str, str] = {}) -> Any:
    client = AsyncClient(raise_request_exception=False)
    return await client.get(f"/{name}", headers=dict(headers))


def test_the_request_id_goes_in_and_out(seen: Captured[Invocation]) -> None:
    """The caller's request ID is bound, recorded, and sent back; a missing one is made."""
    answer = ask("plain", {"X-Request-ID": "req-1"})
    assert (answer.content, answer.headers["X-Request-ID"]) == (b"req-1", "req-1")
    fresh = ask("plain")
    assert fresh.content.decode() == fresh.headers["X-Request-ID"] != "req-1"
    assert [run.request_id for run in seen] == ["req-1", fresh.headers["X-Request-ID"]]


@pytest.mark.parametrize("name", ["plain", "plain_async"])
def test_asynchronous_requests_are_bound_too(name: str, seen: Captured[Invocation]) -> None:
    """Under ASGI, views of both kinds work for their request, and `identify` may be asynchronous."""
    with override_settings(TASKPILOT_OBS_IDENTIFY=by_headers_later):
        answer = asyncio.run(ask_async(name, {"X-Request-ID": "req-2", "x-tenant": "acme"}))
    assert (answer.content, answer.headers["X-Request-ID"]) == (b"req-2", "req-2")
    assert [(run.request_id, run.tenant) for run in seen] == [("req-2", "acme")]


def test_tenant_and_user_are_what_the_application_finds(seen: Captured[Invocation], recorder: Recorder) -> None:
    """`TASKPILOT_OBS_IDENTIFY` names the function; where it fails, the request goes on and it is counted."""
    with override_settings(TASKPILOT_OBS_IDENTIFY=by_headers):
        ask("plain", {"x-tenant": "acme", "x-user": "ann"})
    with override_settings(TASKPILOT_OBS_IDENTIFY=out_of_order):
        assert ask("plain").status_code == 200
    assert [(run.tenant, run.user) for run in seen] == [("acme", "ann"), (None, None)]
    assert recorder.registry is not None
    where = {"where": "django.identify"}
    assert recorder.registry.get_sample_value("taskpilot_obs_internal_errors_total", where) == 1


def test_a_function_of_another_module_is_found_by_name() -> None:
    """A dotted name is imported, and what cannot be called is refused at the start."""
    with override_settings(TASKPILOT_OBS_IDENTIFY="operator.not_"):
        ObservabilityMiddleware(lambda request: HttpResponse())
    with (
        override_settings(TASKPILOT_OBS_IDENTIFY="sys.path"),
        pytest.raises(ConfigurationError, match="expected a function of the request"),
    ):
        ObservabilityMiddleware(lambda request: HttpResponse())


def test_a_failure_is_the_applications(seen: Captured[Invocation]) -> None:
    """A view that fails is answered by Django, with the request ID."""
    answer = ask("down", {"X-Request-ID": "req-3"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (500, "req-3")
    assert [(run.request_id, run.status) for run in seen] == [("req-3", "error")]


def test_streamed_bodies_work_for_the_request(seen: Captured[Invocation]) -> None:
    """Each step of a streamed body has the request's identity, and nothing stays bound between the steps."""
    answer = ask("stream", {"X-Request-ID": "req-4"})
    body = answer.streaming_content
    assert (next(body), get_request_id()) == (b"req-4 ", None)
    assert b"".join(body) == b"req-4 req-4 "
    assert [(run.request_id, run.status) for run in seen] == [("req-4", "success")]


def test_asynchronous_bodies_work_for_the_request() -> None:
    """Under ASGI, each step of an asynchronous body has the request's identity."""

    async def read() -> list[bytes]:
        answer = await ask_async("stream_async", {"X-Request-ID": "req-5"})
        return [step async for step in answer.streaming_content]

    assert asyncio.run(read()) == [b"req-5 "] * 3


def test_a_reader_who_leaves_ends_the_run(seen: Captured[Invocation]) -> None:
    """The server closes a response that is not read further, which ends the run as abandoned."""
    answer = ask("stream", {"X-Request-ID": "gone"})
    next(answer.streaming_content)
    answer.close()
    assert [(run.request_id, run.status) for run in seen] == [("gone", "abandoned")]


def test_files_stay_files() -> None:
    """A file response keeps its file, so that the server may send it by itself."""
    answer = ObservabilityMiddleware(this_file)(RequestFactory().get("/"))
    assert isinstance(answer, FileResponse)
    with answer.file_to_stream as file:
        assert file.read().startswith(b'"""Django')


def test_the_next_service_gets_what_this_one_knows() -> None:
    """`inject` passes request ID, trace and, by baggage, tenant on; inbound baggage is believed where asked for."""
    given = {"X-Request-ID": "r", "traceparent": PARENT, "baggage": "taskpilot.session.id=s"}
    plain_headers = {"X-Request-ID": "r", "traceparent": PARENT, "baggage": "taskpilot.request.id=r"}
    assert ask("following", given).json() == plain_headers
    with override_settings(TASKPILOT_OBS_TRUST_BAGGAGE=True):
        assert ask("following", given).json()["baggage"] == "taskpilot.request.id=r,taskpilot.session.id=s"
