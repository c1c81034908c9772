"""The exporter: the families of /metrics as OpenTelemetry instruments, and LLM calls as `gen_ai.client.*` as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs.exporters.otel_metrics.client_calls import ClientCalls
from taskpilot_obs.exporters.otel_metrics.instruments import instruments_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.metrics import MeterProvider

    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.exporters.prometheus import PrometheusExporter
    from taskpilot_obs.records import Record


class OtelMetricsExporter:
    """Exports the families of a registry to a meter provider, in memory; the provider's readers send them.

    Counters and gauges are read from the registry when a reader collects, so they equal /metrics by construction.
    Histograms receive each observation that the registry's histograms receive. If several registries share a
    provider, it exports their sum.

    Args:
        provider: the application's meter provider.
        metrics: the exporter whose families are exported. It has one meter provider; a later one replaces it.
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
        self._source = instruments_of(provider, self._families.namespace, version).source_of(self._families)
        self._calls = ClientCalls(self._source.new_series)
        self._families.run_aside(lambda: self._source.open(self, counters))

    def export(self, batch: Sequence[Record], /) -> None:
        """Record the LLM calls of a batch in `gen_ai.client.*`; the other families are read from the registry."""
        self._families.run(lambda: self._calls.add_all(batch, self._counters))

    def shutdown(self, timeout_s: float = 0.0) -> None:  # noqa: ARG002  nothing here takes time
        """Hand waiting observations to the SDK. Later collections report the last values of the counters."""
        self._families.run_aside(lambda: self._source.close(self))
