"""FastAPI and Starlette under uvicorn: identity, trace context, streams and readers that leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import pytest
from _serving import serving
from fastapi import FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from taskpilot_obs_fastapi import Identity, ObservabilityMiddleware

from taskpilot_obs import get_request_id, observe_agent, observe_workflow, request_context
from taskpilot_obs.integration import Recorder
from taskpilot_obs.propagation import inject
from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import Captured, fresh_recorder

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def by_headers(connection: HTTPConnection) -> Identity:
    """What a service behind its own gateway does."""
    return Identity(connection.headers.get("x-tenant"), connection.headers.get("x-user"))


async def sleepy(connection: HTTPConnection) -> Identity | None:
    await asyncio.sleep(0)
    return Identity(session_id=connection.cookies.get("session"))


def out_of_order(connection: HTTPConnection) -> Identity:
    raise KeyError("no token")


@observe_agent("Writer")
async def write(words: int, pause_s: float = 0.0) -> AsyncIterator[str]:
    for _ in range(words):
        yield "word "
        await asyncio.sleep(pause_s)


def application(**options: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/plain")
    @observe_workflow("plain")
    def plain() -> dict[str, str | None]:
        return {"request_id": get_request_id()}

    @app.get("/stream")
    async def stream(words: int = 3, pause_s: float = 0.0) -> StreamingResponse:
        return StreamingResponse(write(words, pause_s), media_type="text/plain")

    @app.get("/late")
    def late() -> StreamingResponse:
        def body() -> Iterator[str]:
            for _ in range(2):
                yield f"{get_request_id()} "

        return StreamingResponse(body(), media_type="text/plain")

    @app.get("/down")
    @observe_workflow("down")
    def down() -> None:
        raise HTTPException(503)

    @app.get("/own")
    def own() -> JSONResponse:
        return JSONResponse({}, headers={"X-Request-ID": "of-the-application"})

    @app.get("/next")
    @observe_workflow("next")
    def following(baggage: bool = False) -> dict[str, str]:
        headers: dict[str, str] = {}
        inject(headers, baggage=baggage)
        return headers

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text(str(get_request_id()))
        await connection.close()

    app.add_middleware(ObservabilityMiddleware, **options)
    return app


def ask(path: str, headers: Mapping[str, str] = {}, **options: Any) -> Any:
    return TestClient(application(**options), raise_server_exceptions=False).get(path, headers=dict(headers))


def test_the_request_id_goes_in_and_out(seen: Captured[Invocation]) -> None:
    """The caller's request ID is bound, recorded, and sent back."""
    answer = ask("/plain", {"X-Request-ID": "req-1"})
    assert answer.json() == {"request_id": "req-1"}
    assert answer.headers["x-request-id"] == "req-1"
    assert [run.request_id for run in seen] == ["req-1"]


@pytest.mark.parametrize("given", [{}, {"X-Request-ID": "no good!"}, {"X-Request-ID": "x" * 129}])
def test_a_request_without_a_usable_id_gets_a_fresh_one(given: Mapping[str, str]) -> None:
    """A missing or malformed request ID is replaced, also while the client works for a request of its own."""
    with request_context("outer"):
        answer = ask("/plain", given)
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_the_applications_own_header_stays() -> None:
    """A request ID that the application itself answers with is not doubled."""
    assert ask("/own").headers.get_list("x-request-id") == ["of-the-application"]


def test_tenant_and_user_are_what_the_application_finds(seen: Captured[Invocation]) -> None:
    """`identify` states on whose behalf the request is made, asynchronously too."""
    ask("/plain", {"x-tenant": "acme", "x-user": "ann"}, identify=by_headers)
    ask("/plain", {"cookie": "session=s-1"}, identify=sleepy)
    found = [(run.tenant, run.user, run.session) for run in seen]
    assert found == [("acme", "ann", None), (None, None, "s-1")]


def test_an_identify_that_fails_is_counted_and_the_request_goes_on(
    seen: Captured[Invocation], recorder: Recorder
) -> None:
    """The application's answer does not depend on who could be identified."""
    assert ask("/plain", identify=out_of_order).status_code == 200
    assert [run.tenant for run in seen] == [None]
    recorder.drain()
    assert recorder.registry is not None
    where = {"where": "fastapi.identify"}
    assert recorder.registry.get_sample_value("taskpilot_obs_internal_errors_total", where) == 1


def test_a_failure_is_the_applications(seen: Captured[Invocation]) -> None:
    """An exception of a route is answered by FastAPI as without the middleware, with the request ID."""
    answer = ask("/down")
    assert answer.status_code == 503
    assert answer.headers["x-request-id"] == seen[0].request_id
    assert seen[0].status == "error"


def test_around_the_application_it_answers_crashes_too(seen: Captured[Invocation]) -> None:
    """An exception that nothing handles is answered outside of what `add_middleware` adds, with the ID all the same."""
    app = application()

    @app.get("/crash")
    @observe_workflow("crash")
    def crash() -> None:
        raise LookupError

    crashing = ObservabilityMiddleware(app)
    answer = TestClient(crashing, raise_server_exceptions=False).get("/crash", headers={"X-Request-ID": "req-6"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "req-6")
    assert [(run.request_id, run.status.value) for run in seen] == [("req-6", "error")]


def test_streamed_bodies_work_for_the_request(seen: Captured[Invocation]) -> None:
    """What runs while a body is sent, in a thread or in the event loop, has the request's identity."""
    assert ask("/late", {"X-Request-ID": "req-2"}).text == "req-2 req-2 "
    assert ask("/stream", {"X-Request-ID": "req-3", "x-tenant": "acme"}, identify=by_headers).text == "word " * 3
    assert [(run.request_id, run.tenant, run.status) for run in seen] == [("req-3", "acme", "success")]


def test_a_websocket_is_a_request(seen: Captured[Invocation]) -> None:
    """A WebSocket is bound like a request, and its handshake is answered with the request ID."""
    with TestClient(application()).websocket_connect("/socket", headers={"X-Request-ID": "req-4"}) as socket:
        assert socket.receive_text() == "req-4"
        headers: Any = socket.extra_headers
        assert dict(headers)[b"x-request-id"] == b"req-4"


def test_baggage_is_believed_only_where_it_is_asked_for(seen: Captured[Invocation]) -> None:
    """Tenant, user and session of the `baggage` header count with `trust_baggage`, and never without."""
    baggage = {"baggage": "taskpilot.tenant.id=acme%20inc,taskpilot.user.id=ann,other=1"}
    ask("/plain", baggage)
    ask("/plain", baggage, trust_baggage=True)
    ask("/plain", baggage | {"x-tenant": "globex"}, trust_baggage=True, identify=by_headers)
    found = [(run.tenant, run.user) for run in seen]
    assert found == [(None, None), ("acme inc", "ann"), ("globex", "ann")]


def test_lists_in_several_lines_are_one(seen: Captured[Invocation]) -> None:
    """`baggage` and `tracestate` may come in several lines, as proxies add one of their own: none is lost."""
    client = TestClient(application(trust_baggage=True))
    lines = [("baggage", "taskpilot.tenant.id=acme"), ("Baggage", "taskpilot.user.id=ann"), ("traceparent", PARENT)]
    answer = client.get("/next", headers=[*lines, ("tracestate", "a=1"), ("tracestate", "b=2")])
    assert [(run.tenant, run.user) for run in seen] == [("acme", "ann")]
    assert answer.json()["tracestate"] == "a=1,b=2"


def test_the_next_service_gets_what_this_one_knows() -> None:
    """`inject` writes request ID and trace, and tenant and user only where baggage is asked for."""
    given = {"X-Request-ID": "req-5", "traceparent": PARENT, "x-tenant": "acme inc", "x-user": "ann"}
    headers = ask("/next", given, identify=by_headers).json()
    assert headers == {"X-Request-ID": "req-5", "traceparent": PARENT}
    headers = ask("/next?baggage=true", given, identify=by_headers).json()
    with_request = "taskpilot.request.id=req-5,taskpilot.tenant.id=acme+inc,taskpilot.user.id=ann"
    assert headers["baggage"] == with_request


def test_spans_continue_the_callers_trace() -> None:
    """With a tracer provider, runs are spans beneath the caller's, and the next service gets the run's."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with fresh_recorder(tracer_provider=provider):
        headers = ask("/next", {"traceparent": PARENT}).json()
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"


def test_concurrent_requests_keep_apart(seen: Captured[Invocation]) -> None:
    """Streams that overlap in one event loop have each their own request."""

    async def both() -> None:
        transport = httpx.ASGITransport(application(identify=by_headers))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            given = [{"X-Request-ID": f"r-{n}", "x-tenant": f"t-{n}"} for n in range(20)]
            await asyncio.gather(*(client.get("/stream?pause_s=0.001", headers=headers) for headers in given))

    asyncio.run(both())
    found = sorted((str(run.request_id), str(run.tenant)) for run in seen)
    assert found == sorted((f"r-{n}", f"t-{n}") for n in range(20))


def test_a_reader_who_leaves_ends_the_run(seen: Captured[Invocation]) -> None:
    """Under uvicorn, a client that disconnects in the middle of a body ends the run, which is not a success."""
    with serving(application()) as url:
        with httpx.stream("GET", f"{url}/stream?words=100000&pause_s=0.01", headers={"X-Request-ID": "gone"}) as answer:
            assert next(answer.iter_text())
        deadline = time.monotonic() + 20
        while not len(seen):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert [(run.request_id, run.status) for run in seen] == [("gone", "cancelled")]
