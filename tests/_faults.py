"""A process under load, with a fault or two: `python _faults.py HOME FAULT…`; its exit is part of what is tested.

What really happened is in files beneath HOME, for nothing in a process can be asked after its end: `ran` and `sent`
grow by a byte a run and a byte a record that the sink has got, `threads` names those that would keep the process.
What the library says happened is in the metrics' files in HOME/values.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from taskpilot_obs import configure, observe_agent
from taskpilot_obs.exposition import MetricsServer, start_metrics_server

THREADS, RUNS = 4, 2_500
PAUSE_EVERY, PAUSE_S = 5, 0.002
EXIT_TIMEOUT_S = 2.0
WATCHDOG_S = 60.0


class Truth:
    """Counts in a file what happened, a byte each; outlives the process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, amount: int) -> None:
        os.write(self._file, b"." * amount)


class Sink:
    """A user's exporter; a fault makes it fail or wait."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self.before: Callable[[], object] = int

    def export(self, batch: Sequence[object], /) -> None:
        self.before()
        self._truth.add(len(batch))


class Fault:
    """What goes wrong; each does one of these."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def prepare(self, options: dict[str, Any]) -> None:
        """Before the configuration."""

    def begin(self) -> None:
        """After a quarter of the load."""

    def end(self) -> None:
        """After three quarters, for what passes."""

    def last(self) -> None:
        """When the load is over; may end the process."""


class Scene:
    """The process and what it does."""

    def __init__(self, home: Path, names: Sequence[str]) -> None:
        self.home = home
        self.audit = home / "audit"
        self.ran = Truth(home / "ran")
        self.sink = Sink(Truth(home / "sent"))
        self.stop = threading.Event()
        self.done = 0
        self.faults = [FAULTS[name](self) for name in names]

    def play(self) -> None:
        options: dict[str, Any] = {
            "audit_log": self.audit / "audit.jsonl",
            "audit_max_bytes": 200_000,
            "exporters": [self.sink],
            "queue_capacity": 2_048,
            "exit_timeout_s": EXIT_TIMEOUT_S,
        }
        for fault in self.faults:
            fault.prepare(options)
        configure(**options)
        threads = [threading.Thread(target=self.load, daemon=True) for _ in range(THREADS)]
        try:
            for thread in threads:
                thread.start()
            self.wait_for(0.25, threads)
            for fault in self.faults:
                fault.begin()
            self.wait_for(0.75, threads)
            for fault in self.faults:
                fault.end()
        finally:
            self.wait_for(1.0, threads)
            for thread in threads:
                thread.join()
            kept = [thread.name for thread in threading.enumerate() if not thread.daemon]
            (self.home / "threads").write_text("\n".join(kept))
        for fault in self.faults:
            fault.last()

    def load(self) -> None:
        for number in range(RUNS):
            if self.stop.is_set():
                return
            agent()
            self.ran.add(1)
            self.done += 1
            if number % PAUSE_EVERY == 0:
                time.sleep(PAUSE_S)

    def wait_for(self, share: float, threads: Sequence[threading.Thread]) -> None:
        """Until about so much of the load is done (the count is not exact, and need not be)."""
        while self.done < share * THREADS * RUNS and any(thread.is_alive() for thread in threads):
            time.sleep(0.002)


@observe_agent("planner")
def agent() -> str:
    """What the load runs."""
    return "done"


class AuditFull(Fault):
    """No file may grow: what a full disk looks like."""

    def prepare(self, options: dict[str, Any]) -> None:
        options["audit_max_bytes"] = 100_000_000

    def begin(self) -> None:
        largest = max(path.stat().st_size for path in self.scene.audit.iterdir())
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        # The files of metric values are there already, and larger.
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100_000, hard))

    def end(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class AuditReadOnly(Fault):
    """The folder loses its right to write; root, who could still write, drops its rights first."""

    def prepare(self, options: dict[str, Any]) -> None:
        options["audit_max_bytes"] = 50_000  # a new segment needs the folder
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody").pw_uid
            for path in (self.scene.home, *self.scene.home.rglob("*")):
                os.chown(path, nobody, -1)
            os.setuid(nobody)

    def begin(self) -> None:
        self.scene.audit.chmod(0o555)

    def end(self) -> None:
        self.scene.audit.chmod(0o755)


class AuditRemoved(Fault):
    """Somebody cleans up too eagerly."""

    def begin(self) -> None:
        shutil.rmtree(self.scene.audit, ignore_errors=True)


class StdoutClosed(Fault):
    """The audit log goes to standard output, whose reader goes away."""

    def prepare(self, options: dict[str, Any]) -> None:
        options["audit_log"] = "stdout"
        file = os.open(self.scene.home / "stdout", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, 1)

    def begin(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        os.close(writer)


class ExporterRaises(Fault):
    """Every batch fails for a while."""

    def begin(self) -> None:
        self.scene.sink.before = self.fail

    def fail(self) -> None:
        raise ConnectionError("the other side is down")

    def end(self) -> None:
        self.scene.sink.before = int


class ExporterExits(Fault):
    """An exporter that tries to end the process from its thread."""

    def begin(self) -> None:
        self.scene.sink.before = sys.exit

    def end(self) -> None:
        self.scene.sink.before = int


class ExporterSleeps(Fault):
    """Each batch takes ten seconds."""

    def begin(self) -> None:
        self.scene.sink.before = lambda: time.sleep(10)


class ExporterHangs(Fault):
    """The exporter never returns."""

    def begin(self) -> None:
        self.scene.sink.before = threading.Event().wait


class MemoryErrors(Fault):
    """Every third batch runs out of memory, in an exporter of each kind."""

    batches = 0

    def begin(self) -> None:
        self.scene.sink.before = self.fail
        from taskpilot_obs import get_recorder

        get_recorder().pipeline.add("fragile", Fragile(self.fail))

    def fail(self) -> None:
        self.batches += 1
        if self.batches % 3 == 0:
            raise MemoryError

    def end(self) -> None:
        self.scene.sink.before = int


class Fragile:
    """An exporter in memory."""

    def __init__(self, before: Callable[[], object]) -> None:
        self._before = before

    def export(self, _batch: Sequence[object], /) -> None:
        self._before()


class ScrapeStalls(Fault):
    """Scrapers that ask and never read, and some that never finish asking; another one must be served meanwhile."""

    server: MetricsServer

    def begin(self) -> None:
        self.server = start_metrics_server(0)
        self.stalled = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(20)]
        for number, connection in enumerate(self.stalled):
            connection.sendall(b"GET /metrics HTTP/1.1\r\n" + (b"\r\n" if number % 2 else b""))

    def end(self) -> None:
        from urllib.request import urlopen

        with urlopen(self.server.url, timeout=20) as answer:
            (self.scene.home / "scraped").write_bytes(answer.read())


class CollectorHangs(Fault):
    """Spans go by the OpenTelemetry SDK to a collector that accepts connections and says nothing."""

    def prepare(self, options: dict[str, Any]) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        hole = socket.create_server(("127.0.0.1", 0))

        class Collector(SpanExporter):
            def export(self, spans: Sequence[object]) -> SpanExportResult:
                with socket.create_connection(hole.getsockname()) as connection:
                    connection.sendall(b"POST /v1/traces HTTP/1.1\r\n")
                    connection.recv(1)
                return SpanExportResult.FAILURE

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(Collector(), schedule_delay_millis=50))
        options["tracer_provider"] = provider
        self.hole = hole


class ClockSteps(Fault):
    """The wall clock jumps by hours, there and back."""

    def prepare(self, options: dict[str, Any]) -> None:
        from taskpilot_obs._support import clock

        real, started = time.time_ns, time.monotonic()
        clock._REANCHOR_NS = 0
        hours = 3_600_000_000_000

        def stepping() -> int:
            return real() + int((time.monotonic() - started) * 50) % 3 * 2 * hours - 2 * hours

        time.time_ns = stepping


class ExitAtOnce(Fault):
    """The process ends with full queues: each batch takes a while, and nothing is flushed before the end."""

    def begin(self) -> None:
        self.scene.sink.before = lambda: time.sleep(0.3)

    def last(self) -> None:
        self.scene.done = 0
        self.scene.load()


class SigTerm(Fault):
    """SIGTERM under load, in an application that ends in order on it."""

    def prepare(self, options: dict[str, Any]) -> None:
        def leave(*_: object) -> None:
            self.scene.stop.set()
            sys.exit(0)

        signal.signal(signal.SIGTERM, leave)

    def begin(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)


class SigIntTwice(Fault):
    """Ctrl-C under load, and again while the exit waits for an exporter that never returns."""

    def begin(self) -> None:
        self.scene.sink.before = threading.Event().wait
        code = f"import os, time; time.sleep(1.5); os.kill({os.getpid()}, 2)"
        self.impatient = subprocess.Popen([sys.executable, "-c", code])
        self.scene.stop.set()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


class LoopClosed(Fault):
    """Event loops are closed while streams are open, and neither these nor their generators are ended."""

    def begin(self) -> None:
        for _ in range(50):
            loop = asyncio.new_event_loop()
            streams = [stream() for _ in range(10)]
            loop.run_until_complete(self.open_all(streams))
            loop.close()
            self.scene.ran.add(len(streams))

    async def open_all(self, streams: Sequence[AsyncGenerator[int]]) -> None:
        sys.set_asyncgen_hooks(finalizer=lambda _: None)
        for each in streams:
            await anext(each)


@observe_agent("streamer")
async def stream() -> AsyncGenerator[int]:
    """A stream that is not read to its end."""
    yield 1
    yield 2


FAULTS: dict[str, type[Fault]] = {
    "none": Fault,
    "audit_full": AuditFull,
    "audit_read_only": AuditReadOnly,
    "audit_removed": AuditRemoved,
    "stdout_closed": StdoutClosed,
    "exporter_raises": ExporterRaises,
    "exporter_exits": ExporterExits,
    "exporter_sleeps": ExporterSleeps,
    "exporter_hangs": ExporterHangs,
    "memory_errors": MemoryErrors,
    "scrape_stalls": ScrapeStalls,
    "collector_hangs": CollectorHangs,
    "clock_steps": ClockSteps,
    "exit_at_once": ExitAtOnce,
    "sigterm": SigTerm,
    "sigint_twice": SigIntTwice,
    "loop_closed": LoopClosed,
}

if __name__ == "__main__":
    faulthandler.dump_traceback_later(WATCHDOG_S, exit=True)
    Scene(Path(sys.argv[1]), sys.argv[2:]).play()
