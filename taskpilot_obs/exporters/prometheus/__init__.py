"""The code that uses prometheus_client: the exporter, its metric families, and the rendering of a scrape."""

from taskpilot_obs.exporters.prometheus.exporter import PrometheusExporter, private_registry

__all__ = ["PrometheusExporter", "private_registry"]
