"""What is wrong with the environment, a running `/metrics` or a Prometheus server, in words, and how to mend it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskpilot_obs.doctor.endpoint import check_endpoint
from taskpilot_obs.doctor.environment import check_environment
from taskpilot_obs.doctor.finding import Finding, Level
from taskpilot_obs.doctor.server import check_server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskpilot_obs.golden_signals.http import Access

__all__ = ["Finding", "Level", "diagnose"]


def diagnose(
    *,
    metrics_url: str | None = None,
    prometheus: str | None = None,
    workers: int | None = None,
    access: Access | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[Finding]:
    """Look at what can be seen from here.

    Args:
        metrics_url: a running `/metrics`.
        prometheus: base URL of a Prometheus server.
        workers: how many processes serve; None: as WEB_CONCURRENCY or GUNICORN_CMD_ARGS say.
        access: credentials, certificates and time limit for both URLs.
        environ: the environment that the service is started with.

    Raises:
        ConfigurationError: a URL is no http(s) URL.
    """
    found = check_environment(environ, workers)
    if metrics_url is not None:
        found += check_endpoint(metrics_url, access)
    if prometheus is not None:
        found += check_server(prometheus, access)
    return found
