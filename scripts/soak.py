"""A million runs with an exporter that is blocked half of the time, and what callers wait: `make soak`.

Writes what it measured into docs/soak.md. Each part runs in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import quantiles

from taskpilot_obs import configure, observe_agent, request_context
from taskpilot_obs.semconv import AGENT_RUNS, RECORDS, RECORDS_DROPPED

PAGE = Path(__file__).parent.parent / "docs" / "soak.md"
THREADS, TENANTS = 4, 50_000
BLOCKED_S = 0.5
CAPACITY = 65_536
MB = 1024 * 1024
RUNS_AT_ONCE, PAUSE_S = 100, 0.004
"""An application does other things as well; at most 100,000 runs a second are asked for."""
PACE_S = 0.001
"""Between two paced calls: a thousand a second, far from saturation."""

Measured = dict[str, float]


class Sink:
    """An exporter that lets nothing through for half of the time."""

    def __init__(self) -> None:
        self.received = 0
        self.open = threading.Event()
        self.ended = False
        threading.Thread(target=self._alternate, daemon=True).start()

    def _alternate(self) -> None:
        while not self.ended:
            self.open.clear()
            time.sleep(BLOCKED_S)
            self.open.set()
            time.sleep(BLOCKED_S)

    def end(self) -> None:
        """Let everything through from now on."""
        self.ended = True
        time.sleep(2 * BLOCKED_S)
        self.open.set()

    def export(self, batch: Sequence[object], /) -> None:
        """Count what comes through."""
        self.open.wait()
        self.received += len(batch)


@observe_agent("planner")
def agent(_text: str) -> str:
    """The function that is observed."""
    return "done"


def bare(_text: str) -> str:
    """The function without observation, to compare with."""
    return "done"


def resident_mb() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def soak(runs: int, home: Path, capacity: int) -> Measured:
    """Memory, series and queues over `runs` runs, each with a request and a user of its own."""
    sink = Sink()
    recorder = configure(
        audit_log=home / "audit.jsonl",
        audit_max_bytes=20_000_000,
        audit_keep=2,
        exporters=[sink],
        queue_capacity=capacity,
        exit_timeout_s=60,
    )
    samples: list[tuple[float, int, int, int]] = []
    blocks = max(20, runs // 50_000)
    started = time.monotonic()
    for block in range(blocks):
        first, last = block * runs // blocks, (block + 1) * runs // blocks
        in_threads(partial(call_many, first, last))
        pipeline = recorder.pipeline
        waiting = max(exporter.backlog for exporter in pipeline.batched)
        samples.append((resident_mb(), series(recorder), pipeline.backlog, waiting))
    seconds = time.monotonic() - started
    sink.end()
    recorder.shutdown()
    warm = len(samples) // 4
    return {
        "runs": runs,
        "seconds": seconds,
        "RSS after warm-up, MB": max(sample[0] for sample in samples[:warm]),
        "RSS growth, MB": max(
            0.0, max(sample[0] for sample in samples[warm:]) - max(sample[0] for sample in samples[:warm])
        ),
        "series at warm-up": samples[warm][1],
        "series at the end": samples[-1][1],
        "longest queue": max(max(sample[2:]) for sample in samples),
        **accounts(recorder, runs, sink),
    }


def call_many(first: int, last: int, thread: int) -> None:
    """One thread's share of these runs."""
    for number in range(first + thread, last, THREADS):
        with request_context(f"req-{number}", tenant_id=f"t-{number % TENANTS}", user_id=f"u-{number}"):
            agent("text")
        if (number - first - thread) % (RUNS_AT_ONCE * THREADS) == 0:
            time.sleep(PAUSE_S)


def in_threads(work: Callable[[int], object]) -> None:
    """Run `work(0) … work(THREADS - 1)` at the same time."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def series(recorder: object) -> int:
    """How many series a scrape shows."""
    from taskpilot_obs.exporters.prometheus.reading import samples

    return sum(1 for _ in samples(getattr(recorder, "registry", None)))


def accounts(recorder: object, runs: int, sink: Sink) -> Measured:
    """What was accepted, exported and dropped, and what of it is not accounted for."""
    from taskpilot_obs.exporters.prometheus.reading import samples

    exported: Measured = {}
    dropped: Measured = {}
    counted = 0.0
    for sample in samples(getattr(recorder, "registry", None)):
        if sample.name == AGENT_RUNS.name:
            counted += sample.value
        for name, into in ((RECORDS.name, exported), (RECORDS_DROPPED.name, dropped)):
            if sample.name == name:
                exporter = sample.labels["exporter"]
                into[exporter] = into.get(exporter, 0) + sample.value
    missing = sum(abs(2 * runs - exported[name] - dropped.get(name, 0)) for name in exported)
    return {
        "runs in the metrics": counted,
        "records for the blocked exporter": exported["exporter_1"],
        "dropped and counted for it": dropped.get("exporter_1", 0),
        "records dropped for the audit log": dropped.get("audit_log", 0),
        "records unaccounted for, all exporters": missing + abs(exported["exporter_1"] - sink.received),
    }


def percentile_99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return quantiles(values, n=100)[98]


def timed(function: Callable[[str], str], calls: int, pace_s: float) -> list[float]:
    """Milliseconds that each call takes, from `THREADS` threads."""
    took: list[float] = []

    def call(_number: int) -> None:
        mine = []
        for _ in range(calls // THREADS):
            begun = time.perf_counter_ns()
            function("text")
            mine.append((time.perf_counter_ns() - begun) / 1e6)
            if pace_s:
                time.sleep(pace_s * THREADS)
        took.extend(mine)

    in_threads(call)
    return took


async def lag(function: Callable[[str], str], seconds: float, *, paced: bool) -> list[float]:
    """Milliseconds that an event loop wakes too late, while its other task calls the function."""
    late: list[float] = []
    until = time.perf_counter() + seconds

    async def call() -> None:
        while time.perf_counter() < until:
            function("text")
            await asyncio.sleep(PACE_S if paced else 0)

    async def watch() -> None:
        while time.perf_counter() < until:
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - begun - 0.001) * 1e3)

    await asyncio.gather(call(), watch())
    return late


def waits(calls: int, home: Path, capacity: int) -> Measured:
    """What callers and event loops wait, below and at saturation, beside the bare function."""
    recorder = configure(
        audit_log=home / "audit.jsonl", audit_max_bytes=20_000_000, audit_keep=2, queue_capacity=capacity
    )
    found: Measured = {}
    seconds = max(1.0, calls * PACE_S)
    for name, function in (("bare", bare), ("observed", agent)):
        found[f"call, p99, 1,000 calls/s, {name}, ms"] = percentile_99(timed(function, calls, PACE_S))
        found[f"call, p99, at saturation, {name}, ms"] = percentile_99(timed(function, calls * 10, 0))
        recorder.flush(30)
        found[f"loop lag, p99, 1,000 calls/s, {name}, ms"] = percentile_99(
            asyncio.run(lag(function, seconds, paced=True))
        )
        found[f"loop lag, p99, at saturation, {name}, ms"] = percentile_99(
            asyncio.run(lag(function, seconds, paced=False))
        )
        recorder.flush(30)
    recorder.shutdown()
    return found


PARTS: dict[str, Callable[[int, Path, int], Measured]] = {"soak": soak, "waits": waits}


def measure(part: str, amount: int) -> Measured:
    """One part, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, "--amount", str(amount)], check=True, capture_output=True, text=True
    )
    found: Measured = json.loads(done.stdout)
    return found


def page(soaked: Measured, waited: Measured) -> str:
    """docs/soak.md."""
    rows = [f"| {name} | {value:,.0f} |" for name, value in soaked.items()]
    waits_rows = [
        f"| {what} | {waited[f'{what}, bare, ms']:.3f} | {waited[f'{what}, observed, ms']:.3f} |"
        for what in dict.fromkeys(name.rsplit(", ", 2)[0] for name in waited)
    ]
    return "\n".join(
        [
            "# What a million runs leave behind",
            "",
            "A soak test runs for long, to find what grows. `make soak` writes this page.",
            "Memory and series do not grow with runs, tenants or requests, every record is exported or counted,",
            "and callers wait for microseconds even at saturation.",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores.",
            "",
            f"## {soaked['runs']:,.0f} runs",
            "",
            f"{THREADS} threads with short pauses; {TENANTS:,} tenants, a request and a user of its own for each run;",
            "metrics, window, an audit log that rotates, and an exporter that is blocked half of the time.",
            "Warm-up is the first quarter: a full queue takes memory that is used again later.",
            "",
            "| | |",
            "| --- | --: |",
            *rows,
            "",
            "## How long callers wait",
            "",
            f"Milliseconds. {THREADS} threads; a loop's lag is how late a task wakes beside one that calls.",
            "",
            "| | bare | observed |",
            "| --- | --: | --: |",
            *waits_rows,
            "",
        ]
    )


def main() -> None:
    """Run the parts and write the page, or run one part and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--amount", type=int, default=1_000)
    parser.add_argument("--capacity", type=int, default=CAPACITY)
    given = parser.parse_args()
    if given.part:
        with tempfile.TemporaryDirectory() as home:
            print(json.dumps(PARTS[given.part](given.amount, Path(home), given.capacity)))
        return
    text = page(measure("soak", given.runs), measure("waits", given.runs // 100))
    PAGE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
