"""Thresholds of the alerts on the library itself."""

from __future__ import annotations

from taskpilot_obs.rules.fields import Duration, Events, JobName, Percent, Section


class TelemetryThresholds(Section):
    """Thresholds for the health of the library itself."""

    window: Duration = "15m"
    """Window of lost records, exporter errors, label overflow; at most 1h."""
    queue_capacity: Events = 65_536
    """Capacity of the exporters' queues, as configured in the application, and how full one may be."""
    queue_percent: Percent = 80
    down_for: Duration = "5m"
    """How long a process cannot be scraped before it is down."""
    down_percent: Percent = 50
    """A service is down, which is critical, when more than this share of its processes cannot be scraped."""
    long_lived: Duration = "6h"
    """Jobs that must report at all times; all others may come and go, as cron jobs do. Empty: no job may vanish that
    had a process of at least this age within the last day."""
    expected_jobs: tuple[JobName, ...] = ()
