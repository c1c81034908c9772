"""Points of curves about a store on SQLite: `python _growth_questions.py FOLDER build | ask NAME SIZE`.

Each store is a file of the folder, named as its curve and size, and is built where it is missing. A question is asked
by a process of its own, which prints milliseconds of a question, megabytes, and microseconds of writing a call.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from bench_store import _call  # type: ignore[import-not-found]  # beside this file

from taskpilot_obs.records import Invocation, Source
from taskpilot_obs.stats import get_stats
from taskpilot_obs.store import Store, aggregate_summaries, upgrade
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
BATCH, CALLS, DAYS, CALLS_A_DAY = 1_000, 30_000, 30, 288
ASKED, WRITTEN = 5, 5
Point = tuple[float, float]


class Shape(NamedTuple):
    """What a store holds."""

    calls: int = CALLS
    days: int = DAYS
    agents: int = 5
    models: int = 4
    tenants: int = 20


SHAPES: dict[str, Callable[[int], Shape]] = {
    "rows": lambda size: Shape(calls=size),
    "agents": lambda size: Shape(agents=size, models=1, tenants=1),
    "tenants": lambda size: Shape(agents=1, models=1, tenants=size),
    "series": lambda size: Shape(agents=10, models=max(1, size // 10), tenants=1),
    "retention": lambda size: Shape(calls=size * CALLS_A_DAY, days=size),
}
"""The store of a size, by the name of the curve."""


def calls(shape: Shape, first: int = 0) -> Iterator[list[Invocation]]:
    """Batches of calls, evenly over the days."""
    step = shape.days * 86_400 * 1_000_000_000 // shape.calls
    start = int((NOW - timedelta(days=shape.days)).timestamp()) * 1_000_000_000
    for begin in range(0, shape.calls, BATCH):
        amount = min(BATCH, shape.calls - begin)
        yield [_named(_call(first + n, start + n * step), n, shape) for n in range(begin, begin + amount)]


def _named(call: Invocation, number: int, shape: Shape) -> Invocation:
    model = f"model-{number // shape.agents % shape.models}"
    return call._replace(
        agent=f"agent-{number % shape.agents}",
        request_model=model,
        response_model=model,
        tenant=f"tenant-{number % shape.tenants}",
    )


def path_of(folder: Path, name: str, size: int) -> Path:
    """Where a store is."""
    return folder / f"{name}-{size}.db"


def build(folder: Path, name: str, size: int) -> None:
    """Write a store and its summaries, unless it is there."""
    path = path_of(folder, name, size)
    if path.exists():
        return
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    store = Store(f"sqlite:///{unfinished}", create=True)
    upgrade(store)
    writer = Writer(store)
    for batch in calls(SHAPES[name](size)):
        writer.write(rows_of(batch, Source("growth", "bench")))
    aggregate_summaries("daily", None, store=store)
    store.close()
    unfinished.rename(path)


def ask(folder: Path, name: str, size: int) -> dict[str, float]:
    """What a question takes from a store, and what writing into it takes."""
    path = path_of(folder, name, size)
    store = Store(f"sqlite:///{path}")
    days = SHAPES[name](size).days
    found = {"30d": _time(partial(get_stats, "30d", store=store, now=NOW))}
    whole = (NOW - timedelta(days=days), NOW)
    found["all_days"] = _time(partial(get_stats, whole, store=store))
    found["memory"] = _largest()
    store.close()
    found["written"] = write(path)
    return found


def _largest() -> float:
    """Megabytes of this process at its largest; unlike `ru_maxrss` it has nothing of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3


def _time(question: Callable[[], object]) -> float:
    """Milliseconds of the processor for a question, warm, the median."""
    question()
    took = []
    for _ in range(ASKED):
        began = time.process_time()
        question()
        took.append(time.process_time() - began)
    return sorted(took)[ASKED // 2] * 1e3


def write(path: Path) -> float:
    """Microseconds of the processor to write a call into a copy of a store, the least of some batches."""
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    store = Store(f"sqlite:///{copy}")
    writer = Writer(store)
    took = []
    for number, batch in zip(range(WRITTEN), calls(Shape(WRITTEN * BATCH, days=1), first=10**9), strict=True):
        rows = rows_of([call._replace(invocation_id=f"written-{number}-{call.invocation_id}") for call in batch])
        began = time.process_time()
        writer.write(rows)
        took.append((time.process_time() - began) / BATCH * 1e6)
    store.close()
    for each in path.parent.glob(f"{copy.name}*"):
        each.unlink()
    return min(took)


if __name__ == "__main__":
    place, action, curve, amount = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    if action == "build":
        build(place, curve, amount)
    else:
        print(json.dumps(ask(place, curve, amount)))
