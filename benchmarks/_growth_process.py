"""One point of a curve about one process, in a process of its own: `python _growth_process.py FIGURE NAME SIZE FOLDER`.

Prints the size, which for series is their number, and the value as JSON. For curves about workers the empty folder is
that of PROMETHEUS_MULTIPROC_DIR.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_scrape import OPEN_METRICS, lines, llm_call, run  # type: ignore[import-not-found]  # beside this file
from prometheus_client import CollectorRegistry, Counter

from taskpilot_obs import Usage, configure, get_recorder, observe_agent, record_llm_call, request_context
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.exporters.prometheus.worker_files import compact
from taskpilot_obs.records import Operation, Record

Point = tuple[float, float]
FOLDER = Path(sys.argv[4])
CALLS, ROUNDS = 10_000, 3
RUNS = 20_000
BATCH = 64
FLUSHED_WITHIN_S = 300.0
AGENTS, MODELS, TOOLS = 200, 10, 190
OWN = 100
WORKER_AGENTS = 5
SCRAPE_S = 1.0
USAGE = Usage(1_000, 200)


def call() -> None:
    """The work of an agent: one priced LLM call."""
    record_llm_call(model="gpt-4o-mini", provider="openai", usage=USAGE, duration_seconds=0.5)


def started(**more: object) -> CollectorRegistry:
    """Configure with metrics, window, statistics and audit log, from nothing."""
    registry = CollectorRegistry()
    configure(registry=registry, audit_log=FOLDER / "audit.jsonl", tracing=False, **more)  # type: ignore[arg-type]  # options
    return registry


def turns(works: Sequence[Callable[[], object]], calls: int) -> None:
    """Do the works one after the other, again and again, until everything is written."""
    for number in range(calls):
        works[number % len(works)]()
    assert get_recorder().flush(FLUSHED_WITHIN_S)


def of_agents(size: int) -> list[Callable[[], object]]:
    """So many decorated agents."""
    return [observe_agent(f"agent-{number}")(call) for number in range(size)]


def of_tenants(size: int) -> list[Callable[[], object]]:
    """One agent that works for so many tenants."""
    agent = observe_agent("agent")(call)

    def work(tenant: str) -> Callable[[], None]:
        def done() -> None:
            with request_context(tenant_id=tenant):
                agent()

        return done

    return [work(f"tenant-{number}") for number in range(size)]


def cost(works: Sequence[Callable[[], object]]) -> float:
    """Microseconds of the processor for one call, everything written."""
    turns(works, max(CALLS, len(works)))
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        turns(works, CALLS)
        took.append((time.process_time() - began) / CALLS * 1e6)
    return min(took)


def resident() -> float:
    """Megabytes of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def scrape(registry: CollectorRegistry) -> float:
    """Milliseconds of the processor for one scrape, the median of as many as a second takes, three at least."""
    took: list[float] = []
    while len(took) < 3 or sum(took) < SCRAPE_S:
        began = time.process_time()
        render(registry, OPEN_METRICS)
        took.append(time.process_time() - began)
    return sorted(took)[len(took) // 2] * 1e3


def pairs(amount: int) -> Iterator[tuple[Record, ...]]:
    """Records of so many agents, with one model for each 20 of them."""
    for number in range(amount):
        agent, model = number % AGENTS, number // AGENTS
        yield (
            *run(Operation.AGENT, f"agent-{agent}", is_task=agent < AGENTS // 2),
            *run(Operation.TOOL, f"tool-{number % TOOLS}", agent=f"agent-{agent}"),
            *llm_call(f"agent-{agent}", f"model-{model % MODELS}"),
        )


def filled(amount: int) -> tuple[CollectorRegistry, PrometheusExporter]:
    """A registry with so many pairs of agent and model."""
    registry = CollectorRegistry()
    exporter = PrometheusExporter(registry, service="growth", version="1")
    for records in pairs(amount):
        exporter.export(records)
    return registry, exporter


def own(registry: CollectorRegistry, amount: int) -> None:
    """Series that the application adds, because ours are bounded."""
    things = Counter("things", "Whatever the application counts.", ["thing"], registry=registry)
    for number in range(amount):
        things.labels(f"thing-{number}").inc()


def booking(exporter: PrometheusExporter) -> float:
    """Microseconds to book a run with a tool and an LLM call, the best of many batches."""
    batch = [record for _ in range(BATCH) for records in pairs(1) for record in records]
    return min(_cpu(lambda: exporter.export(batch)) for _ in range(200)) * 1e6 / BATCH


def _cpu(action: Callable[[], object]) -> float:
    began = time.thread_time()
    action()
    return time.thread_time() - began


@contextmanager
def siblings(size: int) -> Iterator[tuple[CollectorRegistry, PrometheusExporter]]:
    """A directory with the files of so many workers, of which this process is one."""
    registry, exporter = filled(WORKER_AGENTS)
    folder = FOLDER
    own = list(folder.glob(f"*_{os.getpid()}.db"))
    for number in range(1, size):
        for path in own:
            shutil.copy(path, folder / path.name.replace(f"_{os.getpid()}.", f"_{_stranger(number)}."))
    (folder / "taskpilot_obs.namespace-1").touch()  # workers of another container: none is taken for dead
    yield registry, exporter


def _stranger(number: int) -> int:
    """The ID of a process that cannot live here."""
    return 10_000_000 + number


def ended(size: int) -> float:
    """Milliseconds of the processor to merge the files of one worker out of so many, on average."""
    with siblings(size + 1):
        began = time.process_time()
        gone = range(1, min(size, 50) + 1)
        for number in gone:
            compact(FOLDER, _stranger(number))
        return (time.process_time() - began) / len(gone) * 1e3


def scraped_memory(registry: CollectorRegistry) -> float:
    """Megabytes of this process at its largest, after a scrape; unlike `ru_maxrss` it has nothing of its parent."""
    render(registry, OPEN_METRICS)
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3


def after_runs(works: Sequence[Callable[[], object]]) -> float:
    """Megabytes after some runs of each."""
    turns(works, RUNS)
    return resident()


def after_calls(size: int) -> float:
    """Megabytes after so many calls, each of another request, tenant, user and session."""
    started()
    agent = observe_agent("agent")(call)
    for number in range(size):
        with request_context(f"request-{number}", tenant_id=f"tenant-{number}", user_id=f"user-{number}"):
            agent()
    assert get_recorder().flush(FLUSHED_WITHIN_S)
    return resident()


def of_process(figure: str, name: str, size: int) -> float:
    """A point over agents or tenants."""
    registry = started()
    works = (of_agents if name == "agents" else of_tenants)(size)
    if figure == "cost":
        return cost(works)
    if figure == "memory":
        return after_runs(works)
    turns(works, max(size, 100))
    return scrape(registry)


def of_registry(figure: str, registry: CollectorRegistry, exporter: PrometheusExporter) -> float:
    """A point over series or workers."""
    if figure == "cost":
        return booking(exporter)
    return scrape(registry) if figure == "scrape" else scraped_memory(registry)


def measure(figure: str, name: str, size: int) -> Point:
    """The point of a curve."""
    if name == "series":
        registry, exporter = filled(size)
        if figure == "cost":
            own(registry, size * OWN)
        return lines(render(registry)[0]), of_registry(figure, registry, exporter)
    if name == "workers":
        with siblings(size) as (registry, exporter):
            return size, of_registry(figure, registry, exporter)
    if name == "ended":
        return size, ended(size)
    return size, after_calls(size) if name == "calls" else of_process(figure, name, size)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    get_recorder().shutdown()
