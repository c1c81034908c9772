"""Data to show the dashboards with: every family of the contract, over some hours that end in an incident.

The story: two replicas of a service with three workflows. A new version is deployed 55 minutes before the end; five
minutes later one provider slows down and refuses calls, so two agents fail, two workflows degrade and the spend per
successful run rises. It is written in the OpenMetrics format, for `promtool tsdb create-blocks-from openmetrics`.

Everything is linear in two curves, the traffic so far and the traffic so far during the incident, so that families
agree with each other: a run that is counted was timed, and a call that is paid for was made.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.dashboards import story
from scripts.dashboards.story import Child
from taskpilot_obs.rules.evidence import FIRST_SEEN
from taskpilot_obs.semconv import BUDGET_RESETS, INFO, METRICS, SERVER_METRICS, START_TIME, Kind, Metric

STEP_S = 30
DEPLOYED_BEFORE_END_S = 55 * 60
STORM_BEFORE_END_S = 50 * 60
RAMP_S = 300
SIGMA = 0.55
DAY_S = 86_400
KNOWN_DAYS = 40
JOB = "taskpilot"
INSTANCES = {"app-1:8000": 0.55, "app-2:8000": 0.45}
"""Each replica's share of the traffic."""
VERSIONS = ("2.3.0", "2.4.0")


class Moment(NamedTuple):
    """One scrape: minutes of calm and of stormy traffic since the process began, and how stormy it is now (0 to 1)."""

    time: int
    calm_minutes: float
    storm_minutes: float
    storm: float
    version: str
    started: int


def write(path: Path, *, end: int, hours: float, job: str = JOB, pace: float = 1) -> None:
    """Write all samples up to the Unix time `end`, of a service with this name and this part of the usual traffic."""
    own = f'job="{job}"'
    with path.open("w", encoding="utf-8") as out:
        lines = _lines(_moments(end, hours, pace), alerts=pace == 1)
        out.writelines(line.replace(f'job="{JOB}"', own) for line in lines)


def _lines(moments: list[Moment], *, alerts: bool) -> Iterator[str]:
    """Every sample; the alerts are those of the usual traffic, and too little traffic fires none of them."""
    for metric in (*METRICS, *SERVER_METRICS):
        yield from _family(metric, moments)
    for name, value in _SCRAPE.items():
        yield f"# TYPE {name} gauge\n"
        yield from _by_instance(name, moments, value)
    yield from _first_seen(moments)
    if alerts:
        yield from _alerts(moments)
    yield "# EOF\n"


def _moments(end: int, hours: float, pace: float) -> list[Moment]:
    noise = random.Random(7)  # noqa: S311 - the same data every time
    start = end - int(hours * 3600)
    deployed = end - DEPLOYED_BEFORE_END_S
    moments = []
    calm = stormy = 0.0
    for now in range(start, end + 1, STEP_S):
        if deployed <= now < deployed + STEP_S:
            calm = stormy = 0.0
        storm = min(1.0, max(0.0, (now - (end - STORM_BEFORE_END_S)) / RAMP_S))
        traffic = pace * noise.uniform(0.75, 1.25) * STEP_S / 60
        calm, stormy = calm + traffic * (1 - storm), stormy + traffic * storm
        new = now >= deployed
        moments.append(Moment(now, calm, stormy, storm, VERSIONS[new], deployed if new else start))
    return moments


def _family(metric: Metric, moments: list[Moment]) -> Iterator[str]:
    yield f"# TYPE {metric.name.removesuffix('_total')} {metric.kind}\n"
    if metric == INFO:
        yield from _info(moments)
        return
    if metric == START_TIME:
        yield from _by_instance(metric.name, moments, lambda moment: moment.started)
        return
    for instance, part in INSTANCES.items():
        for child in story.children(metric):
            labels = _labels(zip(metric.labels, child.values, strict=True), instance)
            yield from _WRITERS[metric.kind](metric, labels, child, part, moments)


def _labels(pairs: Iterable[tuple[str, str]], instance: str) -> str:
    own = [*pairs, ("job", JOB), ("instance", instance)]
    return ",".join(f'{name}="{value}"' for name, value in own)


def _counter(metric: Metric, labels: str, child: Child, part: float, moments: list[Moment]) -> Iterator[str]:
    for moment in moments:
        value = part * (child.calm * moment.calm_minutes + child.storm * moment.storm_minutes)
        if not child.is_money:
            value = math.floor(value)
        if value or child.declared:
            yield f"{metric.name}{{{labels}}} {value:.10g} {moment.time}\n"


def _gauge(metric: Metric, labels: str, child: Child, part: float, moments: list[Moment]) -> Iterator[str]:
    for moment in moments:
        if metric == BUDGET_RESETS:
            yield f"{metric.name}{{{labels}}} {moment.time - moment.time % DAY_S + DAY_S} {moment.time}\n"
            continue
        # Replicas share a budget: each states the whole of it.
        own = 1 if metric.name.startswith("llm_budget_") else part
        value = own * (child.calm + (child.storm - child.calm) * moment.storm)
        shown = f"{value:.4f}" if child.is_money else f"{value:.0f}"
        yield f"{metric.name}{{{labels}}} {shown} {moment.time}\n"


def _histogram(metric: Metric, labels: str, child: Child, part: float, moments: list[Moment]) -> Iterator[str]:
    for bound in (*metric.buckets, math.inf):
        calm, storm = _below(bound, child.median_calm), _below(bound, child.median_storm)
        edge = "+Inf" if bound == math.inf else f"{bound:g}"
        for moment in moments:
            # Of whole observations: a bucket that is rounded by itself could grow while the last one does not.
            in_calm, in_storm = _observed(child, part, moment)
            seen = math.floor(calm * in_calm + 0.5) + math.floor(storm * in_storm + 0.5)
            yield f'{metric.name}_bucket{{{labels},le="{edge}"}} {seen} {moment.time}\n'
    mean = math.exp(SIGMA**2 / 2)
    for moment in moments:
        calm, storm = child.calm * moment.calm_minutes, child.storm * moment.storm_minutes
        total = part * mean * (calm * child.median_calm + storm * child.median_storm)
        yield f"{metric.name}_sum{{{labels}}} {total:.6f} {moment.time}\n"
    for moment in moments:
        yield f"{metric.name}_count{{{labels}}} {sum(_observed(child, part, moment))} {moment.time}\n"


def _observed(child: Child, part: float, moment: Moment) -> tuple[int, int]:
    """How many observations a replica has made, in calm and in the storm."""
    return math.floor(part * child.calm * moment.calm_minutes), math.floor(part * child.storm * moment.storm_minutes)


_Writer = Callable[[Metric, str, Child, float, list[Moment]], Iterator[str]]
_WRITERS: dict[Kind, _Writer] = {Kind.COUNTER: _counter, Kind.GAUGE: _gauge, Kind.HISTOGRAM: _histogram}


def _below(bound: float, median: float) -> float:
    """Share of a log-normal distribution below a bound."""
    if bound == math.inf:
        return 1.0
    return 0.5 * (1 + math.erf(math.log(bound / median) / (SIGMA * math.sqrt(2))))


def _info(moments: list[Moment]) -> Iterator[str]:
    for instance in INSTANCES:
        for version in VERSIONS:
            values = zip(INFO.labels, ("0.1.0", "assistant", version), strict=True)
            labels = _labels(values, instance)
            yield from (f"{INFO.name}{{{labels}}} 1 {moment.time}\n" for moment in moments if moment.version == version)


_SCRAPE: dict[str, Callable[[Moment], float]] = {
    "up": lambda _: 1,
    "scrape_duration_seconds": lambda moment: 0.006 + 0.002 * moment.storm,
    "scrape_samples_scraped": lambda _: 1_240,
    "process_start_time_seconds": lambda moment: moment.started,
}
"""What Prometheus adds to each scrape by itself, and what the client's process collector states."""


def _by_instance(name: str, moments: list[Moment], value: Callable[[Moment], float]) -> Iterator[str]:
    for instance in INSTANCES:
        labels = _labels((), instance)
        yield from (f"{name}{{{labels}}} {value(moment):.10g} {moment.time}\n" for moment in moments)


def _first_seen(moments: list[Moment]) -> Iterator[str]:
    """The rule that reads its own last result: a service that the rules have known for longer than any window."""
    known = moments[0].time - KNOWN_DAYS * DAY_S
    yield f"# TYPE {FIRST_SEEN} gauge\n"
    yield from (f'{FIRST_SEEN}{{job="{JOB}"}} {known} {moment.time}\n' for moment in moments)


def _alerts(moments: list[Moment]) -> Iterator[str]:
    yield "# TYPE ALERTS gauge\n"
    for alert in story.ALERTS:
        labels = ",".join(f'{name}="{value}"' for name, value in {**alert, "alertstate": "firing", "job": JOB}.items())
        yield from (f"ALERTS{{{labels}}} 1 {moment.time}\n" for moment in moments if moment.storm == 1)
