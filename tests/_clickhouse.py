"""The real ClickHouse engine, embedded in the test process by the package chdb (550 MB, and no dependency).

A process can open one folder only, so that every test gets a database of its own in one folder.
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest

from taskpilot_obs.store.on_clickhouse import SETTINGS

_numbers = itertools.count(1)
IS_INSTALLED = find_spec("chdb") is not None and find_spec("clickhouse_connect") is not None
WHY = "ClickHouse is NOT tested: chdb is not installed (pip install chdb clickhouse-connect)"
needs_clickhouse = pytest.mark.skipif(not IS_INSTALLED, reason=WHY)
IN_FULL = pytest.param("clickhouse", marks=[pytest.mark.full, pytest.mark.timeout(900)])
"""The engine as a parameter of a fixture, for tests that every engine passes."""


_KNOWN = {*SETTINGS, "async_insert"}


@cache
def _folder() -> Path:
    """Registered before the engine is loaded, so that it is removed after the engine's own end."""
    folder = Path(mkdtemp(prefix="clickhouse-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def new_clickhouse() -> str:
    """The URL of an empty database of its own."""
    if not IS_INSTALLED:
        pytest.skip(WHY)
    return f"clickhouse+chdb:///{_folder()}?database=t{next(_numbers)}"


def drop(url: str) -> None:
    """Drop the database of a test, so that the engine has not those of all tests to look after."""
    from clickhouse_connect import dbapi

    folder, _, database = url.removeprefix("clickhouse+chdb:///").partition("?database=")
    connection = dbapi.connect(dsn=f"chdb:///{folder.lstrip('/')}", database="default")
    connection.command(f"DROP DATABASE IF EXISTS {database} SYNC")
    connection.close()


class Seen(NamedTuple):
    """One request."""

    query: str
    user: str | None
    settings: dict[str, str]


class StandIn:
    """A server on the loopback which speaks ClickHouse's HTTP interface, and has the embedded engine answer."""

    def __init__(self, url: str) -> None:
        self.seen: list[Seen] = []
        self.fails_on: str | None = None
        """A part of the queries that are refused; None: none is."""
        self.code = 202
        folder, _, self.database = url.removeprefix("clickhouse+chdb:///").partition("?database=")
        chdb = import_module("chdb")
        self._engine = chdb.connect(folder)
        self._engine.query(f"CREATE DATABASE IF NOT EXISTS {self.database}")
        self._lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self.http.server_port

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                owner.answer(self, dict(parse_qsl(urlsplit(self.path).query)), body)

            def do_GET(self) -> None:
                owner.answer(self, dict(parse_qsl(urlsplit(self.path).query)), b"")

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler, settings: dict[str, str], body: bytes) -> None:
        """Run one query, or refuse it."""
        stated = settings.pop("query", "").encode()
        text, data = _parted(stated + b"\n" + body if stated else body)
        query = text.decode()
        basic = request.headers.get("Authorization", "").removeprefix("Basic ")
        self.seen.append(Seen(query, b64decode(basic).decode().partition(":")[0] or None, settings))
        if self.fails_on is not None and self.fails_on in query:
            self._reply(request, 500, f"Code: {self.code}. DB::Exception: refused (SOME_NAME)".encode(), self.code)
            return
        try:
            with self._lock:
                self._engine.query(f"USE {self.database}")
                for name, value in settings.items():
                    if name in _KNOWN:
                        self._engine.query(f"SET {name} = {value}")
                found = self._run(query, data)
        except RuntimeError as error:
            self._reply(request, 500, str(error).encode(), 62)
        else:
            self._reply(request, 200, found)

    def _run(self, query: str, data: bytes) -> bytes:
        """The embedded engine reads data from a file, because it takes a query as text."""
        if not data:
            return bytes(self._engine.query(query, "TabSeparated").bytes())
        with NamedTemporaryFile(suffix=".native") as file:
            file.write(data)
            file.flush()
            into, form = query.rsplit(" FORMAT ", 1)
            return bytes(self._engine.query(f"{into} FROM INFILE '{file.name}' FORMAT {form}").bytes())

    @staticmethod
    def _reply(request: BaseHTTPRequestHandler, status: int, body: bytes, code: int | None = None) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        if code is not None:
            request.send_header("X-ClickHouse-Exception-Code", str(code))
        request.end_headers()
        request.wfile.write(body)


def _parted(request: bytes) -> tuple[bytes, bytes]:
    """The query, and the data that follow it in the format Native."""
    query, mark, data = request.partition(b" FORMAT Native\n")
    return (query + mark.rstrip(b"\n"), data)


@contextmanager
def stand_in(url: str) -> Iterator[StandIn]:
    """A running stand-in for a server, over a database of the embedded engine."""
    server = StandIn(url)
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
