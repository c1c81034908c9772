"""How long the server's answers and pages take, under load beside a writer, and what it holds in memory.

Run: python benchmarks/bench_server.py [--full] [--requests N]   (100,000 calls; with --full a million)

The server is a process of its own, as `taskpilot-obs serve` runs it. PostgreSQL is measured where Debian's package is
installed, the first page in a browser where Chromium and Playwright are.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from _postgres import Server, server_user
from sqlalchemy import select

from benchmarks.bench_store import calls
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, upgrade
from taskpilot_obs.store.tables import LLM_CALLS

SUMMARIES_MS, TRACES_MS, PAGE_MS, PAGE_BYTES = 150, 50, 1_000, 150_000
P99_MS, START_S, MEMORY_MB = 250, 1.5, 200
READERS, RATE, WRITES = 50, 100, 5_000
QUESTIONS: Final = (
    "/v1/benchmarks/summaries",
    "/v1/benchmarks/traces?limit=50",
    "/v1/stats?period=1h",
    "/v1/costs?period=7d",
    "/v1/golden-signals?window=15m",
    "/health/ready",
    "/health/golden",
)


def fill(url: str, amount: int) -> None:
    """Calls of the last 30 days, summed up but for the present hour."""
    store = StoreExporter(url)
    for batch in calls(amount):
        store.export(batch)
    store.shutdown(30.0)
    aggregate_summaries("hourly", None, store=url)
    aggregate_summaries("daily", None, store=url)


@contextmanager
def server(url: str) -> Iterator[tuple[str, int]]:
    """`taskpilot-obs serve` in a process of its own; yields its address and process ID."""
    program = "from taskpilot_obs.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "--store", url, "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  our own program
    try:
        address = process.stdout.readline().split()[-1].rstrip("/") if process.stdout else ""
        while True:
            try:
                httpx.get(f"{address}/health/live")
                break
            except httpx.TransportError:
                time.sleep(0.01)
        tell("start to first answer", (time.perf_counter() - began), START_S, "s")
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def tell(what: str, figure: float, limit: float, unit: str) -> None:
    """One line, and whether it is within its limit."""
    verdict = "" if figure <= limit else "TOO MUCH"
    print(f"  {what:<58} {figure:9.1f} {unit:<3} (at most {limit:g}) {verdict}", flush=True)


def median_ms(ask: Callable[[], object], times: int = 50) -> float:
    """The median of so many, after a first one that warms up."""
    ask()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        found.append((time.perf_counter() - began) * 1_000)
    return statistics.median(found)


def questions(address: str) -> None:
    """Single questions, one after the other."""
    with httpx.Client(base_url=address) as client:
        for path in ("/v1/benchmarks/summaries", "/v1/benchmarks/summaries?group_by=provider"):
            tell(f"{path}, median of 50", median_ms(partial(_ask, client, path, count())), SUMMARIES_MS, "ms")
        for path in ("/v1/benchmarks/traces", "/v1/benchmarks/traces?limit=50"):
            tell(f"{path}, median of 50", median_ms(partial(_ask, client, path, count())), TRACES_MS, "ms")


def _ask(client: httpx.Client, path: str, days: Iterator[int]) -> None:
    """Each time from a day further back, so that no answer is one that was kept; all calls are newer."""
    start = datetime.now(UTC).date() - timedelta(days=31 + next(days))
    _good(client.get(f"{path}{'&' if '?' in path else '?'}start_date={start}"))


def _good(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 503 if "golden" in str(answer.url) else 200), answer.text


def page(address: str) -> None:
    """The first page in a browser: until its charts are drawn, and what came over the wire."""
    program = shutil.which("chromium")
    if program is None:
        print("  Chromium is not installed: the page is not measured")
        return
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        times, weights = [], []
        for _ in range(6):
            opened = browser.new_context().new_page()
            received: list[int] = []
            opened.on("requestfinished", _noting(received))
            began = time.perf_counter()
            opened.goto(address, wait_until="load")
            times.append((time.perf_counter() - began) * 1_000)
            opened.wait_for_load_state("networkidle")
            weights.append(sum(received))
            opened.context.close()
        browser.close()
    tell("first page with charts in Chromium, median of 5", statistics.median(times[1:]), PAGE_MS, "ms")
    tell("page weight", max(weights) / 1_000, PAGE_BYTES / 1_000, "KB")


def _noting(received: list[int]) -> Callable[[Any], None]:
    return lambda asked: received.append(asked.sizes()["responseBodySize"])


def memory_mb(pid: int) -> float:
    """What the process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1_024
    return 0.0


def many(address: str, pid: int, amount: int) -> None:
    """So many requests, and the memory afterwards."""
    with httpx.Client(base_url=address) as client:
        for number in range(amount):
            _good(client.get(QUESTIONS[number % len(QUESTIONS)]))
    tell(f"memory after {amount:,} requests", memory_mb(pid), MEMORY_MB, "MB")


class Writer:
    """A process that writes calls at a steady rate, and counts what it wrote and what failed."""

    def __init__(self, url: str) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.stop = spawning.Event()
        self.began = spawning.Event()
        self.counts = spawning.Array("q", 2)
        self.process = spawning.Process(target=write, args=(url, self.began, self.stop, self.counts))


def write(url: str, began: Any, stop: Any, counts: Any) -> None:
    """Write until the stop event is set; runs in a process of its own."""
    store, batches = StoreExporter(url), calls(10_000_000)
    store.export(next(batches))
    began.set()
    start = time.perf_counter()
    while not stop.is_set():
        batch = next(batches)
        try:
            store.export(batch)
            counts[0] += len(batch)
        except Exception as error:  # noqa: BLE001  a benchmark counts every failure
            counts[1] += len(batch)
            print("  the writer failed:", error)
        stop.wait(max(0.0, counts[0] / WRITES - (time.perf_counter() - start)))


def under_load(url: str, address: str, seconds: float) -> None:
    """100 requests a second from 50 readers, beside a writer at 5,000 calls a second."""
    writer = Writer(url)
    writer.process.start()
    writer.began.wait()
    slots = [time.perf_counter() + number / RATE for number in range(int(seconds * RATE))]

    def read(number: int) -> tuple[float, int]:
        time.sleep(max(0.0, slots[number] - time.perf_counter()))
        answer = client.get(QUESTIONS[number % len(QUESTIONS)])
        return (time.perf_counter() - slots[number]) * 1_000, answer.status_code

    limits = httpx.Limits(max_connections=READERS)
    with httpx.Client(base_url=address, limits=limits, timeout=60) as client, ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(read, range(len(slots))))
    writer.stop.set()
    writer.process.join()
    written, lost = writer.counts[0], writer.counts[1]
    times = sorted(took for took, _ in found)
    failed = sum(code >= 500 and code != 503 for _, code in found)
    rate = written / seconds
    print(f"  {len(found):,} requests beside {rate:,.0f} calls/s written; {failed} failed, writer lost {lost}")
    tell("median under load", times[len(times) // 2], P99_MS, "ms")
    tell("p99 under load, from the time it was due", times[int(len(times) * 0.99)], P99_MS, "ms")


def filled(url: str, amount: int) -> None:
    """Fill a store, unless it was filled before."""
    with closing(Store(url)) as store, store.reading() as connection:
        if connection.execute(select(LLM_CALLS.c.telemetry_id).limit(1)).first() is not None:
            return
    began = time.perf_counter()
    fill(url, amount)
    print(f"  {amount:,} calls written and summed up in {time.perf_counter() - began:.0f} s", flush=True)


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """A store in a file; yields its URL."""
    url = f"sqlite:///{folder}/telemetry.db"
    with closing(Store(url, create=True)) as store:
        upgrade(store)
    yield url


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A store on a PostgreSQL server whose files are in the folder; yields its URL."""
    home = folder / "postgresql"
    running = Server(home, durable=True)
    if not home.exists():
        home.mkdir()
        if (user := server_user()) is not None:
            shutil.chown(home, user)
        running.create()
    running.start()
    try:
        with closing(Store(running.url())) as store:
            upgrade(store)
        yield running.url()
    finally:
        running.stop()


ENGINES: Final = {"sqlite": sqlite, "postgresql": postgresql}


def measured(url: str, arguments: Any) -> None:
    """All of it, on one engine."""
    with server(url) as (address, pid):
        questions(address)
        page(address)
        many(address, pid, arguments.requests)
        under_load(url, address, arguments.seconds)


def main() -> None:
    """Both engines, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="a million calls")
    parser.add_argument("--requests", type=int, default=2_000, help="how many before the memory is looked at")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load")
    parser.add_argument("--engine", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--calls", type=int, default=100_000, help="how many the store holds")
    parser.add_argument("--data", type=Path, help="folder to keep the stores in; those that are there are used again")
    parser.add_argument("--fill-only", action="store_true", help="fill the stores of --data and measure nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.data or Path(temporary)
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user
        for name in ENGINES if arguments.engine == "both" else (arguments.engine,):
            print(name, flush=True)
            with ENGINES[name](folder) as url:
                filled(url, 1_000_000 if arguments.full else arguments.calls)
                if not arguments.fill_only:
                    measured(url, arguments)


if __name__ == "__main__":
    main()
