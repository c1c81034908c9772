"""Checks of an environment, `/metrics`, a Prometheus server and a telemetry store: what is wrong, how to fix it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskpilot_obs.doctor.endpoint import check_endpoint
from taskpilot_obs.doctor.environment import check_environment, check_integrations
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
    store: str | None = None,
    workers: int | None = None,
    access: Access | None = None,
    environ: Mapping[str, str] | None = None,
    environment: bool = True,
    integrations: bool = False,
) -> list[Finding]:
    """Check the environment of a service, its running `/metrics`, a Prometheus server and a telemetry store.

    Args:
        metrics_url: A running `/metrics`.
        prometheus: Base URL of a Prometheus server.
        store: URL of a telemetry store.
        workers: How many processes serve; None reads WEB_CONCURRENCY or GUNICORN_CMD_ARGS.
        access: Credentials, certificates and time limit for both URLs.
        environ: The environment that the service is started with; None is the environment of this process.
        environment: False leaves the environment out, for a service that runs somewhere else.
        integrations: True adds which SDKs and frameworks are installed here, and whether they can be observed.

    Returns:
        What was found, in the order of the checks.

    Raises:
        ConfigurationError: A URL does not begin with http:// or https://, or names no store.
        MissingExtraError: The extra of the store is not installed.
    """
    found = check_environment(os.environ if environ is None else environ, workers) if environment else []
    if integrations:
        found += check_integrations()
    if metrics_url is not None:
        found += check_endpoint(metrics_url, access)
    if prometheus is not None:
        found += check_server(prometheus, access)
    if store is not None:
        from taskpilot_obs.doctor.store import check_store

        found += check_store(store)
    return found
