"""Exporters of finished records: Prometheus, the audit log, the rolling window, log records."""
