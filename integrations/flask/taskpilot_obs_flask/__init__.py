"""taskpilot-obs in Flask and any WSGI application: who asks is bound to everything that runs for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request

from taskpilot_obs.integration import Recorder, get_recorder, guarded
from taskpilot_obs.propagation import REQUEST_ID_HEADER, Identity, ReceivedRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Identity", "ObservabilityMiddleware"]

Identify = Callable[[Request], Identity | None]

_PREFIX = "HTTP_"


class ObservabilityMiddleware:
    """WSGI middleware: binds request ID, trace, tenant, user and session, and answers with the request ID.

    Each step of a streamed body works for its request, to the end. An exception of `identify` is counted and logged,
    and the request goes on without an identity.

    Args:
        app: the application: `app.wsgi_app = ObservabilityMiddleware(app.wsgi_app)`.
        identify: finds out on whose behalf a request is made.
        trust_baggage: whether tenant, user and session are taken from the W3C `baggage` header of the caller.
        recorder: which recorder counts failures; the default recorder when left out.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        identify: Identify | None = None,
        trust_baggage: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self._app = app
        self._identify = identify
        self._trust_baggage = trust_baggage
        self._recorder = recorder

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        request = ReceivedRequest(_headers_of(environ), trust_baggage=self._trust_baggage)
        with request:
            self._find_identity(request, environ)
        with request:
            body = self._app(environ, _answering(request, start_response))
        return request.iterate(body)

    def _find_identity(self, request: ReceivedRequest, environ: WSGIEnvironment) -> None:
        if self._identify is None:
            return
        with guarded("flask.identify", (self._recorder or get_recorder()).counters):
            identity = self._identify(Request(environ))
            if identity is not None:
                request.identify(identity)


def _headers_of(environ: WSGIEnvironment) -> dict[str, str]:
    return {
        name.removeprefix(_PREFIX).replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith(_PREFIX)
    }


def _answering(request: ReceivedRequest, start_response: StartResponse) -> StartResponse:
    """Start with the request ID in the answer's headers, unless the application has set it."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        if not any(name.lower() == REQUEST_ID_HEADER.lower() for name, _ in headers):
            headers = [*headers, (REQUEST_ID_HEADER, request.scope.request_id)]
        return start_response(status, headers, *exc_info)

    return start
