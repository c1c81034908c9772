"""Exporters of finished records: Prometheus, the audit log, the rolling window, log records, and yours."""

from __future__ import annotations

from taskpilot_obs._pipeline.exporter import Account, Exporter, PartialExportError
from taskpilot_obs.exporters.delivery import Delivery

__all__ = ["Account", "Delivery", "Exporter", "PartialExportError"]
