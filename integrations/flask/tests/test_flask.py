"""Flask with the middleware: identity, trace context, streams and readers that leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask, Response, abort
from flask import request as flask_request
from taskpilot_obs_flask import Identity, ObservabilityMiddleware
from werkzeug.wrappers import Request

from taskpilot_obs import get_request_id, observe_agent, observe_workflow
from taskpilot_obs.integration import Recorder
from taskpilot_obs.propagation import inject
from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import Captured

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def by_headers(request: Request) -> Identity:
    return Identity(request.headers.get("x-tenant"), request.headers.get("x-user"))


def out_of_order(request: Request) -> Identity:
    raise KeyError("no token")


@observe_agent("Writer")
def write(words: int) -> Iterator[str]:
    for _ in range(words):
        yield f"{get_request_id()} "


def application(**options: Any) -> Flask:
    app = Flask(__name__)

    @app.get("/plain")
    @observe_workflow("plain")
    def plain() -> str:
        return str(get_request_id())

    @app.get("/stream")
    def stream() -> Response:
        return Response(write(flask_request.args.get("words", 3, int)), mimetype="text/plain")

    @app.get("/down")
    @observe_workflow("down")
    def down() -> str:
        abort(503)

    @app.get("/own")
    def own() -> Response:
        return Response("", headers={"x-request-id": "of-the-application"})

    @app.get("/next")
    def following() -> dict[str, str]:
        headers: dict[str, str] = {}
        inject(headers, baggage=True)
        return headers

    app.wsgi_app = ObservabilityMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]  # as Flask says
    return app


def ask(path: str, headers: Mapping[str, str] = {}, **options: Any) -> Any:
    return application(**options).test_client().get(path, headers=dict(headers))


def test_the_request_id_goes_in_and_out(seen: Captured[Invocation]) -> None:
    """The caller's request ID is bound, recorded, and sent back; a missing one is made."""
    answer = ask("/plain", {"X-Request-ID": "req-1"})
    assert (answer.text, answer.headers["x-request-id"]) == ("req-1", "req-1")
    fresh = ask("/plain")
    assert fresh.text == fresh.headers["x-request-id"] != "req-1"
    assert [run.request_id for run in seen] == ["req-1", fresh.text]


def test_the_applications_own_header_stays() -> None:
    """A request ID that the application itself answers with is not doubled."""
    assert ask("/own").headers.getlist("x-request-id") == ["of-the-application"]


def test_tenant_and_user_are_what_the_application_finds(seen: Captured[Invocation], recorder: Recorder) -> None:
    """`identify` states on whose behalf the request is made; where it fails, the request goes on and it is counted."""
    ask("/plain", {"x-tenant": "acme", "x-user": "ann"}, identify=by_headers)
    assert ask("/plain", identify=out_of_order).status_code == 200
    assert [(run.tenant, run.user) for run in seen] == [("acme", "ann"), (None, None)]
    assert recorder.registry is not None
    where = {"where": "flask.identify"}
    assert recorder.registry.get_sample_value("taskpilot_obs_internal_errors_total", where) == 1


def test_a_failure_is_the_applications(seen: Captured[Invocation]) -> None:
    """A route that fails is answered as without the middleware, with the request ID."""
    answer = ask("/down", {"X-Request-ID": "req-2"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (503, "req-2")
    assert [run.status for run in seen] == ["error"]


def test_streamed_bodies_work_for_the_request(seen: Captured[Invocation]) -> None:
    """What runs while a body is sent has the request's identity, though two streams take turns in one thread."""
    client = application(identify=by_headers).test_client()
    streams = [client.get("/stream", headers={"X-Request-ID": name, "x-tenant": name}) for name in ("r-1", "r-2")]
    steps = [stream.iter_encoded() for stream in streams]
    found = [next(each).decode() for _ in range(3) for each in steps]
    assert found == ["r-1 ", "r-2 "] * 3
    for stream in streams:
        stream.close()
    assert sorted((run.request_id, run.tenant or "") for run in seen) == [("r-1", "r-1"), ("r-2", "r-2")]
    assert get_request_id() is None


def test_a_reader_who_leaves_ends_the_run(seen: Captured[Invocation]) -> None:
    """The server closes a body that is not read further, which ends the run as abandoned."""
    answer = application().test_client().get("/stream?words=100", headers={"X-Request-ID": "gone"}, buffered=False)
    body = answer.iter_encoded()
    assert next(body) == b"gone "
    answer.close()
    assert [(run.request_id, run.status) for run in seen] == [("gone", "abandoned")]


def test_the_next_service_gets_what_this_one_knows() -> None:
    """`inject` passes request ID, trace and, by baggage, tenant and user on; inbound baggage is not believed."""
    given = {"X-Request-ID": "r", "traceparent": PARENT, "baggage": "taskpilot.session.id=s", "x-tenant": "acme"}
    headers = ask("/next", given, identify=by_headers).json
    baggage = "taskpilot.request.id=r,taskpilot.tenant.id=acme"
    assert headers == {"X-Request-ID": "r", "traceparent": PARENT, "baggage": baggage}
    trusted = ask("/next", given, identify=by_headers, trust_baggage=True).json
    assert trusted["baggage"] == f"{baggage},taskpilot.session.id=s"
