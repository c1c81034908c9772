"""The exporter: what /metrics shows becomes OpenTelemetry instruments, and LLM calls `gen_ai.client.*` besides."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exporters.otel_metrics.bulk import HistogramSeries
from taskpilot_obs.exporters.otel_metrics.client_calls import ClientCalls
from taskpilot_obs.exporters.otel_metrics.conventions import (
    CLIENT_DURATION,
    CLIENT_METRICS,
    CLIENT_TOKENS,
    UNIT_SECONDS,
    UNIT_TOKENS,
)
from taskpilot_obs.exporters.prometheus.families import SUMMED_GAUGES
from taskpilot_obs.semconv import METRICS, Kind, Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.metrics import Meter

    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.exporters.prometheus import PrometheusExporter
    from taskpilot_obs.records import Record

_SCOPE: Final = "taskpilot_obs"
_WHERE: Final = "otel_metrics"
_Callback = Callable[[CallbackOptions], Iterable[Observation]]
_Snapshot = Mapping[str, list[Observation]]
_NOTHING: Final[_Snapshot] = {}


class OtelMetricsExporter:
    """Exports the families of a registry to a meter provider. In memory only; readers of the provider send them.

    Counters and gauges are read from the registry when a reader collects, so they equal /metrics by construction.
    Histograms receive each observation that the registry's histograms receive.

    Args:
        provider: the application's meter provider.
        metrics: the exporter whose families are exported. They have one meter provider: a later one replaces it.
        version: of this library, for the instrumentation scope.
        counters: counts what failed.
    """

    def __init__(
        self,
        provider: MeterProvider,
        metrics: PrometheusExporter,
        *,
        version: str = "",
        counters: InternalCounters | None = None,
    ) -> None:
        self._families = metrics.families
        self._counters = counters
        self._follow = self._series_of  # one object, so that it can be recognised
        self._series: list[HistogramSeries] = []
        self._last: _Snapshot | None = None
        self._instruments = _instruments_of(provider, self._families.namespace, version)
        self._calls = ClientCalls(self._client_series)
        self._families.run_aside(lambda: self._families.follow_histograms(self._follow))
        self._instruments.source = self

    def export(self, batch: Sequence[Record], /) -> None:
        """Record the LLM calls of a batch in `gen_ai.client.*`; the other families need nothing of it."""
        self._families.run(lambda: self._calls.add_all(batch, self._counters))

    def snapshot(self) -> _Snapshot:
        """Drain, hand waiting observations to the SDK, and return all counters and gauges at one moment."""
        if self._last is not None:
            return self._last
        self._families.drain()
        found: dict[str, list[Observation]] = {}
        self._families.run_aside(lambda: found.update(self._read()))
        return found

    def _read(self) -> _Snapshot:
        for series in self._series:
            with guarded(_WHERE, self._counters):
                series.flush()
        return {
            name: [Observation(value, labels) for labels, value in values]
            for name, values in self._families.values().items()
        }

    def shutdown(self, timeout_s: float = 0.0) -> None:  # noqa: ARG002  nothing here takes time
        """Hand waiting observations to the SDK. Later collections report the last values."""
        self._families.run_aside(self._close)

    def _close(self) -> None:
        self._last = self._read()
        if self._families.followed_by is self._follow:  # no later exporter has replaced this one
            self._families.follow_histograms(None)

    def _series_of(self, metric: Metric, labels: tuple[str, ...]) -> HistogramSeries:
        return self._new_series(metric, dict(zip(metric.labels, labels, strict=True)))

    def _client_series(self, metric: Metric, attributes: Mapping[str, str]) -> HistogramSeries:
        return self._new_series(metric, attributes)

    def _new_series(self, metric: Metric, attributes: Mapping[str, str]) -> HistogramSeries:
        series = HistogramSeries(self._instruments.histograms[metric.name], attributes, metric.buckets)
        self._series.append(series)
        return series


class _Instruments:
    """The instruments of one meter provider: created once, because the SDK keeps them for its life."""

    def __init__(self, meter: Meter, namespace: str) -> None:
        self.histograms: dict[str, Histogram] = {}
        self.source: OtelMetricsExporter | None = None
        self._snapshot: _Snapshot = _NOTHING
        prefix = f"{namespace}_" if namespace else ""
        first: list[_Callback] = [self._collect]
        for metric in METRICS:
            self._create(meter, metric, prefix, first)
        for metric in CLIENT_METRICS:
            self._create(meter, metric, "", first)

    def _create(self, meter: Meter, metric: Metric, prefix: str, first: list[_Callback]) -> None:
        name, unit, text = prefix + metric.name, _unit(metric), metric.help
        if metric.kind is Kind.HISTOGRAM:
            self.histograms[metric.name] = meter.create_histogram(
                name, unit, text, explicit_bucket_boundaries_advisory=metric.buckets
            )
            return
        create = {
            Kind.COUNTER: meter.create_observable_counter,
            Kind.GAUGE: meter.create_observable_gauge,
        }[metric.kind]
        if metric in SUMMED_GAUGES:
            create = meter.create_observable_up_down_counter
        callbacks: list[_Callback] = [*first, partial(self._values, name)]
        first.clear()
        create(name, callbacks, unit, text)

    def _collect(self, _: CallbackOptions) -> Iterable[Observation]:
        """Read everything once per collection: the SDK calls back in the order of creation, and this one first."""
        source = self.source
        if source is not None:
            with guarded(_WHERE):
                self._snapshot = source.snapshot()
        return ()

    def _values(self, name: str, _: CallbackOptions) -> Iterable[Observation]:
        return self._snapshot.get(name, ())


def _unit(metric: Metric) -> str:
    """The unit, where a translation to Prometheus' names would not add it a second time."""
    if metric is CLIENT_TOKENS:
        return UNIT_TOKENS
    seconds = metric is CLIENT_DURATION or metric.name.endswith("_seconds")
    return UNIT_SECONDS if seconds else ""


_created: weakref.WeakKeyDictionary[MeterProvider, defaultdict[str, _Instruments | None]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _instruments_of(provider: MeterProvider, namespace: str, version: str) -> _Instruments:
    with _lock:
        by_namespace = _created.setdefault(provider, defaultdict(lambda: None))
        found = by_namespace[namespace]
        if found is None:
            found = by_namespace[namespace] = _Instruments(provider.get_meter(_SCOPE, version), namespace)
        return found
