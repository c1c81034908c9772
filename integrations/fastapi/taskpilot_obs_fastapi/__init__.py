"""taskpilot-obs in FastAPI, Starlette and any ASGI application: who asks is bound to everything that runs for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection

from taskpilot_obs.integration import Recorder, get_recorder, guarded
from taskpilot_obs.propagation import REQUEST_ID_HEADER, Identity, ReceivedRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Identity", "ObservabilityMiddleware"]

_ANSWERS = ("http.response.start", "websocket.accept")
_LISTS = ("baggage", "tracestate")

Identify = Callable[[HTTPConnection], Identity | Awaitable[Identity | None] | None]


class ObservabilityMiddleware:
    """ASGI middleware: binds request ID, trace, tenant, user and session, and answers with the request ID.

    It follows a streamed body to its end, because it is plain ASGI and returns only then. An exception of `identify` is
    counted and logged, and the request goes on without an identity. Starlette answers exceptions that nothing handles
    outside of what `add_middleware` adds: there, only `ObservabilityMiddleware(app)` states the request ID.

    Args:
        app: the application.
        identify: finds out on whose behalf a request is made; may be asynchronous.
        trust_baggage: whether tenant, user and session are taken from the W3C `baggage` header of the caller.
        recorder: which recorder counts failures; the default recorder when left out.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        identify: Identify | None = None,
        trust_baggage: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self._app = app
        self._identify = identify
        self._trust_baggage = trust_baggage
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or other scope."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = ReceivedRequest(_headers_of(scope), trust_baggage=self._trust_baggage)
        with request:
            await self._find_identity(request, scope)
        with request:
            await self._app(scope, receive, _answering(request, send))

    async def _find_identity(self, request: ReceivedRequest, scope: Scope) -> None:
        if self._identify is None:
            return
        with guarded("fastapi.identify", (self._recorder or get_recorder()).counters):
            found = self._identify(HTTPConnection(scope))
            identity = await found if isawaitable(found) else found
            if identity is not None:
                request.identify(identity)


def _headers_of(scope: Scope) -> dict[str, str]:
    """The headers by their names; a list may come in several lines, which make one."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in _LISTS and key in headers else text
    return headers


def _answering(request: ReceivedRequest, send: Send) -> Send:
    """Send with the request ID in the answer's headers, unless the application has set it."""

    async def answer(message: Message) -> None:
        if message["type"] in _ANSWERS:
            message.setdefault("headers", [])
            MutableHeaders(scope=message).setdefault(REQUEST_ID_HEADER, request.scope.request_id)
        await send(message)

    return answer
