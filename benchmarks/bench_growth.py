"""What grows with what: cost, memory, scrapes, rules and questions over at least three decades of their causes.

Run: python benchmarks/bench_growth.py [--only cost|memory|scrape|rules|questions|replicas] [--keep FOLDER] [--write]

Each point of a curve about a process or a question is measured in a process of its own; those about rules and replicas
take one real Prometheus each. A curve is fitted by a power law, and one that rises faster than n log n fails the run.
`--keep` keeps the stores of the questions, or uses those that are there. `--write` keeps the results in
benchmarks/growth.json, and writes docs/growth.md and its pictures, as `python -m scripts.growth` does. With `--only`,
those of the other parts stay as they are. Takes eight minutes of a quiet machine, three more where stores are built.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from _growth_questions import SHAPES  # type: ignore[import-not-found]  # beside this file

from scripts.growth.__main__ import main as write_page
from scripts.growth.curves import CURVES, Curve
from scripts.growth.fit import Point, judge
from scripts.growth.results import RESULTS, load
from taskpilot_obs.exporters.prometheus.worker_files import VARIABLE

HERE = Path(__file__).parent
PARTS = ("cost", "memory", "scrape", "rules", "questions", "replicas")
SHARED = frozenset({"workers", "ended"})
"""Curves of processes that share a directory."""
Measured = Iterator[tuple[str, Point]]
"""Points, each after the key of its curve."""
COMPARED: dict[str, Any] = {}
"""What was compared of the largest fleet."""


def in_process(script: str, *arguments: object, **environment: str) -> Any:
    """What a script beside this one prints as JSON, with these environment variables."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    variables = os.environ | environment
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)  # noqa: S603  our own
    return json.loads(ran.stdout.splitlines()[-1]) if ran.stdout else None


def processes(figure: str) -> Measured:
    """Points about one process."""
    elsewhere = {"rows", "retention", "replicas"}
    for curve in CURVES:
        if curve.figure == figure and curve.name not in elsewhere:
            for size in curve.sizes:
                yield curve.key, process(figure, curve.name, size)


def process(figure: str, name: str, size: int) -> Point:
    """One point, of a process with an empty folder."""
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        shared = {VARIABLE: folder} if name in SHARED else {}
        found, value = in_process("_growth_process.py", figure, name, size, folder, **shared)
    return found, value


def questions(folder: Path) -> Measured:
    """Points about stores: the time of questions, their memory, and what writing costs."""
    for curve in CURVES:
        if curve.figure == "questions" and curve.name in SHAPES:
            for size in curve.sizes:
                in_process("_growth_questions.py", folder, "build", curve.name, size)
                found = in_process("_growth_questions.py", folder, "ask", curve.name, size)
                yield curve.key, (size, found["30d"])
                if curve.name == "retention":
                    yield "questions/all_days", (size, found["all_days"])
                if curve.name in ("rows", "retention"):
                    yield f"memory/{curve.name}", (size, found["memory"])
                    yield f"cost/{curve.name}", (size, found["written"])


def replicas() -> Measured:
    """Points about fleets; what the rules counted of the largest is compared."""
    from _growth_prometheus import of_replicas  # type: ignore[import-not-found]  # beside this file, starts servers

    for size in _sizes("rules/replicas"):
        points, compared = of_replicas(size)
        COMPARED.update(compared._asdict())
        yield from points.items()


def rules() -> Measured:
    """Points about the rules, besides those of fleets."""
    from _growth_prometheus import of_agents, of_retention

    for size in _sizes("rules/agents"):
        yield from of_agents(size).items()
    for size in _sizes("rules/retention"):
        yield from of_retention(size).items()


def _sizes(key: str) -> tuple[int, ...]:
    return next(curve.sizes for curve in CURVES if curve.key == key)


def measure(part: str, folder: Path) -> dict[str, list[Point]]:
    """All points of a part."""
    sources: dict[str, Callable[[], Measured]] = {
        "rules": rules,
        "questions": lambda: questions(folder),
        "replicas": replicas,
    }
    found: dict[str, list[Point]] = {}
    for key, (size, value) in sources.get(part, lambda: processes(part))():
        print(f"  {key:<24} {size:>12,.0f} {value:>14,.3f}", flush=True)
        found.setdefault(key, []).append((size, value))
    return found


def report(curves: dict[str, list[Point]]) -> int:
    """Print the fit of each curve; returns how many rise too fast."""
    worst = 0
    for curve in CURVES:
        if curve.key in curves:
            worst += not _told(curve, curves[curve.key])
    return worst


def _told(curve: Curve, points: list[Point]) -> bool:
    found = judge(points, each=curve.each)
    verdict = "" if found.holds else "   RISES TOO FAST"
    print(
        f"{curve.key:<24} n^{found.fit.exponent:.2f} ± {found.fit.half:.2f}   (allowed {found.allowed:.2f}), "
        f"at its end n^{found.last:.2f}   (allowed {found.last_allowed:.2f}){verdict}",
        flush=True,
    )
    return found.holds


def write(parts: Iterable[str], curves: dict[str, list[Point]]) -> None:
    """Keep the results of some parts, with those of the others, and write the page, whether the curves hold or not."""
    kept = load()
    machine = f"{os.cpu_count()} cores, {platform.python_implementation()} {platform.python_version()}"
    kept["measured"] |= dict.fromkeys(parts, f"{machine}, {datetime.now(UTC):%Y-%m-%d}")
    every = kept["curves"] | curves
    kept["curves"] = {curve.key: every[curve.key] for curve in CURVES if curve.key in every}
    kept["replicas"] |= COMPARED
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    write_page()


def main() -> int:
    """Measure, and judge; 1 where a curve rises too fast, or the rules did not count what is true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    curves: dict[str, list[Point]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for part in given.only or PARTS:
            print(f"{part}, load {os.getloadavg()[0]:.1f}", flush=True)
            curves |= measure(part, folder)
    if given.write:
        write(given.only or PARTS, curves)
    for what, (truth, counted) in COMPARED.get("counts", {}).items():
        print(f"{what:<24} {truth:>14,.4f} true, {counted:,.4f} counted by the rules")
    wrong = any(abs(truth - counted) > 1e-9 * truth for truth, counted in COMPARED.get("counts", {}).values())
    return int(report(curves) > 0 or wrong)


if __name__ == "__main__":
    sys.exit(main())
