"""The instruments of a meter provider, which live as long as the provider, across calls of `configure`."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exporters.otel_metrics.conventions import (
    CLIENT_DURATION,
    CLIENT_METRICS,
    CLIENT_TOKENS,
    UNIT_SECONDS,
    UNIT_TOKENS,
)
from taskpilot_obs.exporters.otel_metrics.sources import COMPONENT, MetricSource, added
from taskpilot_obs.exporters.prometheus import private_registry
from taskpilot_obs.exporters.prometheus.families import SUMMED_GAUGES
from taskpilot_obs.semconv import METRICS, Kind, Metric

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from prometheus_client import CollectorRegistry

    from taskpilot_obs.exporters.otel_metrics.sources import Snapshot
    from taskpilot_obs.exporters.prometheus.families import Families

_SCOPE: Final = "taskpilot_obs"
_Callback = Callable[[CallbackOptions], Iterable[Observation]]


class Instruments:
    """The instruments of one meter provider, created once because the SDK keeps them for the provider's life."""

    def __init__(self, meter: Meter, namespace: str) -> None:
        self.histograms: dict[str, Histogram] = {}
        self._sources: list[MetricSource] = []
        self._gauges: set[str] = set()
        self._latest: set[str] = set()
        self._snapshot: Snapshot = {}
        prefix = f"{namespace}_" if namespace else ""
        first: list[_Callback] = [self._collect]
        for metric in METRICS:
            self._create(meter, metric, prefix, first)
        for metric in CLIENT_METRICS:
            self._create(meter, metric, "", first)

    def source_of(self, families: Families) -> MetricSource:
        """The source of these families, which an exporter opens. It stays, because counters must not fall."""
        with _lock:
            for source in self._sources:
                if source.families is families:
                    return source
            self._sources.append(MetricSource(families, self.histograms))
            return self._sources[-1]

    def _create(self, meter: Meter, metric: Metric, prefix: str, first: list[_Callback]) -> None:
        name, unit, text = prefix + metric.name, _unit(metric), metric.help
        if metric.kind is Kind.HISTOGRAM:
            self.histograms[metric.name] = meter.create_histogram(
                name, unit, text, explicit_bucket_boundaries_advisory=metric.buckets
            )
            return
        create: Callable[..., object] = meter.create_observable_counter
        if metric.kind is Kind.GAUGE:
            self._gauges.add(name)
            create = meter.create_observable_up_down_counter
            if metric not in SUMMED_GAUGES:
                self._latest.add(name)
                create = meter.create_observable_gauge
        callbacks: list[_Callback] = [*first, partial(self._values, name)]
        first.clear()
        create(name, callbacks, unit, text)

    def _collect(self, _: CallbackOptions) -> Iterable[Observation]:
        """Read everything once per collection: the SDK calls back in the order of creation, so this comes first."""
        with guarded(COMPONENT):
            self._snapshot = self._read(list(self._sources))
        return ()

    def _read(self, sources: list[MetricSource]) -> Snapshot:
        return sources[0].snapshot() if len(sources) == 1 else added(sources, self._gauges, self._latest)

    def _values(self, name: str, _: CallbackOptions) -> Iterable[Observation]:
        return self._snapshot.get(name, ())


def _unit(metric: Metric) -> str:
    """The unit; none where translation to Prometheus names would append it a second time."""
    if metric is CLIENT_TOKENS:
        return UNIT_TOKENS
    seconds = metric is CLIENT_DURATION or metric.name.endswith("_seconds")
    return UNIT_SECONDS if seconds else ""


_created: weakref.WeakKeyDictionary[MeterProvider, dict[str, Instruments]] = weakref.WeakKeyDictionary()
_registries: weakref.WeakKeyDictionary[MeterProvider, dict[str, CollectorRegistry]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def instruments_of(provider: MeterProvider, namespace: str, version: str) -> Instruments:
    """The instruments of a provider, created at the first call.

    Args:
        provider: the application's meter provider.
        namespace: the prefix of every name, without the underscore that follows it.
        version: of this library, for the instrumentation scope.
    """
    with _lock:
        by_namespace = _created.setdefault(provider, {})
        if namespace not in by_namespace:
            by_namespace[namespace] = Instruments(provider.get_meter(_SCOPE, version), namespace)
        return by_namespace[namespace]


def registry_behind(provider: MeterProvider, namespace: str) -> CollectorRegistry:
    """The registry for `prometheus=False`, which is not scraped: one per provider, so that counters never restart.

    Args:
        provider: the application's meter provider.
        namespace: the prefix of every name.
    """
    with _lock:
        return _registries.setdefault(provider, {}).setdefault(namespace, private_registry())
