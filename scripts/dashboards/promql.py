"""PromQL of the panels: selectors that carry the dashboard's filters, and shapes that build on those of the rules."""

from __future__ import annotations

from dataclasses import dataclass

from taskpilot_obs.records import BAD, COUNTED, Status
from taskpilot_obs.rules import promql
from taskpilot_obs.semconv import START_TIME, Metric

TARGET_FILTER = 'job=~"$job", instance=~"$instance"'
RULE_FILTER = 'job=~"$job"'
"""Recording rules drop `instance`: a rule speaks for all replicas."""
RANGE = "$__range"
"""The whole time range of the dashboard, for figures that stand for it."""
INTERVAL = "$__rate_interval"
"""Follows the zoom and the scrape interval, for lines."""


DAY = "24h"
_SECONDS = {RANGE: "$__range_s", DAY: "86400"}


def _one_of(statuses: frozenset[Status]) -> str:
    return "|".join(status for status in Status if status in statuses)


COUNTED_STATUSES = _one_of(COUNTED)
BAD_STATUSES = _one_of(BAD)


@dataclass(frozen=True)
class Selector:
    """Selectors of one dashboard: every one is filtered by job, instance and those variables that its family knows."""

    variables: tuple[str, ...] = ()

    def __call__(self, metric: Metric, suffix: str = "", **matchers: str) -> str:
        """The series of a family; a matcher whose value holds a `|` is a regular expression."""
        filters = [f'{name}=~"${name}"' for name in self.variables if name in metric.labels]
        own = [promql.matcher(name, *value.split("|")) for name, value in matchers.items()]
        return f"{metric.name}{suffix}{{{', '.join([TARGET_FILTER, *filters, *own])}}}"

    def rule(self, name: str, labels: tuple[str, ...] = (), **matchers: str) -> str:
        """The series of a recording rule that keeps these labels."""
        filters = [f'{label}=~"${label}"' for label in labels if label in self.variables]
        own = [promql.matcher(label, value) for label, value in matchers.items()]
        return f"{name}{{{', '.join([RULE_FILTER, *filters, *own])}}}"


def _one_line(expr: str) -> str:
    return " ".join(expr.split())


def _aggregate(function: str, inner: str, by: str) -> str:
    return f"{function} by ({by}) ({inner})" if by else f"{function}({inner})"


def total(inner: str, by: str = "") -> str:
    """The sum over all series, or per value of the labels `by` (comma-separated)."""
    return _aggregate("sum", inner, by)


def events(series: str, window: str = RANGE, by: str = "") -> str:
    """How many events a counter saw in the window, those included that a series was born with.

    A series that is born at 1 has `increase` 0, so what it was born with is added where its target was scraped before
    the window and did not have it, or where its process began within the window. What an older process counted before
    its scraping began happened earlier and does not count. The recording rules count in the same way.
    """
    started = f"{START_TIME.name}{{{TARGET_FILTER}}}"
    born = _one_line(promql.born(series, started, window, _SECONDS[window], "job, instance"))
    return total(f'increase({series}[{window}]) or label_replace({born}, "born", "yes", "", "")', by)


def events_per_step(series: str, by: str = "") -> str:
    """How many events a counter saw in each step of a line."""
    return total(f"increase({series}[{INTERVAL}])", by)


def per_minute(series: str, by: str = "") -> str:
    """Events a minute: a unit that can still be read at two runs an hour."""
    return f"60 * {total(f'rate({series}[{INTERVAL}])', by)}"


def share(part: str, whole: str, by: str = "") -> str:
    """A percentage. No evidence gives no value; a part that never happened is 0, not missing."""
    none = f"0 * {whole}" if by else "vector(0)"
    return ratio(f"100 * ({part} or {none})", whole)


def ratio(part: str, whole: str) -> str:
    """A quotient that has no value where there is nothing to divide by."""
    return _one_line(promql.ratio(part, whole))


def quantile(level: float, buckets: str, window: str = INTERVAL, by: str = "") -> str:
    """A quantile of a histogram; the comparison drops the NaN that stands for "no observations"."""
    labels = f"le, {by}" if by else "le"
    counts = events_per_step(buckets, labels) if window == INTERVAL else events(buckets, window, labels)
    return f"histogram_quantile({level:g}, {counts}) >= 0"


def whole(expr: str) -> str:
    """The nearest whole number: `increase` extrapolates, and 12.07 runs read oddly."""
    return f"round({expr})"
