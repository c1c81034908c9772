"""Runs services in a simulated world until a promise breaks.

`make simulate [SEEDS=… | HOURS=…] [MINUTES=…] [FIRST=…]` writes what it did into docs/simulator.md. `make simulate
SEED=… [LOG=path]` replays one run, and writes its steps to a file.
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
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from _simulator_of_faults import Outcome, kept_seeds, simulate  # noqa: E402  the folder of the tests is not a package

PAGE: Final = ROOT / "docs" / "simulator.md"
TEMPLATE: Final = ROOT / "scripts" / "simulator_page.md"


class Total(NamedTuple):
    """What many runs did."""

    seeds: range
    simulated_s: float
    steps: int
    calls: int
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


def outcomes(given: argparse.Namespace) -> Iterator[Outcome]:
    """The runs until there were enough seeds, simulated hours or minutes; kept seeds are run before them."""
    for seed in kept_seeds():
        checked(seed)
    simulated_s, deadline = 0.0, time.monotonic() + 60 * given.minutes
    for seed in count(given.first):
        outcome = checked(seed)
        simulated_s += outcome.simulated_s
        yield outcome
        done = simulated_s >= 3_600 * given.hours if given.seeds is None else seed + 1 - given.first >= given.seeds
        if done or time.monotonic() > deadline:
            return


def total(given: argparse.Namespace) -> Total:
    """Run, and add up."""
    first: int = given.first
    began, faults = time.monotonic(), Counter[str]()
    simulated_s, steps, calls, last = 0.0, 0, 0, first
    for outcome in outcomes(given):
        simulated_s += outcome.simulated_s
        steps += outcome.steps
        calls += outcome.calls
        faults.update(outcome.faults)
        last = outcome.seed + 1
        if last % 500 == 0:
            print(f"{last - first} seeds, {simulated_s / 3_600:,.0f} hours, no violation", flush=True)
    return Total(range(first, last), simulated_s, steps, calls, faults, time.monotonic() - began)


def page(done: Total) -> str:
    """docs/simulator.md."""
    rows = [
        ("seeds", f"{len(done.seeds):,} ({done.seeds.start} to {done.seeds.stop - 1})"),
        ("violations", "0"),
        ("simulated hours", f"{done.simulated_s / 3_600:,.0f}"),
        ("calls", f"{done.calls:,}"),
        ("switches between threads", f"{done.steps:,}"),
        *((fault, f"{times:,}") for fault, times in sorted(done.faults.items())),
        ("minutes it took", f"{done.took_s / 60:,.0f}"),
    ]
    table = "\n".join(["| | |", "| --- | --: |", *(f"| {name} | {value} |" for name, value in rows)])
    when = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit()}, Python {sys.version.split()[0]}."
    kept = "\n".join(f"| {seed} | {found} |" for seed, found in kept_seeds().items())
    return TEMPLATE.read_text().format(when=when, table=table, kept=kept)


def main() -> None:
    """Replay one seed, or run many and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--hours", type=float, default=1_000.0)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--first", type=int, default=0)
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
