"""A loopback receiver of Alertmanager's webhooks, for the length of a `with` block."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple


class Delivery(NamedTuple):
    """One alert of one notification."""

    receiver: str
    status: str
    """`firing` or `resolved`."""
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def name(self) -> str:
        """Of the alert."""
        return self.labels["alertname"]


class Webhook:
    """What was delivered so far, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.deliveries: list[Delivery] = []

    def wait_for(self, name: str, status: str, *, since: int = 0, seconds: float = 60.0) -> Delivery:
        """The first delivery of this alert with this status after the first `since` ones.

        Raises:
            AssertionError: none came in time; the message says what came instead.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for delivery in self.deliveries[since:]:
                if (delivery.name, delivery.status) == (name, status):
                    return delivery
            time.sleep(0.1)
        came = sorted({f"{delivery.name} {delivery.status}" for delivery in self.deliveries[since:]})
        raise AssertionError(f"{name} {status} was not delivered within {seconds:g} s; what came: {came}")


@contextmanager
def receiving() -> Iterator[Webhook]:
    """A running receiver."""
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            webhook.deliveries += [_delivery(body["receiver"], alert) for alert in body["alerts"]]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    webhook.url = f"http://127.0.0.1:{httpd.server_port}/"
    thread = Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield webhook
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def _delivery(receiver: str, alert: dict[str, Any]) -> Delivery:
    return Delivery(receiver, alert["status"], alert["labels"], alert["annotations"])
