"""Series of statistics as charts and tables of groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from taskpilot_obs._support import figures
from taskpilot_obs._support.charts import Chart, Series, largest
from taskpilot_obs.server.blocks import Drawing, drawn
from taskpilot_obs.stats import CallStats, Stats
from taskpilot_obs.stats.series import Spend

T = TypeVar("T")
_DAY: Final = timedelta(days=1)


def over_time(
    points: Sequence[Stats | Spend], title: str, series: Iterable[Series], shown: Callable[[float], str]
) -> Drawing:
    """A chart with one bar, or one pile, for each point."""
    moments = [point.start for point in points]
    labels = [label_of(point.start, point.end) for point in points]
    return drawn(Chart(title, labels, tuple(series), shown, moments))


def label_of(start: datetime, end: datetime) -> str:
    """How a stretch of time is named, in UTC."""
    return f"{start:%Y-%m-%d}" if end - start > _DAY / 2 else f"{start:%m-%d %H:%M} UTC"


def stacked(points: Sequence[Mapping[str, T]], value: Callable[[T], float]) -> tuple[Series, ...]:
    """One series for each name that occurs, the largest first and the rest as `others`."""
    names = {name for point in points for name in point}
    found = [Series(name, [value(point[name]) if name in point else 0.0 for point in points]) for name in sorted(names)]
    return largest([series for series in found if any(series.values)] or found[:1])


def cost_chart(points: Sequence[Stats], groups: Sequence[Mapping[str, CallStats]], title: str) -> Drawing:
    """Spend over time, piled up by group."""
    return over_time(points, title, stacked(groups, lambda part: float(part.cost_usd)), figures.usd)


def calls_chart(points: Sequence[Stats]) -> Drawing:
    """Calls over time: those that succeeded, failed, or proved nothing."""
    other = [point.requests - point.successes - point.failures for point in points]
    series = [
        Series("succeeded", [point.successes for point in points]),
        Series("failed", [point.failures for point in points]),
    ]
    if any(other):
        series.append(Series("cancelled or interrupted", other))
    return over_time(points, "LLM calls", series, figures.count)


def latency_chart(points: Sequence[Stats]) -> Drawing:
    """The 95th percentile of the latency of LLM calls over time."""
    series = [Series("p95", [point.latency.p95_ms for point in points])]
    return over_time(points, "Latency of LLM calls, 95th percentile", series, figures.ms)
