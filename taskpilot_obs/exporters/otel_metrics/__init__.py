"""The metric families as OpenTelemetry instruments, for the meter provider of the application."""

from taskpilot_obs.exporters.otel_metrics.exporter import OtelMetricsExporter

__all__ = ["OtelMetricsExporter"]
