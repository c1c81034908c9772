"""A loopback HTTP server that answers what a test says, for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Reply = tuple[int, str, bytes]


@contextmanager
def answering(
    reply: Callable[[BaseHTTPRequestHandler], Reply], *, location: str = "http://127.0.0.1:9/elsewhere"
) -> Iterator[str]:
    """A loopback HTTP server that answers each request by this function; yields its URL. Redirects go to `location`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # a client that has given up
                self.answer()

        do_POST = do_PUT = do_GET  # noqa: N815  the names that the base class looks for

        def answer(self) -> None:
            status, content_type, body = reply(self)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            if 300 <= status < 400:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
