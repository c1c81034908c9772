"""The pipeline beside exporters, producers and frameworks that do what they like; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from _stored import llm_call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from taskpilot_obs import track_agent, track_workflow
from taskpilot_obs._pipeline.exporter import PartialExportError
from taskpilot_obs.exceptions import ConfigurationError, SourceError
from taskpilot_obs.golden_signals.http import Access, get
from taskpilot_obs.records import Invocation, Record, Started
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.spool import Spool, default_directory
from taskpilot_obs.testing import capture_invocations, fresh_recorder

LIMIT_S = 100


def run(code: str, folder: Path, *, expect: int = 0) -> str:
    """What a program prints; it must end by itself."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == expect, done.stderr[-3_000:]
    return done.stdout


def accounts(registry: CollectorRegistry, exporter: str) -> tuple[float, float]:
    """How many records an exporter is said to have written, and how many it lost."""
    written = registry.get_sample_value("taskpilot_obs_records_total", {"exporter": exporter}) or 0
    dropped = sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "taskpilot_obs_records_dropped_total" and sample.labels["exporter"] == exporter
    )
    return written, dropped


class Sink:
    """A user's exporter that does something with each batch."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def export(self, batch: Sequence[Record], /) -> None:
        self.act(batch)


class Unfriendly(Exception):  # noqa: N818  the name is not that of an error
    """Refuses every question."""

    def __bool__(self) -> bool:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


def account_of(act: Any, runs: int = 50) -> tuple[float, float]:
    registry = CollectorRegistry()
    with fresh_recorder(registry=registry, exporters=[Sink(act)]) as recorder:
        for _ in range(runs):
            with track_agent("A", recorder=recorder):
                pass
        assert recorder.flush(30)
        recorder.drain()
        return accounts(registry, "exporter_1")


def empty(batch: Any) -> None:
    while batch:
        batch.pop()


@pytest.mark.promise("accounted")
def test_an_exporter_that_empties_its_batch() -> None:
    """What an exporter does with its batch changes no account: each record is written or dropped."""
    assert account_of(empty) == (0, 100)
    assert account_of(lambda batch: list(batch).clear()) == (100, 0)


def stated(written: Any) -> Any:
    def act(_batch: Any) -> None:
        error = PartialExportError(0)
        error.written = written
        raise error from Unfriendly()

    return act


ANYTHING = st.one_of(
    st.integers(-(10**20), 10**20), st.floats(), st.text(), st.none(), st.booleans(), st.lists(st.integers())
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANYTHING)
def test_a_partial_export_that_states_anything(written: Any) -> None:
    """A `PartialExportError` with anything in it accounts for every record once."""
    wrote, dropped = account_of(stated(written), runs=5)
    assert wrote + dropped == 10
    assert wrote == (min(max(0, written), 10) if type(written) is int else 0)


@pytest.mark.parametrize(
    "error", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, RecursionError, Unfriendly]
)
def test_a_worker_survives_its_exporter(error: type[BaseException]) -> None:
    """Whatever an exporter raises costs its batch and not the worker: the next batch is exported."""
    got: list[int] = []

    def act(batch: Sequence[Record]) -> None:
        got.append(len(batch))
        if len(got) == 1:
            raise error

    registry = CollectorRegistry()
    with fresh_recorder(registry=registry, exporters=[Sink(act)]) as recorder:
        for _ in range(2):
            with track_agent("A", recorder=recorder):
                pass
            assert recorder.flush(30)
        recorder.drain()
        assert accounts(registry, "exporter_1") == (4 - got[0], got[0])


def test_what_is_said_after_the_start_was_seen() -> None:
    """`set_input` and `set_output` hold until the end, whenever the library's own thread has looked."""
    with fresh_recorder(capture_content=True) as recorder, capture_invocations() as seen:
        with track_workflow("w") as run:
            recorder.drain()
            run.set_input("first")
            recorder.drain()
            run.set_input("hello")
            run.set_attribute("step", "plan")
            run.set_output("bye")
            recorder.drain()
        with track_workflow("structured") as run:
            recorder.drain()
            run.set_input({"password": "x", "n": 1})
    first, second = seen
    assert (first.input_text, first.input_length) == ("hello", 5)
    assert (first.output_text, first.attributes["step"]) == ("bye", "plan")
    assert second.input_text == '{"password": "[REDACTED:secret]", "n": 1}'


def test_bursts_where_the_user_chose_to_wait() -> None:
    """With `on_full="block"` no record is lost however small the queue is: callers wait for the drainer as well."""
    threads, runs = 16, 300
    registry = CollectorRegistry()
    begun: set[str] = set()
    ended: set[str] = set()

    def act(batch: Sequence[Record]) -> None:
        begun.update(record.invocation_id for record in batch if isinstance(record, Started))
        ended.update(record.invocation_id for record in batch if isinstance(record, Invocation))

    def work() -> None:
        for _ in range(runs):
            with track_agent("A", recorder=recorder):
                pass

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with fresh_recorder(registry=registry, exporters=[Sink(act)], queue_capacity=64, on_full="block") as recorder:
            workers = [threading.Thread(target=work) for _ in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(LIMIT_S)
            assert recorder.flush(60)
            recorder.drain()
            assert accounts(registry, "exporter_1") == (2 * threads * runs, 0)
    finally:
        sys.setswitchinterval(interval)
    assert len(begun) == len(ended) == threads * runs


AFTER_SHUTDOWN = """
from taskpilot_obs import configure, observe_agent, shutdown
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4 // 1024
configure(service="s", audit_log="logs/audit.jsonl")
@observe_agent("A")
def a(x): return x
a(1); shutdown()
for _ in range(20_000): a(1)
before = resident()
for _ in range(200_000): a(1)
print(resident() - before)
from prometheus_client import generate_latest
print([line.rpartition(" ")[2] for line in generate_latest().decode().splitlines()
       if line.startswith('taskpilot_obs_records_dropped_total{exporter="audit_log",reason="shutdown"}')][0])
"""


def test_nothing_grows_after_a_shutdown(tmp_path: Path) -> None:
    """Calls after `shutdown()` take no memory (it was 784 MB a million), and go on being counted as dropped."""
    grown, dropped = run(AFTER_SHUTDOWN, tmp_path).split()
    assert int(grown) < 20
    assert float(dropped) > 400_000


PRODUCERS = """
import threading, time
from taskpilot_obs import configure, observe_agent
configure(service="s", audit_log="logs/audit.jsonl", exit_timeout_s=1)
@observe_agent("A")
def a(x): return x
def produce():
    while True: a(1)
for _ in range(3): threading.Thread(target=produce, daemon=True).start()
while not __import__("os").path.exists("logs/audit.jsonl"): time.sleep(0.01)
time.sleep(0.5)
print(time.time())
"""

HANGING = """
import time
from taskpilot_obs import configure, track_agent
class Hangs:
    def export(self, batch): pass
    def shutdown(self, timeout_s): time.sleep(1_000)
class Sound:
    def export(self, batch): print(len(batch), flush=True)
configure(service="s", exporters=[Hangs(), Sound()], exit_timeout_s=1)
with track_agent("A"): pass
print(time.time(), flush=True)
"""


@pytest.mark.promise("exit-in-time")
@pytest.mark.parametrize("code", [PRODUCERS, HANGING], ids=["producers that never stop", "a shutdown that hangs"])
def test_the_exit_is_on_time(code: str, tmp_path: Path) -> None:
    """A process ends soon after `exit_timeout_s`, beside producers that never stop and exporters that do not return."""
    printed = run(code, tmp_path).split()
    began = next(float(word) for word in printed if "." in word)
    assert time.time() - began < 1 + 8  # it was 18 s on a machine without other load
    if code is HANGING:
        assert sum(int(word) for word in printed if "." not in word) == 2


_DECORATED = """
@t.observe_workflow("w")
def w(x):
    gevent.sleep(0.001)
    return x
"""
_PATCHED = """
from gevent import monkey; monkey.patch_all()
import gevent
"""
_CONFIGURED = """
import taskpilot_obs as t
t.configure(service="g", audit_log="logs/audit.jsonl")
"""
_WORKED = """
jobs = [gevent.spawn(w, n) for n in range(200)]
assert [job.get(timeout=30) for job in jobs] == list(range(200))
gevent.sleep(0.3)
assert t.flush(10)
print(sum(1 for _ in open("logs/audit.jsonl")), t.golden_signals("15m").success_rate)
t.shutdown()
"""
GEVENT = f"import taskpilot_obs as t{_DECORATED}{_PATCHED}{_CONFIGURED}{_WORKED}"


def test_gevent_that_patches_late(tmp_path: Path) -> None:
    """`gunicorn -k gevent --preload` decorates first and patches then: the application goes on, and all is recorded."""
    lines, rate = run(GEVENT, tmp_path).split()
    assert (int(lines), float(rate)) == (400, 100.0)


_CALLED = """
@t.observe_workflow("first")
def first(): return 1
assert first() == 1
assert t.flush(10)
"""
GEVENT_CALLED = f"{_CONFIGURED}{_CALLED}{_PATCHED}{_DECORATED}{_WORKED}"


def test_gevent_that_patches_after_the_first_call(tmp_path: Path) -> None:
    """Where calls were recorded before the patch, by threads that still run, the application goes on all the same."""
    lines, rate = run(GEVENT_CALLED, tmp_path).split()
    assert (int(lines), float(rate)) == (402, 100.0)


EVENTLET = """
import warnings; warnings.simplefilter("ignore")
import eventlet; eventlet.monkey_patch()
import taskpilot_obs as t
t.configure(service="g", audit_log="logs/audit.jsonl")
@t.observe_workflow("w")
def w(x):
    eventlet.sleep(0.001)
    return x
jobs = [eventlet.spawn(w, n) for n in range(200)]
assert [job.wait() for job in jobs] == list(range(200))
assert t.flush(10)
print(sum(1 for _ in open("logs/audit.jsonl")), t.golden_signals("15m").success_rate)
t.shutdown()
from taskpilot_obs.audit.verify import verify
print([report.records for report in verify("logs") if report.is_whole])
"""


def test_eventlet(tmp_path: Path) -> None:
    """Under eventlet every record is in the audit log, which verifies, and nothing waits for ever."""
    lines, rate, records = run(EVENTLET, tmp_path).split()
    assert (int(lines), float(rate), records) == (400, 100.0, "[400]")


EVENTLET_SERVER = """
import warnings; warnings.simplefilter("ignore")
import eventlet; eventlet.monkey_patch()
from eventlet import wsgi
from eventlet.green.urllib.request import urlopen
import taskpilot_obs as t
from taskpilot_obs.exposition import metrics_wsgi_app
t.configure(service="g", audit_log="logs/audit.jsonl")
@t.observe_agent("answer")
def answer():
    eventlet.sleep(0.002)
    yield b"one "
    yield t.get_request_id().encode()
metrics = metrics_wsgi_app()
@t.observe_workflow("ask")
def ask(request_id):
    with t.request_context(request_id):
        return answer()
def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        return metrics(environ, start_response)
    start_response("200 OK", [("content-type", "text/plain")])
    return ask(environ["QUERY_STRING"])
socket = eventlet.listen(("127.0.0.1", 0))
address = "http://127.0.0.1:%d" % socket.getsockname()[1]
server = eventlet.spawn(wsgi.server, socket, app, log_output=False)
def fetch(number):
    return urlopen(f"{address}/?r{number}", timeout=30).read()
pool = eventlet.GreenPool(20)
assert list(pool.imap(fetch, range(200))) == [b"one r%d" % n for n in range(200)]
shown = urlopen(address + "/metrics", timeout=30).read().decode()
assert t.flush(10)
runs = [line for line in shown.splitlines() if line.startswith("workflow_runs_total{")]
counted = [line for line in runs if 'status="success"' in line]
server.kill()
print(sum(1 for _ in open("logs/audit.jsonl")), counted[0].split()[1])
t.shutdown()
"""


def test_a_server_on_eventlet(tmp_path: Path) -> None:
    """Twenty requests at a time, each a streamed answer: each belongs to its own request, and is counted and logged."""
    lines, counted = run(EVENTLET_SERVER, tmp_path).split()
    assert (int(lines), float(counted)) == (800, 200)


class Dripping(BaseHTTPRequestHandler):
    """Answers a byte at a time: its header, its body, or the body of an error."""

    part = ""

    def do_GET(self) -> None:
        status = 500 if self.part == "error" else 200
        start = f"HTTP/1.0 {status} OK\r\n".encode()
        whole = start + b"\r\n"
        with suppress(OSError):
            self.wfile.write(start if self.part == "header" else whole)
            while not stopped.wait(0.05):
                self.wfile.write(b"x")
                self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


stopped = threading.Event()


class Overstating(BaseHTTPRequestHandler):
    """States a longer body than any answer has."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "9" * 5_000)
        self.end_headers()
        self.wfile.write(b"up 1")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


def test_a_size_that_python_refuses_to_read() -> None:
    """A Content-Length of more digits than `int` reads is an answer that broke off."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Overstating)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(SourceError, match=r"broke off after 4 of 9{20} bytes"):
            get(f"http://127.0.0.1:{server.server_port}/", Access())
    finally:
        server.shutdown()
        thread.join(LIMIT_S)
        server.server_close()


@pytest.mark.parametrize("part", ["header", "body", "error"])
def test_a_server_that_drips(part: str) -> None:
    """`Access.timeout_s` bounds the whole request, also where bytes go on coming: in the header, a body or an error."""
    stopped.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Dripping,), {"part": part}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"did not answer within 0\.5 s|did not finish"):
            get(f"http://127.0.0.1:{server.server_port}/", Access(timeout_s=0.5))
        assert time.monotonic() - began < 30  # it would be for ever
    finally:
        stopped.set()
        server.shutdown()
        thread.join(LIMIT_S)
        server.server_close()


DECORATES = """
import logging, taskpilot_obs as t
@t.observe_agent("A")
def a(): return 1
assert a() == 1
try:
    t.configure(service="s")
except t.exceptions.ConfigurationError as error:
    print("refused:", error)
assert a() == 1
"""


@pytest.mark.parametrize(("folder", "reason"), [("missing", "is not a directory"), ("/proc/self", "cannot write to")])
def test_a_directory_of_metrics_that_cannot_be_used(
    folder: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PROMETHEUS_MULTIPROC_DIR that is missing or cannot be written refuses `configure()`, and never a decorator."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", folder)
    assert reason in run(DECORATES.replace("import logging, ", "import taskpilot_obs.exceptions, "), tmp_path)


def test_a_spool_in_a_home_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A home directory that cannot be made is a warning that names the option; one that nothing names is refused."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nobody")
    Spool(default_directory("postgresql://db/x")).check()
    assert "/proc/nobody/.local/state" in caplog.text
    assert "spool_dir=" in caplog.text
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 3)
    with pytest.raises(ConfigurationError, match="has no home directory"):
        default_directory("postgresql://db/x")


def test_a_spool_that_another_process_left(tmp_path: Path) -> None:
    """What a process left behind is seen once it has ended, and not while it lives."""
    left, mine = Spool(tmp_path), Spool(tmp_path)
    left.append(rows_of([llm_call(invocation_id="a")]))
    assert not mine.left_behind()
    left.close()
    assert mine.left_behind()
    got: list[Any] = []
    mine.replay(got.append, lost=got.append)
    assert len(got) == 1
    assert not mine.left_behind()
