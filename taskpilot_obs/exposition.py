"""Serve `/metrics`: as an ASGI app, as a WSGI app, or from a thread of its own.

All three drain the pipeline before they answer, serve OpenMetrics to clients that accept it (only that format carries
exemplars), and report all workers in multi-process mode (PROMETHEUS_MULTIPROC_DIR).
"""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from taskpilot_obs._support.fork import renew_in_child
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.prometheus.scrape import render

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import CollectorRegistry  # noqa: TID251  the type of an argument that is passed through

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

METHODS = ("GET", "HEAD")
PATHS = ("/metrics", "/")
"""Paths that `start_metrics_server` serves; the apps serve any path at which they are mounted."""
STALLED_AFTER_S = 10.0
_PLAIN_TEXT = "text/plain; charset=utf-8"
_VARIES = ("Vary", "Accept, Accept-Encoding")
_ZIPPED = (("Content-Encoding", "gzip"), _VARIES)


class _Answer(NamedTuple):
    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes


def _say(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> _Answer:
    return _answer(status, text.encode(), _PLAIN_TEXT, *headers)


def _answer(status: HTTPStatus, body: bytes, content_type: str, *headers: tuple[str, str]) -> _Answer:
    return _Answer(status, (("Content-Type", content_type), ("Content-Length", str(len(body))), *headers), body)


class _Request(NamedTuple):
    """The parts of a request that matter here, for ASGI and WSGI alike."""

    method: str
    accept: str = ""
    accept_encoding: str = ""
    query: str = ""


def _respond(request: _Request, registry: CollectorRegistry | None) -> _Answer:
    method, accept = request.method, request.accept
    if method not in METHODS:
        return _say(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD\n", ("Allow", ", ".join(METHODS)))
    with guarded("exposition"):
        body, content_type = render(registry, accept, parse_qs(request.query).get("name[]", ()))
        if _takes_gzip(request.accept_encoding):
            return _answer(HTTPStatus.OK, gzip.compress(body, mtime=0), content_type, *_ZIPPED)
        return _answer(HTTPStatus.OK, body, content_type, _VARIES)
    return _say(HTTPStatus.INTERNAL_SERVER_ERROR, "a collector of this registry failed; see the log\n")


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip: `gzip;q=0` refuses it."""
    for given in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in given.split(";"))
        if name == "gzip":
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False


class MetricsApp:
    """An ASGI 3 application: mount it, or pass it to a server as it is."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a thread renders the metrics, so the event loop is not blocked."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        if scope["type"] != "http":
            return
        method = scope["method"]
        accept, encoding = (_header(scope, name) for name in (b"accept", b"accept-encoding"))
        request = _Request(method, accept, encoding, scope.get("query_string", b"").decode("latin-1"))
        answer = await asyncio.to_thread(_respond, request, self._registry)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status.value, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})


def _header(scope: Scope, wanted: bytes) -> str:
    return b",".join(value for name, value in scope["headers"] if name.lower() == wanted).decode("latin-1")


async def _live(receive: Receive, send: Send) -> None:
    message = await receive()
    while message["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
        message = await receive()
    await send({"type": "lifespan.shutdown.complete"})


def metrics_app(registry: CollectorRegistry | None = None) -> MetricsApp:
    """Return an ASGI application that serves the metrics at any path at which it is mounted.

    Args:
        registry: what to serve; default is prometheus_client's own.
    """
    return MetricsApp(registry)


def metrics_wsgi_app(
    registry: CollectorRegistry | None = None,
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """Return a WSGI application that serves the metrics at any path at which it is mounted.

    Args:
        registry: what to serve; default is prometheus_client's own.
    """

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        request = _Request(
            method,
            environ.get("HTTP_ACCEPT", ""),
            environ.get("HTTP_ACCEPT_ENCODING", ""),
            environ.get("QUERY_STRING", ""),
        )
        answer = _respond(request, registry)
        start_response(f"{answer.status.value} {answer.status.phrase}", list(answer.headers))
        return [b"" if method == "HEAD" else answer.body]

    return app


class _MetricsHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = STALLED_AFTER_S
    server: _HttpServer

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        if path in PATHS:
            accept, encoding = self.headers.get("Accept", ""), self.headers.get("Accept-Encoding", "")
            answer = _respond(_Request(self.command, accept, encoding, query), self.server.registry)
        else:
            answer = _say(HTTPStatus.NOT_FOUND, f"metrics are at {PATHS[0]}\n")
        # The body of a refused method is not read, so the connection cannot be reused.
        self.close_connection = self.close_connection or self.command not in METHODS
        try:
            self._send(answer)
        except OSError:  # the client disconnected
            self.close_connection = True

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815  the base's names

    def version_string(self) -> str:
        """Name the server without the interpreter's version, which would help an attacker."""
        return "taskpilot-obs"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        """Log nothing, because scrapes arrive every few seconds."""


class _HttpServer(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry | None) -> None:
        self.registry = registry
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _MetricsHandler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that disconnects in the middle of a response."""


class MetricsServer:
    """A running `/metrics` server; also a context manager that closes it.

    Attributes:
        port: the port on which it listens.
        url: where the metrics are.
    """

    def __init__(self, server: _HttpServer) -> None:
        self._server = server
        host, self.port = server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        self.url = f"http://{shown}:{self.port}{PATHS[0]}"
        self._thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="taskpilot_obs-metrics", daemon=True
        )
        self._thread.start()
        renew_in_child(self)

    def close(self) -> None:
        """Stop listening. Repeated calls do nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def after_fork(self) -> None:
        """Close the parent's socket; otherwise a child that outlives its parent keeps the port."""
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def start_metrics_server(
    port: int, addr: str = "127.0.0.1", registry: CollectorRegistry | None = None
) -> MetricsServer:
    """Serve `/metrics` from a daemon thread.

    Args:
        port: 0 takes any free port; `.port` of the result is the one taken.
        addr: an IP address; the default is reachable from this host only.
        registry: what to serve; default is prometheus_client's own.

    Returns:
        The running server, with its `url` and `close()`.

    Raises:
        ConfigurationError: the address cannot be listened on, or this process may start no more threads.
    """
    try:
        server = _HttpServer((addr, port), registry)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"cannot serve metrics on address {addr!r}, port {port}: {reason_of(error)}. "
            "Give an IP address of this host and a free port from 1 to 65535, or 0 for any free port"
        ) from error
    try:
        return MetricsServer(server)
    except RuntimeError as error:
        server.server_close()
        raise ConfigurationError(f"cannot serve metrics: {error}; this process may start no more threads") from error
