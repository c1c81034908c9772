"""A server on the loopback interface that answers real clients with recorded exchanges.

    with ReplayServer(exchanges()) as server:
        ChatOpenAI(base_url=f"{server.url(17)}/v1", api_key="none")

Every request below `/17/` gets the recorded answer number 17: body, status and, for a stream, its events one by one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from _recorded import Exchange

_STREAM = "text/event-stream"


def exchange(said: Any) -> Exchange:
    """A body, or the events of a stream, as recorded exchanges are kept."""
    streaming = isinstance(said, list)
    events = [f"event: {one.get('type', 'x')}\ndata: {json.dumps(one)}\n\n" for one in said] if streaming else []
    return {
        "status": 200,
        "mode": "sse" if streaming else "json",
        "response_content_type": None if streaming else "application/json",
        "response_body": "".join(events) if streaming else json.dumps(said),
        "response_body_b64": None,
    }


class ReplayServer:
    """Serves while its block lasts.

    Args:
        recorded: the exchanges, by position.
        cut_after: events of a stream after which the connection breaks; None for whole streams.
    """

    def __init__(self, recorded: Sequence[Exchange], cut_after: int | None = None) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
        self._http.daemon_threads = True
        self._http.recorded = recorded  # type: ignore[attr-defined]  # handlers reach only their server
        self._http.cut_after = cut_after  # type: ignore[attr-defined]  # the same
        self.requests: list[dict[str, Any]] = []
        self._http.requests = self.requests  # type: ignore[attr-defined]  # the same
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def url(self, position: int) -> str:
        """Where exchange `position` is answered."""
        return f"http://127.0.0.1:{self._http.server_port}/{position}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Any = self.server
        sent = self.rfile.read(int(self.headers.get("content-length") or 0))
        server.requests.append(json.loads(sent) if sent else {})
        exchange = server.recorded[int(self.path.split("/")[1])]
        body, content_type = _body(exchange, as_events="alt=sse" in self.path)
        self.send_response(exchange["status"])
        self.send_header("content-type", content_type)
        if _STREAM not in content_type:
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._send_events(body, server.cut_after)

    def _send_events(self, body: bytes, cut_after: int | None) -> None:
        events = [event for event in body.replace(b"\r\n", b"\n").split(b"\n\n") if event.strip()]
        for event in events[:cut_after]:
            framed = event + b"\n\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(framed), framed))
            self.wfile.flush()
        if cut_after is None:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # clients leave without a word
            super().handle()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


def _body(exchange: Exchange, *, as_events: bool) -> tuple[bytes, str]:
    raw = exchange["response_body_b64"]
    body = base64.b64decode(raw) if raw else (exchange["response_body"] or "").encode("utf-8", "surrogatepass")
    if exchange["mode"] == "jsonarray" and as_events:  # the chunks in the format that current clients request
        chunks = json.loads(body)
        return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), _STREAM
    if exchange["mode"] == "sse":
        return body, _STREAM
    return body, exchange["response_content_type"] or "application/json"
