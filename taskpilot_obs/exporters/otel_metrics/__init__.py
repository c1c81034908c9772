"""The metric families as OpenTelemetry instruments, for the meter provider of the application."""

from taskpilot_obs.exporters.otel_metrics.exporter import OtelMetricsExporter
from taskpilot_obs.exporters.otel_metrics.instruments import registry_behind

__all__ = ["OtelMetricsExporter", "registry_behind"]
