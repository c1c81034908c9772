"""What bounds the calls that are written in a second, by thread: `python -m benchmarks throughput`.

Run: python benchmarks/bench_throughput.py [--quick]

Eight threads record calls of a function that does nothing, until everything is written: metrics, window, and two sealed
lines of the audit log for each call. The kernel's figures tell what each thread took of the processors. One interpreter
lock lets one thread at a time run Python, so that no more calls can be written in a second than one processor has
microseconds for; what runs beside it are system calls and waiting for the lock.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench_core import fresh, nothing  # type: ignore[import-not-found]  # beside this file
from bench_spans import collector_off  # type: ignore[import-not-found]  # beside this file
from bench_stages import row  # type: ignore[import-not-found]  # beside this file

from taskpilot_obs import get_recorder, observe_agent
from taskpilot_obs._recording.recorder import Recorder

QUICK = "--quick" in sys.argv
CALLS = 20_000 if QUICK else 200_000
PASSES = 1 if QUICK else 5
THREADS = 8
BAR = 90_000
TASKS = Path("/proc/self/task")


class Burst(NamedTuple):
    """What one burst took, in seconds."""

    written: float
    lost: int
    callers: float
    others: dict[str, float]
    """Processor time by name of thread."""
    process: float


def ran(native_id: int) -> float:
    """Seconds that a thread was on a processor, by the kernel's count of nanoseconds."""
    return int((TASKS / str(native_id) / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def others() -> Iterator[tuple[str, float]]:
    """What each living thread of this process has taken so far."""
    for thread in threading.enumerate():
        if thread.native_id is not None:
            yield thread.name, ran(thread.native_id)


def burst(folder: Path) -> Burst:
    """So many calls on eight threads, until everything is flushed."""
    recorder = fresh(folder, "burst")
    agent, spent = observe_agent("A")(nothing), [0.0] * THREADS
    agent()
    recorder.flush(30)  # its threads have started

    def share(place: int) -> None:
        for _ in range(CALLS // THREADS):
            agent()
        spent[place] = time.thread_time()

    before, began, process = dict(others()), time.perf_counter(), time.process_time()
    callers = [threading.Thread(target=share, args=(place,)) for place in range(THREADS)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert recorder.flush(120)
    written, took = time.perf_counter() - began, time.process_time() - process
    grown = {name: seconds - before.get(name, 0.0) for name, seconds in others()}
    return Burst(written, lost(recorder, folder), sum(spent), grown, took)


def lost(recorder: Recorder, folder: Path) -> int:
    """How many calls are missing in the metrics, or lines in the log."""
    recorder.drain()
    assert recorder.registry is not None
    counted = recorder.registry.get_sample_value("agent_runs_total", {"agent": "A", "status": "success"}) or 0
    recorder.shutdown()
    lines = sum(1 for path in folder.glob("burst.jsonl*") for _ in path.open())
    return int(CALLS + 1 - counted) + 2 * (CALLS + 1) - lines


def told(name: str, bursts: list[Burst]) -> None:
    """Print the fastest of some bursts."""
    best = min(bursts, key=lambda each: each.written)
    each_us = 1e6 / CALLS
    print(f"{name}: {CALLS / best.written:,.0f} calls written a second (to reach {BAR:,}), {best.lost} lost")
    row("  on the callers' threads", best.callers * each_us)
    for thread, seconds in sorted(best.others.items(), key=lambda pair: -pair[1]):
        if seconds * each_us >= 0.05:
            row(f"  {thread}", seconds * each_us)
    row("  the process", best.process * each_us, f"{best.process / best.written:.2f} processors at work")
    print(
        f"  {best.process / best.written:.0%} of the time a thread ran; at this processor time a call, "
        f"one interpreter lock allows {CALLS / best.process:,.0f} calls a second"
    )


def main() -> None:
    """Print the tables."""
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folders = (Path(name) / str(number) for number in range(2 * PASSES))
        told("as it is", [burst(_made(next(folders))) for _ in range(PASSES)])
        with collector_off():
            told("without the collector", [burst(_made(next(folders))) for _ in range(PASSES)])
    get_recorder().shutdown()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
