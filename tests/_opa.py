"""An OPA server on loopback, for the length of a `with` block: the part of the REST API that policies ask."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from taskpilot_obs.safety.rego import load_regopy


class Opa(ThreadingHTTPServer):
    """The server. Tests set the statuses, `pause` and `revision` to make it misbehave, and read `asked`.

    Args:
        text: of the one policy, in Rego.
        rules: the names of its rules, which `/v1/policies` states.
    """

    daemon_threads = True

    def __init__(self, text: str, rules: list[str], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.text = text
        self.rules = rules
        self.status = 200
        self.status_of_policies = 200
        self.pause = threading.Event()
        self.pause.set()
        self.revision: str | None = None
        self.asked: list[Any] = []
        self.connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def document(self, path: list[str], given: object) -> dict[str, Any]:
        """What `POST /v1/data/…` answers: without `result` where the document is undefined."""
        interpreter = load_regopy().Interpreter()
        interpreter.add_module("policy.rego", self.text)
        interpreter.set_input_term(json.dumps(given))
        found = interpreter.query(f"found = data.{'.'.join(path)}").results[0].bindings
        answer = {"result": found["found"]} if "found" in found else {}
        bundles = {} if self.revision is None else {"bundles": {"main": {"revision": self.revision}}}
        return {**answer, "provenance": {"version": "1.0.0", **bundles}}

    def policies(self) -> dict[str, Any]:
        """What `GET /v1/policies` answers; the second rule is named as older versions do."""
        package = self.text.split("\n", 1)[0].removeprefix("package ").split(".")
        path = [{"type": "var", "value": "data"}, *({"type": "string", "value": part} for part in package)]
        heads = [
            {"name": rule} if number == 1 else {"name": rule, "ref": [{"type": "var", "value": rule}]}
            for number, rule in enumerate(self.rules)
        ]
        module = {"package": {"path": path}, "rules": [{"head": head} for head in heads]}
        return {"result": [{"id": "policy.rego", "raw": self.text, "ast": module}]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as OPA's do
    wbufsize = -1  # head and body go out together
    server: Opa

    def setup(self) -> None:
        self.server.connections.append(self.request)
        super().setup()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(self.server.policies(), self.server.status_of_policies)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((dict(self.headers), body["input"]))
        assert self.server.pause.wait(60)
        path = urlsplit(self.path).path.removeprefix("/v1/data/").split("/")
        self._answer(self.server.document(path, body["input"]), self.server.status)

    def _answer(self, document: dict[str, Any], status: int) -> None:
        content = json.dumps(document).encode()
        with suppress(ConnectionError):  # a client that has given up
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)


@contextmanager
def opa(text: str, rules: list[str], port: int = 0) -> Iterator[Opa]:
    """A server that runs for the block."""
    server = Opa(text, rules, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.pause.set()
        server.shutdown()
        thread.join()
        server.server_close()
        for connection in server.connections:  # as the end of its process does
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
