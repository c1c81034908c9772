"""Everything that speaks to prometheus_client: the exporter, the families it feeds, and what a scrape reads."""

from taskpilot_obs.exporters.prometheus.exporter import PrometheusExporter

__all__ = ["PrometheusExporter"]
