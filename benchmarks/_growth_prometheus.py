"""Points of curves about Prometheus with the shipped rules: fleets of many targets, many agents, and a long past."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from _fleet import COUNTS, EVALUATED_EVERY, STEP_S, STEPS, WINDOW, Fleet, Scraped, await_, hurried_rules, scraped
from _servers import prometheus_server, require_binary

from taskpilot_obs import semconv
from taskpilot_obs.semconv import Label

EVALUATIONS = 2
EVALUATED_WITHIN_S = 300.0
EVALUATED = "prometheus_rule_evaluations_total"
PROCESSOR = "process_cpu_seconds_total"
MEMORY = "process_resident_memory_bytes"
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


def evaluated(seen: Scraped) -> float:
    """Milliseconds of the processor for one evaluation of all rules, while nothing else is asked of Prometheus."""
    rules = len(seen.rules())
    await_(lambda: _figure(seen.url, EVALUATED) >= rules, EVALUATED_WITHIN_S, "the rules were not evaluated in time")
    before, began = _figure(seen.url, EVALUATED), _figure(seen.url, PROCESSOR)

    def enough() -> bool:
        time.sleep(0.5)
        return _figure(seen.url, EVALUATED) - before >= EVALUATIONS * rules

    await_(enough, EVALUATED_WITHIN_S, "the rules were not evaluated in time")
    spent, rounds = _figure(seen.url, PROCESSOR) - began, (_figure(seen.url, EVALUATED) - before) / rules
    failed = [rule["name"] for rule in seen.rules() if rule["health"] == "err"]
    assert not failed, failed
    return spent / rounds * 1e3


def _figure(url: str, name: str) -> float:
    """The sum of one of the metrics of a Prometheus itself."""
    with urlopen(f"{url}/metrics", timeout=60) as answer:  # noqa: S310  our own loopback address
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def of_replicas(size: int) -> tuple[Points, Compared]:
    """So many targets."""
    interval_s = max(0.5, size / TARGETS_A_SECOND)
    fleet = Fleet(size, lasts_s=STEPS * interval_s)
    with (
        tempfile.TemporaryDirectory() as folder,
        scraped(fleet, Path(folder), step_within_s=STEP_WITHIN_S, interval_s=interval_s) as seen,
    ):
        counts = compared(seen)
        rules = evaluated(seen)
        points = {
            "rules/replicas": (float(size), rules),
            "rules/series": (float(fleet.series()), rules),
            "memory/replicas": (float(size), _figure(seen.url, MEMORY) / 1e6),
        }
        return points, counts


def compared(seen: Scraped) -> Compared:
    """The counts of the rules beside the truth."""
    truth, counted = seen.fleet.truth(), seen.counted()
    counts = {what: (float(truth[what]), counted[what]) for what in COUNTS}
    return Compared(seen.fleet.size, seen.fleet.processes(), seen.fleet.series(), WINDOW, counts)


def of_agents(size: int) -> Points:
    """One target with so many agents."""
    fleet = Fleet(1, agents=size)
    with tempfile.TemporaryDirectory() as folder, scraped(fleet, Path(folder), step_within_s=STEP_WITHIN_S) as seen:
        return {"rules/agents": (float(size), evaluated(seen))}


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
            return {"rules/retention": (float(hours), evaluated(Scraped(url, Fleet(0))))}


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
