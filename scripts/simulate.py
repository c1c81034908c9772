"""Runs services in a simulated world until a promise breaks.

`make simulate [SEEDS=… | HOURS=…] [MINUTES=…] [FIRST=…] [JOBS=…]` writes what it did into docs/simulator.md. `make
simulate SEED=… [LOG=path]` replays one run, and writes its steps to a file.
"""

from __future__ import annotations

import argparse
import gc
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from _simulated_watch import READING_STEPS  # noqa: E402  the folder of the tests is not a package
from _simulator_of_faults import Outcome, kept_seeds, simulate  # noqa: E402

PAGE: Final = ROOT / "docs" / "simulator.md"
TEMPLATE: Final = ROOT / "scripts" / "simulator_page.md"
CHUNK: Final = 20
"""Seeds that a process runs before it waits for the others."""


class Total(NamedTuple):
    """What many runs did."""

    seeds: range
    simulated_s: float
    steps: int
    calls: int
    looks: int
    faults: Counter[str]
    took_s: float


def commit() -> str:
    """The commit of this code, with `-dirty` where files differ from it; "unknown" outside of a repository."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    asked = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True)  # noqa: PLW1510
    return asked.stdout.strip() or "unknown"


def checked(seed: int, log: list[str] | None = None) -> Outcome:
    """One run; where it finds something, prints how to replay it."""
    try:
        return simulate(seed, log)
    except BaseException as error:
        print(f"seed {seed} at commit {commit()}: {error}\nreplay: make simulate SEED={seed}", file=sys.stderr)
        raise


def runs(first: int, jobs: int) -> Iterator[Outcome]:
    """The runs from a seed on, in so many processes."""
    if jobs == 1:
        yield from map(checked, count(first))
    with ProcessPoolExecutor(jobs, get_context("spawn"), gc.freeze) as pool:
        for start in count(first, CHUNK * jobs):
            yield from pool.map(checked, range(start, start + CHUNK * jobs))


def outcomes(given: argparse.Namespace) -> Iterator[Outcome]:
    """The runs until there were enough seeds, simulated hours or minutes; kept seeds are run before them."""
    for seed in kept_seeds():
        checked(seed)
    simulated_s, deadline = 0.0, time.monotonic() + 60 * given.minutes
    for number, outcome in enumerate(runs(given.first, given.jobs), 1):
        simulated_s += outcome.simulated_s
        yield outcome
        done = simulated_s >= 3_600 * given.hours if given.seeds is None else number >= given.seeds
        if done or time.monotonic() > deadline:
            return


def total(given: argparse.Namespace) -> Total:
    """Run, and add up."""
    first: int = given.first
    began, faults = time.monotonic(), Counter[str]()
    simulated_s, steps, calls, looks, last = 0.0, 0, 0, 0, first
    for outcome in outcomes(given):
        simulated_s += outcome.simulated_s
        steps += outcome.steps
        calls += outcome.calls
        looks += outcome.looks
        faults.update(outcome.faults)
        last = outcome.seed + 1
        if last % 500 == 0:
            print(f"{last - first} seeds, {simulated_s / 3_600:,.0f} hours, no violation", flush=True)
    return Total(range(first, last), simulated_s, steps, calls, looks, faults, time.monotonic() - began)


def page(done: Total) -> str:
    """docs/simulator.md."""
    rows = [
        ("seeds", f"{len(done.seeds):,} ({done.seeds.start} to {done.seeds.stop - 1})"),
        ("violations", "0"),
        ("simulated hours", f"{done.simulated_s / 3_600:,.0f}"),
        ("simulated hours a minute", f"{done.simulated_s / 60 / done.took_s:,.0f}"),
        ("calls", f"{done.calls:,}"),
        ("switches between threads", f"{done.steps:,}"),
        ("times that all was checked during a run", f"{done.looks:,}"),
        *((fault, f"{times:,}") for fault, times in sorted(done.faults.items())),
        ("minutes it took", f"{done.took_s / 60:,.0f}"),
    ]
    table = "\n".join(["| | |", "| --- | --: |", *(f"| {name} | {value} |" for name, value in rows)])
    when = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit()}, Python {sys.version.split()[0]}."
    kept = "\n".join(f"| {seed} | {found} |" for seed, found in kept_seeds().items())
    return TEMPLATE.read_text().format(when=when, table=table, kept=kept, every=READING_STEPS)


def main() -> None:
    """Replay one seed, or run many and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--hours", type=float, default=1_000.0)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    gc.freeze()  # what is loaded stays, and need not be visited after each run
    if given.seed is None:
        PAGE.write_text(page(total(given)))
        print(PAGE.read_text())
        return
    log: list[str] = []
    try:
        print(checked(given.seed, log))
    finally:
        if given.log is not None:
            given.log.write_text("\n".join(log) + "\n")


if __name__ == "__main__":
    main()
