"""docs/growth.md and its pictures, written from the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log
from typing import Any, Final

from scripts.growth.curves import CURVES, FIGURES, Curve
from scripts.growth.drawing import picture
from scripts.growth.fit import Point, Verdict, judge, last_slope
from scripts.growth.knees import bounds
from scripts.growth.results import ROOT

PAGE: Final = ROOT / "docs" / "growth.md"
IMAGES: Final = ROOT / "docs" / "images"
CAUSES: Final = ("agents", "tenants", "workers", "replicas", "series", "rows", "retention")
HEAD: Final = """# What grows with what

Written by `make growth`. Cost per call, memory, scrape time, rule evaluation and question time were measured as
functions of what a deployment has more of: agents, tenants, workers (processes of one `PROMETHEUS_MULTIPROC_DIR`),
replicas, series, rows of the store and retention. Each curve is fitted by a power law `a · n^b`, by least squares on
logarithms; `±` is half the 95 % interval of the exponent. No curve rises faster than `n log n`, as a whole or between
its two largest sizes, and no cost of one event faster than `log n`; a test holds the results to that.

"""
ELSEWHERE: Final = {
    ("cost", "replicas"): "replicas share nothing",
    ("scrape", "replicas"): "each is scraped by itself",
    ("scrape", "rows"): "a scrape reads no store",
    ("scrape", "retention"): "a scrape reads no store",
    ("rules", "tenants"): "no label has tenants",
    ("rules", "workers"): "all workers are one target",
    ("rules", "rows"): "rules read no store",
    ("questions", "workers"): "a row names no worker",
    ("questions", "replicas"): "a row names no replica",
}
"""Why a figure does not depend on a cause; these are not measured."""
UNITS: Final = {
    ("cost", "retention"): "days",
    ("memory", "retention"): "days",
    ("rules", "retention"): "hours",
    ("questions", "retention"): "days",
}
"""What retention is counted in."""
NOTES: Final = {
    "cost": "Processor time of the process, everything written; metrics, audit log, window and statistics are on.",
    "memory": "Resident memory of a process of its own for each point, its imports included.",
    "scrape": "Processor time of the process that is asked, as OpenMetrics. With workers, it adds up the files of all.",
    "rules": "Processor time of a real Prometheus for one evaluation of every shipped rule; groups run side by side. "
    "The past of replicas and agents is five minutes long; `python -m benchmarks rules` measures an hour. "
    "Retention is in hours of a past that was scraped every minute; rules read an hour of raw samples and add longer "
    "windows up from recorded ones.",
    "questions": "Processor time, on SQLite with summaries, warm. Rows lie in 30 days; retention is in days, with 288 "
    "calls a day.",
}
FAR: Final = 1_000
"""How many times the largest size is too far to extrapolate to."""
FLEET: Final = """
## 1,000 replicas

{targets:,} targets with {processes:,} processes, no two of which began at one moment, through one Prometheus: a
quarter have lived for long, a quarter are replaced in place, a quarter are new, and a quarter are jobs that a single
scrape sees. Together they show {series:,} series. The shipped rules then count what happened within {window}:

| what | true | counted by the rules |
| --- | --- | --- |
"""
EXACT: Final = """
Scrapes lie on a grid here, so that `increase()` has nothing to extrapolate. Where scrapes lie anyhow, Prometheus
extrapolates a series that begins or ends within the window by half a scrape interval at most. `make test` runs the same
with 48 replicas.
"""


def page(results: Mapping[str, Any]) -> str:
    """The page of the docs."""
    curves = {curve: _points(results, curve) for curve in CURVES if curve.key in results["curves"]}
    judged = {curve: judge(points, each=curve.each) for curve, points in curves.items()}
    parts = [HEAD, _machine(results), *_overview(judged)]
    for figure, title in FIGURES.items():
        parts += _section(figure, title, {curve: points for curve, points in curves.items() if curve.figure == figure})
    return "".join([*parts, *_knees(curves, judged), *_fleet(results["replicas"])])


def pictures(results: Mapping[str, Any]) -> dict[str, str]:
    """The pictures, by the names of their files."""
    found = {}
    for figure, title in FIGURES.items():
        curves = [curve for curve in CURVES if curve.figure == figure and curve.key in results["curves"]]
        if curves:
            points = {curve.name.replace("_", " "): _points(results, curve) for curve in curves}
            found[f"growth-{figure}.svg"] = picture(f"{title} against n", curves[0].unit, points)
    return found


def _points(results: Mapping[str, Any], curve: Curve) -> list[Point]:
    return [(float(size), float(value)) for size, value in results["curves"][curve.key]]


def _machine(results: Mapping[str, Any]) -> str:
    """Where and when each part was measured, or all of them."""
    measured: Mapping[str, str] = results["measured"]
    runs = dict.fromkeys(measured.values())
    if len(runs) == 1:
        return f"Measured on {next(iter(runs))}.\n\n"
    told = (f"on {run} ({', '.join(part for part in measured if measured[part] == run)})" for run in runs)
    return f"Measured {'; '.join(told)}.\n\n"


def _overview(judged: Mapping[Curve, Verdict]) -> Iterator[str]:
    """The exponent of each figure by each cause."""
    yield "| | " + " | ".join(CAUSES) + " |\n| --- |" + " --- |" * len(CAUSES) + "\n"
    for figure, title in FIGURES.items():
        cells = (_cell(figure, cause, judged) for cause in CAUSES)
        yield f"| {title} | " + " | ".join(cells) + " |\n"
    yield "\nAn exponent of 0 is flat, 1 is proportional.\n"


def _cell(figure: str, cause: str, judged: Mapping[Curve, Verdict]) -> str:
    found = [verdict for curve, verdict in judged.items() if (curve.figure, curve.over) == (figure, cause)]
    if not found:
        return ELSEWHERE.get((figure, cause), "?")
    worst = max(found, key=lambda verdict: verdict.fit.exponent)
    return f"n^{_number(worst.fit.exponent)}"


def _section(figure: str, title: str, curves: Mapping[Curve, Sequence[Point]]) -> Iterator[str]:
    if not curves:
        return
    yield f"\n## {title}\n\n![{title} against n, both logarithmic](images/growth-{figure}.svg)\n\n{NOTES[figure]}\n\n"
    yield "| what | n | measured | exponent | allowed | at its end |\n| --- | --- | --- | --- | --- | --- |\n"
    yield from (_row(curve, points) for curve, points in curves.items())


def _row(curve: Curve, points: Sequence[Point]) -> str:
    verdict = judge(points, each=curve.each)
    values = " · ".join(f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}" for _, value in points)  # noqa: PLR2004  digits
    sizes = " · ".join(f"{size:,.0f}" for size, _ in points)
    over = UNITS.get((curve.figure, curve.over), curve.over)
    mark = "" if verdict.holds else " **too fast**"
    return (
        f"| {curve.of} | {sizes} {over} | {values} {curve.unit} | {_number(verdict.fit.exponent)} ± "
        f"{verdict.fit.half:.2f}{mark} | {verdict.allowed:.2f} | {_number(verdict.last)} |\n"
    )


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"


def _knees(curves: Mapping[Curve, Sequence[Point]], judged: Mapping[Curve, Verdict]) -> Iterator[str]:
    yield "\n## Knees\n\nWhere a bound sets in, because of which a curve goes on otherwise:\n\n"
    yield "| at | bound | beyond it |\n| --- | --- | --- |\n"
    yield from (f"| {knee.at} | {knee.what} | {knee.beyond} |\n" for knee in bounds())
    yield "\nWhere a curve reaches what it should not, by its measured points or, past them, by their last slope:\n"
    yield "\n| curve | reaches | at |\n| --- | --- | --- |\n"
    for curve in judged:
        if curve.limit is not None:
            what = f"{FIGURES[curve.figure].lower()}, {curve.of}, over {curve.over}"
            yield f"| {what} | {_limit(curve)} | {_reached(curve, curves[curve])} |\n"


def _limit(curve: Curve) -> str:
    assert curve.limit is not None  # noqa: S101  asked before
    return f"{curve.limit.value:,.0f} {curve.unit}: {curve.limit.meaning}"


def _reached(curve: Curve, points: Sequence[Point]) -> str:
    """Where a curve crosses its limit."""
    assert curve.limit is not None  # noqa: S101  asked before
    over = [size for size, value in points if value >= curve.limit.value]
    if over:
        return f"{min(over):,.0f} (measured)"
    size = reached_at(points, curve.limit.value)
    return f"not within a {FAR:,}-fold" if size is None else f"about {float(f'{size:.1g}'):,.0f} (extrapolated)"


def reached_at(points: Sequence[Point], limit: float) -> float | None:
    """The size at which the last two points' power law reaches a limit; None where that is far away, or never."""
    slope = last_slope(points)
    size, value = max(points)
    if slope <= 0 or log(limit / value) > slope * log(FAR):
        return None
    return float(size * (limit / value) ** (1 / slope))


def _fleet(fleet: Mapping[str, Any]) -> Iterator[str]:
    if fleet:
        yield FLEET.format_map(fleet)
        for what, (true, counted) in fleet["counts"].items():
            yield f"| {what} | {true:,.10g} | {counted:,.10g} |\n"
        yield EXACT
