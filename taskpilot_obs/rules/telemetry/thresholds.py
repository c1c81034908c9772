"""Thresholds of the alerts on the library itself."""

from __future__ import annotations

from taskpilot_obs.rules.fields import Duration, Events, JobName, Percent, Section


class TelemetryThresholds(Section):
    """Thresholds for the health of the library itself."""

    window: Duration = "15m"
    queue_capacity: Events = 65_536
    queue_percent: Percent = 80
    down_for: Duration = "5m"
    down_percent: Percent = 50
    long_lived: Duration = "6h"
    expected_jobs: tuple[JobName, ...] = ()
