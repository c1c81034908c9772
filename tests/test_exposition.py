"""`/metrics` over ASGI, WSGI and a thread of its own: real servers, real HTTP."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.routing import Route

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exposition import MetricsServer, metrics_app, metrics_wsgi_app, start_metrics_server
from taskpilot_obs.records import Invocation, Operation, Status

parse_openmetrics: Callable[[str], Iterator[Metric]] = openmetrics.text_string_to_metric_families

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
RUN = Invocation(Status.SUCCESS, 0.3, Operation.AGENT, "planner", "req-1", "inv-1", None, None, "planner", 1)
RUN = RUN._replace(trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331", sampled=True)


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    """A registry whose exporter has one more run to book at every drain, as a pipeline with a backlog has."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry, drain=lambda: exporter.export([RUN]))
    yield registry
    exporter.shutdown()


def runs(exposition: str) -> float:
    return next(
        sample.value
        for family in parse_text(exposition)
        for sample in family.samples
        if sample.name == "agent_runs_total" and sample.labels["status"] == "success"
    )


def fetch(url: str, **headers: str) -> tuple[int, str, str]:
    with urlopen(Request(url, headers=headers), timeout=10) as response:
        return response.status, response.headers["Content-Type"], response.read().decode()


@contextmanager
def served(app: Callable[..., Any]) -> Iterator[str]:
    """A real uvicorn on a loopback port, for the length of the block."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def test_the_thread_serves_what_was_handed_over_so_far(registry: CollectorRegistry) -> None:
    """A scrape over HTTP drains first: each one sees the run that was still waiting."""
    with start_metrics_server(0, registry=registry) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/metrics"
        status, content_type, first = fetch(server.url)
        assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert runs(first) == 1
        assert runs(fetch(f"{server.url}?x=1")[2]) == 2


def test_openmetrics_is_negotiated_and_carries_exemplars(registry: CollectorRegistry) -> None:
    """To a client that asks as Prometheus does, the thread answers in OpenMetrics with the exemplar of the run."""
    with start_metrics_server(0, registry=registry) as server:
        _, content_type, body = fetch(server.url, Accept=OPEN_METRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    exemplars = [s.exemplar.labels for family in parse_openmetrics(body) for s in family.samples if s.exemplar]
    assert exemplars == [{"trace_id": RUN.trace_id, "span_id": RUN.span_id}]


def test_our_created_series_are_left_out_and_the_users_are_not(registry: CollectorRegistry) -> None:
    """`_created` series of this library are not exposed; those of the application are."""
    Counter("orders_total", "Orders.", registry=registry)
    with start_metrics_server(0, registry=registry) as server:
        _, _, body = fetch(server.url)
    created = [line for line in body.splitlines() if "_created" in line and not line.startswith("#")]
    assert [line.split()[0] for line in created] == ["orders_created"]


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x.y", "text/plain; version=1.a; q=;", "a/b;;=,", "\xe9"]
)
def test_any_accept_header_is_answered(registry: CollectorRegistry, accept: str) -> None:
    """A header that cannot be understood is answered in the classic text format."""
    with start_metrics_server(0, registry=registry) as server:
        status, content_type, body = fetch(server.url, Accept=accept)
    assert (status, content_type.partition(";")[0], runs(body)) == (200, "text/plain", 1)


def test_only_get_and_head_on_the_two_paths(registry: CollectorRegistry) -> None:
    """HEAD has the headers of GET and no body; other methods are refused with 405, other paths with 404."""
    with start_metrics_server(0, registry=registry) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("HEAD", "/metrics")
        head = connection.getresponse()
        assert (head.status, head.read()) == (200, b"")
        assert int(head.headers["Content-Length"]) > 1000
        connection.request("GET", "/")
        assert len(connection.getresponse().read()) > 1000
        connection.request("GET", "/other")
        missing = connection.getresponse()
        assert (missing.status, missing.read()) == (404, b"metrics are at /metrics\n")
        connection.request("POST", "/metrics", body=b"x" * 100)
        refused = connection.getresponse()
        assert (refused.status, refused.headers["Allow"], refused.read()) == (405, "GET, HEAD", b"use GET or HEAD\n")
        connection.close()


def test_the_server_says_where_it_cannot_listen(registry: CollectorRegistry) -> None:
    """A taken port, an impossible port and a foreign address fail at once and say what to do."""
    with (
        start_metrics_server(0, registry=registry) as server,
        pytest.raises(ConfigurationError, match=rf"port {server.port}: .*0 for any free port"),
    ):
        start_metrics_server(server.port, registry=registry)
    with pytest.raises(ConfigurationError, match="port 70000"):
        start_metrics_server(70_000)
    with pytest.raises(ConfigurationError, match=r"address '192\.0\.2\.1'"):
        start_metrics_server(0, "192.0.2.1")


def test_a_closed_server_gives_its_port_back(registry: CollectorRegistry) -> None:
    """After `close`, which may be repeated, the port can be listened on again and no thread of it runs."""
    server = start_metrics_server(0, registry=registry)
    server.close()
    server.close()
    assert "taskpilot_obs-metrics" not in {thread.name for thread in threading.enumerate()}
    again = start_metrics_server(server.port, registry=registry)
    assert fetch(again.url)[0] == 200
    again.close()


def test_ipv6_loopback_is_served(registry: CollectorRegistry) -> None:
    """An IPv6 address is listened on, and its URL has the brackets that it needs."""
    try:
        server = start_metrics_server(0, "::1", registry)
    except ConfigurationError:
        pytest.skip("this host has no IPv6 loopback")
    with server:
        assert server.url == f"http://[::1]:{server.port}/metrics"
        assert fetch(server.url)[0] == 200


def test_a_client_that_stalls_or_goes_away_stops_nobody(
    registry: CollectorRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    """While one client sends half a request and another hangs up, a third is answered; nothing is printed."""
    with start_metrics_server(0, registry=registry) as server:
        stalled = socket.create_connection(("127.0.0.1", server.port))
        stalled.sendall(b"GET /metr")
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        gone.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        gone.close()
        assert fetch(server.url)[0] == 200
        stalled.close()
    assert capfd.readouterr() == ("", "")


def test_a_collector_that_fails_is_a_500_without_its_text(registry: CollectorRegistry) -> None:
    """When a collector of the application raises, the scrape fails with 500 and does not repeat the error's text."""
    Gauge("broken", "Raises.", registry=registry).set_function(lambda: 1 / 0)
    with start_metrics_server(0, registry=registry) as server:
        with pytest.raises(HTTPError) as failed:
            fetch(server.url)
        with failed.value as answer:
            assert (answer.code, b"division" in answer.read()) == (500, False)


def test_a_forked_child_lets_go_of_the_port(registry: CollectorRegistry) -> None:
    """A child that outlives the server does not keep its port, and the parent's scrapes go on."""
    server = start_metrics_server(0, registry=registry)
    ours, its = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        its.send(b"running")  # what a fork brings about has happened by now
        its.recv(1)
        os._exit(0)
    its.close()
    try:
        assert ours.recv(7) == b"running"
        assert fetch(server.url)[0] == 200
        server.close()
        socket.create_server(("127.0.0.1", server.port)).close()
    finally:
        ours.close()
        os.waitpid(child, 0)


def test_fastapi_mounts_the_app(registry: CollectorRegistry) -> None:
    """Under a real uvicorn, the app answers in FastAPI as a mount and as a route, HEAD and 405 included."""
    api = FastAPI()
    api.mount("/metrics", metrics_app(registry))
    api.router.routes.append(Route("/direct", metrics_app(registry)))
    with served(api) as url, httpx.Client(base_url=url, follow_redirects=True) as client:
        assert runs(client.get("/metrics").text) == 1
        direct = client.get("/direct", headers={"Accept": OPEN_METRICS})
        assert direct.headers["Content-Type"].startswith("application/openmetrics-text")
        head = client.head("/metrics/")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["Content-Length"]) > 1000
        assert client.post("/metrics/").status_code == 405


def test_the_asgi_app_stands_alone(registry: CollectorRegistry) -> None:
    """Served by itself, the app takes part in the server's start and stop and answers any path."""
    with served(metrics_app(registry)) as url:
        assert runs(fetch(f"{url}/anything")[2]) == 1


def test_the_asgi_app_ignores_what_is_not_http(registry: CollectorRegistry) -> None:
    """A websocket that is routed to the metrics gets no answer and raises nothing."""

    async def never(*_: object) -> Any:
        raise AssertionError("not asked")

    asyncio.run(metrics_app(registry)({"type": "websocket"}, never, never))


def test_the_event_loop_goes_on_while_metrics_are_rendered() -> None:
    """A drain that takes its time blocks the scrape and not the loop."""
    registry = CollectorRegistry()
    release = threading.Event()

    def drain() -> None:
        release.wait(10)

    exporter = PrometheusExporter(registry, drain=drain)

    async def scrape_beside_other_work() -> int:
        transport = httpx.ASGITransport(metrics_app(registry))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            scraping = asyncio.create_task(client.get("/"))
            for _ in range(5):
                await asyncio.sleep(0.01)
            assert not scraping.done()
            release.set()
            return (await scraping).status_code

    assert asyncio.run(scrape_beside_other_work()) == 200
    exporter.shutdown()


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_wsgi_app_keeps_to_the_standard(registry: CollectorRegistry) -> None:
    """Under a real WSGI server and the standard's validator: GET, HEAD, 405 and OpenMetrics."""
    server = make_server("127.0.0.1", 0, validator(metrics_wsgi_app(registry)), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
            assert runs(client.get("/").text) == 1
            asked = client.get("/", headers={"Accept": OPEN_METRICS})
            assert asked.headers["Content-Type"].startswith("application/openmetrics-text")
            assert client.head("/").content == b""
            assert client.delete("/").status_code == 405
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_default_registry_is_the_clients_own() -> None:
    """Without an argument all three serve prometheus_client's default registry."""
    with start_metrics_server(0) as server:
        assert isinstance(server, MetricsServer)
        assert "python_info" in fetch(server.url)[2]
