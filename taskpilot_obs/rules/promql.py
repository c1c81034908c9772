"""The few shapes of PromQL that the rules are made of.

Counters are turned into counts of events per window ("increases"). Three things are done here and nowhere else:

* `increase()` of a series that is born at 1 is 0, so its first event would not count. A series counts as born when a
  target that was scraped before the window did not have it then, or when its process began within the window. Both are
  read from `taskpilot_obs_start_time_seconds`, which every exposition of the library has: a series that returns after
  a failed scrape, or a process that Prometheus adopts while it runs, brings no events.
* Windows above an hour are added up from recorded results of shorter ones (`increase6h` = `increase2h` of now, of 2 h
  ago and of 4 h ago). No rule reads days of raw samples, and a missing slice counts as no events.
* Ratios divide sums, and have no value where nothing happened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from taskpilot_obs._support.durations import UNITS, parse_duration
from taskpilot_obs.rules.model import Recording
from taskpilot_obs.semconv import START_TIME

INSTANCE: Final = "instance"
"""The label that Prometheus gives to each process; rules drop it."""
DIRECT_S: Final = 3600
"""Longest window that is read from raw samples, in seconds."""
KNOWN: Final = "2h"
"""How far before a window a series or a target is looked for: longer than any gap that is to go unnoticed."""
FOUND_S: Final = 120
"""How soon after its beginning Prometheus scrapes a process for the first time."""
MAX_SLICES: Final = 12
"""Most slices that one longer window is added up from."""

_ONE_UNIT: Final = re.compile(r"[1-9][0-9]*[smhdw]")
"""What names a window: it becomes part of the name of a recording rule."""


def seconds(duration: str) -> int:
    """Length of a window of one unit, such as `30m`, in seconds.

    Raises:
        ValueError: it is written otherwise.
    """
    if _ONE_UNIT.fullmatch(duration) is None:
        raise ValueError(f"{duration!r} is not a window: write a whole number and one of s, m, h, d, w, such as 30m")
    return int(parse_duration(duration).total_seconds())


def slices(window: str, windows: Sequence[str]) -> tuple[str, int]:
    """The longest shorter window of `windows` that fits into `window` a whole number of times, and how often.

    Raises:
        ValueError: none fits at most `MAX_SLICES` times.
    """
    shorter = sorted((other for other in windows if seconds(other) < seconds(window)), key=seconds, reverse=True)
    for other in shorter:
        times, rest = divmod(seconds(window), seconds(other))
        if not rest and times <= MAX_SLICES:
            return other, times
    raise ValueError(
        f"the window {window} is longer than 1h and no whole multiple (2 to {MAX_SLICES}) of another window in use"
        f" ({', '.join(sorted(windows, key=seconds))}): add one that divides it"
    )


def number(value: float) -> str:
    """A figure as PromQL reads it, without the noise of binary fractions."""
    return format(value, ".12g")


class Dialect(StrEnum):
    """Whose PromQL the rules are written in."""

    PROMETHEUS = "prometheus"
    VICTORIAMETRICS = "victoriametrics"


FOREIGN: Final = frozenset({"up"})
"""Series that rules select and that are Prometheus' own: `namespace` stands before all others."""


class RuleScope(NamedTuple):
    """Which series the rules look at and which labels of the target they keep."""

    matchers: str
    """Label matchers for every raw series, such as `namespace="prod"`; may be empty."""
    keep: tuple[str, ...]
    dialect: Dialect = Dialect.PROMETHEUS
    namespace: str = ""
    """What `configure(namespace=…)` puts before every family."""

    def by(self, *labels: str) -> str:
        """A label list that begins with the kept ones."""
        return ", ".join((*self.keep, *labels))

    def select(self, metric: str, *matchers: str) -> str:
        """A selector of raw series, by the name that the contract gives them."""
        given = ", ".join(part for part in (self.matchers, *matchers) if part)
        name = self.name(metric)
        return f"{name}{{{given}}}" if given else name

    def name(self, metric: str) -> str:
        """The name under which a family is exposed."""
        return f"{self.namespace}_{metric}" if self.namespace and metric not in FOREIGN else metric

    def increase(self, selector: str, window: str, *labels: str, every: bool = False) -> str:
        """Events within the window, the first one of a new series included.

        Args:
            selector: the raw counters.
            window: how far back, as a PromQL duration.
            labels: what to sum by, beside the kept labels of the target.
            every: count events that happened while Prometheus could not scrape, too, when it first sees them. For
                rare events of which each one matters; it reads two hours more of each series.
        """
        # VictoriaMetrics' own increase() guesses whether a new series began at 0; this one leaves that to us.
        exact = self.dialect is Dialect.VICTORIAMETRICS
        function = "increase_prometheus" if exact else "increase"
        born = self._unseen(selector, window) if every or exact else self._born(selector, window)
        return (
            f"sum by ({self.by(*labels)}) (\n"
            f"  {function}({selector}[{window}])\n"
            f"  or\n"
            f"  label_replace(\n"
            f"{born},\n"
            f'    "born", "yes", "", ""\n'
            f"  )\n"
            f")"
        )

    def _born(self, selector: str, window: str) -> str:
        return born(selector, self.select(START_TIME.name), window, str(seconds(window) + FOUND_S), self.by(INSTANCE))

    def _unseen(self, selector: str, window: str) -> str:
        """What the first sample in the window holds beyond the last one before it."""
        start, target = self.select(START_TIME.name), self.by(INSTANCE)
        first = f"min_over_time({selector}[{window}])"
        before = f"last_over_time({selector}[{KNOWN}] offset {window})"
        return (
            f"    {first} - {before} >= 0\n"
            f"    or\n"
            # Less than before and no reset since: the process was replaced while it could not be scraped.
            f"    {first} and {before} unless resets({selector}[{window}]) > 0\n"
            f"    or\n"
            f"    {first} unless {before} and on ({target})\n"
            f"    (last_over_time({start}[{KNOWN}] offset {window})"
            f" or max_over_time({start}[{window}]) >= time() - {seconds(window)})\n"
            f"    or\n"
            # Scraped less often than its target: it is younger than the first scrape of an adopted process.
            f"    {first} unless {before} and (\n"
            f"      count_over_time({selector}[{window}])\n"
            f"      < on ({target}) group_left () count_over_time({start}[{window}])\n"
            f"    )"
        )


def born(selector: str, start: str, window: str, window_s: str, target: str) -> str:
    """The first values of series that began within the window, where `increase` is 0.

    Args:
        selector: the counters.
        start: the start times of their processes.
        window: how far back.
        window_s: its length in seconds, as PromQL.
        target: the labels of a target.
    """
    return (
        f"    (min_over_time({selector}[{window}]) unless {selector} offset {window})\n"
        f"    and on ({target})\n"
        f"    ({start} offset {window} or max_over_time({start}[{window}]) >= time() - {window_s})"
    )


class Count(NamedTuple):
    """Events of one sort, summed at one level, over several windows; recorded as `level:name:increaseWINDOW`."""

    level: str
    name: str
    labels: tuple[str, ...]
    metric: str = ""
    """Raw series to sum; empty where `source` is given."""
    matchers: tuple[str, ...] = ()
    source: str = ""
    """A count of a finer level, as `level:name`, to sum instead of raw series."""
    every: bool = False
    """Whether events that happened while Prometheus could not scrape must count too; see `Scope.increase`."""
    zero_of: str = ""
    """A count that proves that these events could have happened, as `level:name`: where it is, 0 instead of nothing."""

    def over(self, window: str) -> str:
        """Name of the recorded series."""
        return f"{self.level}:{self.name}:increase{window}"

    def rules(self, scope: RuleScope, windows: Sequence[str]) -> list[Recording]:
        """One recording rule a window."""
        return [Recording(self.over(window), self._expr(scope, window, windows)) for window in windows]

    def _expr(self, scope: RuleScope, window: str, windows: Sequence[str]) -> str:
        expr = self._counted(scope, window, windows)
        if not self.zero_of:
            return expr
        return f"{expr}\nor\n0 * {self.zero_of}:increase{window}"

    def _counted(self, scope: RuleScope, window: str, windows: Sequence[str]) -> str:
        if seconds(window) > DIRECT_S:
            return self._added_up(scope, window, windows)
        if self.source:
            return f"sum by ({scope.by(*self.labels)}) ({self.source}:increase{window})"
        return scope.increase(scope.select(self.metric, *self.matchers), window, *self.labels, every=self.every)

    def _added_up(self, scope: RuleScope, window: str, windows: Sequence[str]) -> str:
        shorter, times = slices(window, windows)
        parts = [
            f'  label_replace({self.over(shorter)}{_offset(seconds(shorter) * index)}, "slice", "{index}", "", "")'
            for index in range(times)
        ]
        return f"sum by ({scope.by(*self.labels)}) (\n" + "\n  or\n".join(parts) + "\n)"


def _offset(length_s: int) -> str:
    if not length_s:
        return ""
    unit = next(unit for unit in ("d", "h", "m", "s") if length_s % UNITS[unit] == 0)
    return f" offset {length_s // UNITS[unit]}{unit}"


def ratio(good: str, total: str) -> str:
    """Share of `good` in `total`; no value where there is nothing to share."""
    return f"{good}\n/\n({total} > 0)"


def quantile(share: float, buckets: str) -> str:
    """A quantile in seconds from counted buckets; no value where nothing was observed."""
    return f"histogram_quantile({number(share)}, {buckets})\nand ignoring (le)\n({bucket(buckets, '+Inf')} > 0)"


def bucket(buckets: str, bound: float | str) -> str:
    """How many observations were at most `bound` (seconds, or `+Inf`), from counted buckets."""
    if isinstance(bound, str):
        return f'sum without (le) ({buckets}{{le="{bound}"}})'
    whole = bound == int(bound)
    le = f'le=~"{int(bound)}([.]0)?"' if whole else f'le="{number(bound)}"'
    return f"sum without (le) ({buckets}{{{le}}})"


def slower(buckets: str, threshold: float, bounds: Sequence[float]) -> str:
    """How many observations were above `threshold`, or above the largest bound below it, from counted buckets."""
    bound = max((each for each in bounds if each <= threshold), default=bounds[0])
    return f"({bucket(buckets, '+Inf')} - {bucket(buckets, bound)})"


def matcher(label: str, *values: str) -> str:
    """A label matcher for any of some plain values."""
    return f'{label}="{values[0]}"' if len(values) == 1 else f'{label}=~"{"|".join(values)}"'


def recent(values: Sequence[tuple[str, str, int]]) -> str:
    """The value over the shortest window that has enough events behind it.

    Args:
        values: (series of the value, expression of its events, how many it takes to believe the value), from the
            shortest window to the longest.
    """
    return "\nor\n".join(f"({value} and {events} >= {least})" for value, events, least in values)
