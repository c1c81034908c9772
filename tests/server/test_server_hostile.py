"""Hostile clients on a real socket, and hostile names in the store: an answer or a refusal, never a crash or markup."""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from io import StringIO
from urllib.parse import quote, urlsplit

import pytest
from _serving import PRESENT, fill, present, serving
from _stored import llm_call, task

from taskpilot_obs.records import Status
from taskpilot_obs.server import create_app
from taskpilot_obs.store import Store

NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '=HYPERLINK("http://x")',
    "@SUM(1)",
    "\uff1d1+1",
    "\x1b[31mred",
    "a\r\nX-Evil: 1",
    "\u202egnp.exe",
    "{{7*7}}",
    "../../etc/passwd",
    "%00%0d%0a",
    "x" * 3_000,
)
PAGES = ("/", "/calls", "/costs", "/benchmarks", "/tenants", "/experiments", "/budgets")
WAIT_S = 60.0


@pytest.fixture
def server(store: Store) -> Iterator[str]:
    """A server over a store in which every name is hostile."""
    for number, name in enumerate(NAMES):
        about = {"experiment": name, "variant": name, "experiment_unit": name, "prompt_name": name}
        names = {"request_id": f"r{number}", "tenant": name, "workflow": name, "agent": name}
        at = PRESENT - timedelta(minutes=number + 1)
        call = llm_call(
            at,
            invocation_id=f"c{number}",
            provider=name,
            request_model=name,
            response_model=name,
            canonical_model=name,
            user=name,
            error_type=name,
            error_category=name,
            status=Status.ERROR,
            attributes=about,
            **names,
        )
        fill(store, [call, task(at, invocation_id=f"t{number}", name=name, attributes=about, **names)])
    with serving(create_app(store=store, now=present)) as url:
        yield url


def said(url: str, request: bytes, *, leaves: bool = False) -> bytes:
    """What the server answers to these bytes, up to the end of the connection; maybe none to one that leaves."""
    found = urlsplit(url)
    with socket.create_connection((str(found.hostname), found.port or 0), WAIT_S) as client:
        client.sendall(request)
        answer = b""
        with suppress(ConnectionResetError):
            if leaves:
                client.shutdown(socket.SHUT_WR)
            while part := client.recv(65_536):
                answer += part
    return answer


def asked(url: str, target: bytes, *, method: bytes = b"GET", headers: bytes = b"", body: bytes = b"") -> bytes:
    """The answer to a request of this target, as it stands."""
    head = method + b" " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    return said(url, head + headers + b"\r\n" + body)


def is_harmless(answer: bytes) -> bool:
    """Whether it is an answer of a server that did not crash."""
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    if status is None or status[1] == b"500":
        return False
    head = answer.partition(b"\r\n\r\n")[0].lower()
    markup = b"text/html" in head and (b"<script>alert" in answer or b"<img src=x" in answer)
    return b"Traceback" not in answer and b"\nx-evil" not in head and not markup


TARGETS = (
    *(b"/v1/stats?period=" + junk for junk in (b"NaN", b"inf", b"1e999", b"%00", b"%ff%fe", b"%zz", b"9" * 400)),
    b"/v1/benchmarks/traces?start_date=0000-00-00",
    b"/v1/benchmarks/traces?end_date=9999-12-31T23:59:59-23:59",
    b"/v1/stats?model=%E2%80%AE%1B&model=b",
    b"/v1/stats?model=%0d%0aX-Evil:%201",
    b"/v1/stats?model=" + b"a" * 60_000,
    b"/static/../../../etc/passwd",
    b"/static/%2e%2e%2fapp.py",
    b"//evil.example/",
    b"http://evil.example/",
    b"/\xff\xfe",
    b"*",
)
HEADERS = (
    b"Authorization: Bearer " + b"x" * 60_000,
    b"Authorization: Bearer a\r\nAuthorization: Bearer b",
    b"Authorization: \xff\xfe",
    b"X-Tenant: acme\r\nX-Forwarded-For: 1.2.3.4, \xff\r\nX-Forwarded-Host: evil",
    b"Cookie: " + b"a=b; " * 2_000,
    b"Range: bytes=-" + b"9" * 40,
    b"Accept: text/html;q=x, \xff",
    b"Accept-Encoding: gzip;q=NaN",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: -5",
    b"Transfer-Encoding: chunked, gzip",
    b"Content-Type: \xff",
    b"X: " + b"y" * 200_000,
)
BODIES = (b"\xff", b"[" * 50_000, b"null", b'{"request_id": "\\ud800", "correct": true}', b'{"request_id": 1e999}')
RAW = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET  / HTTP/1.1\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + b"\xff\x00" * 300,
)


def test_no_bytes_of_a_client_break_the_server(server: str) -> None:
    """Targets, methods, headers, bodies and garbage: an answer or a refusal, and the next client is served."""
    for target in TARGETS:
        assert is_harmless(asked(server, target)), target
    for path in (b"/", b"/v1/stats", b"/metrics", b"/health/live", b"/nothing"):
        for method in (b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"FOO", b"get"):
            answer = asked(server, path, method=method)
            assert is_harmless(answer)
            assert method != b"TRACE" or b"Host:" not in answer
        body = b"Content-Length: 5\r\n"
        assert is_harmless(asked(server, path, headers=body, body=b"\xff\x00abc"))
    for headers in HEADERS:
        for path in (b"/", b"/v1/stats", b"/v1/feedback"):
            method = b"POST" if path == b"/v1/feedback" else b"GET"
            answer = asked(server, path, method=method, headers=headers + b"\r\n", body=b"0\r\n\r\n")
            assert is_harmless(answer), headers[:60]
    for body in BODIES:
        length = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        for path in (b"/v1/feedback", b"/v1/traces", b"/login"):
            assert is_harmless(asked(server, path, method=b"POST", headers=length, body=body))
    for raw in RAW:
        answer = said(server, raw, leaves=True)
        assert not answer or is_harmless(answer)
    assert asked(server, b"/health/live").startswith(b"HTTP/1.1 200")


def test_clients_that_never_finish_a_request_hold_up_no_other(server: str) -> None:
    """Fifty connections with half a request, and a fifty-first is answered."""
    found = urlsplit(server)
    stalled = [socket.create_connection((str(found.hostname), found.port or 0), WAIT_S) for _ in range(50)]
    try:
        for client in stalled:
            client.sendall(b"GET / HTT")
        assert asked(server, b"/health/live").startswith(b"HTTP/1.1 200")
    finally:
        for client in stalled:
            client.close()


def test_hostile_names_are_text_on_every_page_and_no_formula_in_a_table(server: str) -> None:
    """Each page and each page of a name is answered without markup of the name; no cell of CSV is a formula."""
    for page in PAGES:
        answer = asked(server, page.encode(), headers=b"Accept: text/html\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert is_harmless(answer)
        table = asked(server, b"/overview.csv" if page == "/" else f"{page}.csv".encode())
        text = table.partition(b"\r\n\r\n")[2].decode()
        cells = [cell for row in csv.reader(StringIO(text)) for cell in row]
        assert not [cell for cell in cells if re.match(r"[=+@\t\r\uff1d]|-(?![\d.]+$)", cell)]
    for name in NAMES:
        for page in ("/experiments/", "/requests/"):
            answer = asked(server, page.encode() + quote(name, safe="").encode(), headers=b"Accept: text/html\r\n")
            assert is_harmless(answer)
