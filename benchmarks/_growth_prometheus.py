"""Points of curves about Prometheus with the shipped rules: fleets of many targets, many agents, and a long past."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from _fleet import COUNTS, EVALUATED_EVERY, STEP_S, WINDOW, Fleet, Scraped, await_, hurried_rules, scraped
from _servers import prometheus_server, require_binary

from taskpilot_obs import semconv
from taskpilot_obs.semconv import Label

EVALUATIONS = 2
EVALUATED_WITHIN_S = 240.0
TARGETS_A_SECOND = 300
STEP_WITHIN_S = 300.0
HISTORY_STEP_S = 60
Points = dict[str, tuple[float, float]]
"""A point by the key of its curve."""


class Compared(NamedTuple):
    """What the rules counted of a fleet beside what is true."""

    targets: int
    processes: int
    series: int
    window: str
    counts: dict[str, tuple[float, float]]


def evaluated(groups: Callable[[], list[dict[str, Any]]]) -> float:
    """Milliseconds of one evaluation of all groups together: of each the least of the next few."""
    seen: dict[str, dict[str, float]] = {group["name"]: {} for group in groups()}
    before = {group["name"]: group["lastEvaluation"] for group in groups()}

    def enough() -> bool:
        time.sleep(0.2)
        for group in groups():
            if group["lastEvaluation"] != before[group["name"]]:
                seen[group["name"]][group["lastEvaluation"]] = group["evaluationTime"]
        return all(len(times) >= EVALUATIONS for times in seen.values())

    await_(enough, EVALUATED_WITHIN_S, "the rules were not evaluated in time")
    unhealthy = [rule["name"] for group in groups() for rule in group["rules"] if rule["health"] != "ok"]
    assert not unhealthy, unhealthy
    return sum(min(times.values()) for times in seen.values()) * 1e3


def resident(url: str) -> float:
    """Megabytes of a Prometheus."""
    with urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310  our own loopback address
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes")) / 1e6


def of_replicas(size: int) -> tuple[Points, Compared]:
    """So many targets."""
    fleet = Fleet(size)
    interval_s = max(0.5, size / TARGETS_A_SECOND)
    with (
        tempfile.TemporaryDirectory() as folder,
        scraped(fleet, Path(folder), step_within_s=STEP_WITHIN_S, interval_s=interval_s) as seen,
    ):
        rules = evaluated(seen.groups)
        (duration,) = seen.ask('quantile(0.5, scrape_duration_seconds{job="fleet"})', time.time())
        points = {
            "rules/replicas": (float(size), rules),
            "rules/series": (float(fleet.series()), rules),
            "memory/replicas": (float(size), resident(seen.url)),
            "scrape/replicas": (float(size), float(duration["value"][1]) * 1e3),
        }
        return points, compared(seen)


def compared(seen: Scraped) -> Compared:
    """The counts of the rules beside the truth."""
    truth, counted = seen.fleet.truth(), seen.counted()
    counts = {what: (float(truth[what]), counted[what]) for what in COUNTS}
    return Compared(seen.fleet.size, seen.fleet.processes(), seen.fleet.series(), WINDOW, counts)


def of_agents(size: int) -> Points:
    """One target with so many agents."""
    fleet = Fleet(1, agents=size)
    with tempfile.TemporaryDirectory() as folder, scraped(fleet, Path(folder), step_within_s=STEP_WITHIN_S) as seen:
        return {"rules/agents": (float(size), evaluated(seen.groups))}


def of_retention(hours: int) -> Points:
    """A past of so many hours in Prometheus, of which each minute was scraped."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "data.om"
        with text.open("w", encoding="utf-8") as out:
            out.writelines(_past(hours))
        command = [require_binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(text), f"{name}/data"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  our own file, no shell
        text.unlink()
        hurried_rules(folder / "rules", EVALUATED_EVERY)
        with prometheus_server(rules_dir=folder / "rules", data_dir=folder / "data") as url:
            return {"rules/retention": (float(hours), evaluated(Scraped(url, Fleet(0)).groups))}


def _past(hours: int) -> Iterator[str]:
    """One process that has run ever since, in the families that most rules read."""
    end = int(time.time()) // STEP_S * STEP_S
    times = range(end - hours * 3_600, end, HISTORY_STEP_S)
    target = 'job="past",instance="one"'
    yield f"# TYPE {semconv.START_TIME.name} gauge\n"
    yield from (f"{semconv.START_TIME.name}{{{target}}} {times[0]} {at}\n" for at in times)
    for metric, labels in (
        (semconv.WORKFLOW_RUNS, f'{Label.WORKFLOW}="w"'),
        (semconv.AGENT_RUNS, f'{Label.AGENT}="a"'),
        (semconv.LLM_REQUESTS, f'{Label.AGENT}="a",{Label.MODEL}="m",{Label.PROVIDER}="p"'),
    ):
        yield f"# TYPE {metric.name.removesuffix('_total')} counter\n"
        for status in ("success", "error"):
            series = f'{metric.name}{{{target},{labels},{Label.STATUS}="{status}"}}'
            yield from (f"{series} {number} {at}\n" for number, at in enumerate(times))
    yield "# EOF\n"
