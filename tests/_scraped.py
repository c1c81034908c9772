"""What a real Prometheus scraped of one target, scrape by scrape, as series for promtool at another pace."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from _dashboards import ask
from _simulator import STALE, Recorder, notation

RANGE = "30m"
START = "taskpilot_obs_start_time_seconds"


class Scrapes(NamedTuple):
    """The scrapes of a target, in order."""

    times: tuple[float, ...]
    up: tuple[bool, ...]
    samples: Mapping[str, Mapping[float, float]]
    """Value by time, by series (its name with its labels)."""


def scrapes_of(prometheus: str, job: str, instance: str) -> Scrapes:
    """Everything that was scraped of a target within `RANGE`."""
    target = f'job="{job}",instance="{instance}"'
    answer = ask(prometheus, "query", query=f"{{{target}}}[{RANGE}]", time=f"{time.time()}")["result"]
    series = {_name(each["metric"]): {float(at): float(value) for at, value in each["values"]} for each in answer}
    up = next(samples for name, samples in series.items() if name.startswith("up{"))
    times = tuple(sorted(up))
    return Scrapes(times, tuple(up[at] == 1 for at in times), series)


def _name(labels: Mapping[str, str]) -> str:
    own = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items() if name != "__name__")
    return f"{labels['__name__']}{{{own}}}"


class Paced(NamedTuple):
    """How scrapes are replayed."""

    step_s: int
    """Time between two scrapes."""
    gap: int
    """So many scrapes are missing where Prometheus was away."""
    away_s: float
    """Real scrapes further apart than this show that Prometheus was away."""


def replayed(scrapes: Scrapes, pace: Paced, later: Mapping[int, Mapping[str, float]]) -> tuple[dict[str, str], int]:
    """The series in promtool's notation, and how many steps the recorded part takes.

    Args:
        scrapes: what was recorded.
        pace: how it is replayed.
        later: what is added to each series at which step after the recorded part; between them it stays.
    """
    recorder, step, before = Recorder(), -1, scrapes.times[0]
    for at, up in zip(scrapes.times, scrapes.up, strict=True):
        step += 1 + (pace.gap if at - before > pace.away_s else 0)
        _scrape(recorder, scrapes, (at, up), step)
        before = at
    recorded = step + 1
    _go_on(recorder, recorded, later)
    return {name: notation(values) for name, values in recorder.values.items()}, recorded


def _scrape(recorder: Recorder, scrapes: Scrapes, scrape: tuple[float, bool], step: int) -> None:
    at, up = scrape
    for name, samples in scrapes.samples.items():
        if at in samples:
            value = samples[at] - scrapes.times[0] if name.startswith(START) else samples[at]
            recorder.put(name, step, f"{value:.12g}")
        elif not up and name in recorder.values:
            recorder.put(name, step, STALE)


def _go_on(recorder: Recorder, step: int, later: Mapping[int, Mapping[str, float]]) -> None:
    last = max(later)
    for name, values in recorder.values.items():
        value = next(float(text) for text, _ in reversed(values) if text not in {STALE, "_"})
        for index in range(last + 1):
            value += later.get(index, {}).get(name, 0.0)
            recorder.put(name, step + index, f"{value:.12g}")


def grown(scrapes: Scrapes, since: int) -> dict[str, float]:
    """By how much each counter grew from one scrape (by its number) to the last."""
    return {
        name: samples[scrapes.times[-1]] - samples.get(scrapes.times[since], 0.0)
        for name, samples in scrapes.samples.items()
        if scrapes.times[-1] in samples and _counts(name)
    }


def _counts(name: str) -> bool:
    return name.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))


def figures(scrapes: Scrapes, prefix: str) -> Sequence[Any]:
    """The sum of all series of a family, scrape by scrape; None where the scrape failed."""
    chosen = [samples for name, samples in scrapes.samples.items() if name.startswith(prefix)]
    return [
        sum(samples.get(at, 0.0) for samples in chosen) if up else None
        for at, up in zip(scrapes.times, scrapes.up, strict=True)
    ]
