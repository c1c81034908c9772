"""The values that a meter provider exports: the families of a registry, or the sum over several registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import Observation

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exporters.otel_metrics.bulk import HistogramSeries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from opentelemetry.metrics import Histogram

    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.exporters.prometheus.families import Families
    from taskpilot_obs.semconv import Metric

    Snapshot = Mapping[str, Sequence[Observation]]

COMPONENT: Final = "otel_metrics"


class MetricSource:
    """The families of one registry, kept open by one or more exporters.

    Args:
        families: the families.
        histograms: the provider's, by the name of the metric.
    """

    def __init__(self, families: Families, histograms: Mapping[str, Histogram]) -> None:
        self.families = families
        self._histograms = histograms
        self._follow = self._series_of  # one object, so that it can be recognised
        self._series: list[HistogramSeries] = []
        self._users: set[object] = set()
        self._last: Snapshot = {}
        self._counters: InternalCounters | None = None

    @property
    def is_open(self) -> bool:
        """Whether an exporter uses it."""
        return bool(self._users)

    def open(self, user: object, counters: InternalCounters | None) -> None:
        """Follow the histograms, until `close` with every user. The caller is within `run_aside`.

        Args:
            user: an exporter.
            counters: counts from now on what failed.
        """
        self._users.add(user)
        self._counters = counters
        if self.families.followed_by is not self._follow:
            self.families.follow_histograms(self._follow)

    def close(self, user: object) -> None:
        """Keep the last values if this was the last user. The caller is within `run_aside`."""
        if user not in self._users:
            return
        self._last = self._read()
        self._users.discard(user)
        if self._users:
            return
        self._series.clear()
        if self.families.followed_by is self._follow:  # no other provider has replaced this one
            self.families.follow_histograms(None)

    def snapshot(self) -> Snapshot:
        """Drain, hand waiting observations to the SDK, and return all counters and gauges at one moment."""
        if self._users:
            self.families.drain()
            self.families.run_aside(self._renew)
        return self._last

    def new_series(self, metric: Metric, attributes: Mapping[str, str]) -> HistogramSeries:
        """A new series of a histogram, which each snapshot hands to the SDK."""
        series = HistogramSeries(self._histograms[metric.name], attributes, metric.buckets)
        self._series.append(series)
        return series

    def _series_of(self, metric: Metric, labels: tuple[str, ...]) -> HistogramSeries:
        return self.new_series(metric, dict(zip(metric.labels, labels, strict=True)))

    def _renew(self) -> None:
        if self._users:  # it may have been closed since
            self._last = self._read()

    def _read(self) -> Snapshot:
        for series in self._series:
            with guarded(COMPONENT, self._counters):
                series.flush()
        return {
            name: [Observation(value, labels) for labels, value in values]
            for name, values in self.families.values().items()
        }


def added(sources: Sequence[MetricSource], gauges: Collection[str], latest: Collection[str]) -> Snapshot:
    """The values of all sources. Counters keep the values of closed sources; gauges come from open sources only.

    Args:
        sources: the sources, in the order of their creation.
        gauges: names of gauges, which are those of the last source where none is open.
        latest: the gauges that cannot be added up: the last source that has a series gives its value.
    """
    snapshots = [(source, source.snapshot()) for source in sources]
    current = {source for source in sources if source.is_open} or set(sources[-1:])
    found: dict[str, dict[frozenset[tuple[str, object]], Observation]] = {}
    for source, snapshot in snapshots:
        for name, observations in snapshot.items():
            if source in current or name not in gauges:
                _add(found.setdefault(name, {}), observations, replace=name in latest)
    return {name: list(values.values()) for name, values in found.items()}


def _add(
    into: dict[frozenset[tuple[str, object]], Observation], observations: Iterable[Observation], *, replace: bool
) -> None:
    for each in observations:
        key = frozenset((each.attributes or {}).items())
        before = into.get(key)
        into[key] = each if before is None or replace else Observation(before.value + each.value, each.attributes)
