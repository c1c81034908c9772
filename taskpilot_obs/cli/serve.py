"""`taskpilot-obs serve`: the REST API, the pages, feedback and health over a telemetry store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs.cli._store_options import StoreUrl, TokensFile, explained
from taskpilot_obs.exceptions import ConfigurationError

LOOPBACK = "127.0.0.1"


def serve(  # noqa: PLR0913  a command line has as many options as it has
    *,
    store: StoreUrl = None,
    host: Annotated[str, typer.Option(help="Address to listen on; other machines need --tokens.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8090,
    tokens: TokensFile = None,
    prometheus: Annotated[
        str | None, typer.Option(help="Base URL of a Prometheus server with this library's rules.")
    ] = None,
    budgets: Annotated[
        list[Path] | None,
        typer.Option(envvar="TASKPILOT_OBS_BUDGETS", help="TOML or YAML file of budgets to show."),
    ] = None,
    budget_store: Annotated[
        str | None,
        typer.Option(envvar="TASKPILOT_OBS_BUDGET_STORE", help="URL of the store of the budgets."),
    ] = None,
    trace_url: Annotated[
        str | None, typer.Option(help="Where a trace is shown: https://jaeger/trace/{trace_id}.")
    ] = None,
    dashboard_url: Annotated[
        str | None, typer.Option(help="Where the dashboards are: https://grafana/d/taskpilot-llm.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Another site whose pages may ask with a token.")
    ] = None,
) -> None:
    """Serve answers about the telemetry store; to this machine alone, unless a token file is given."""
    with explained():
        from taskpilot_obs.budgets import load_budgets
        from taskpilot_obs.server import Links, create_app
        from taskpilot_obs.server.running import run, store_url

        _refuse_strangers(host, tokens)
        app = create_app(
            store=store_url(store),
            tokens=tokens,
            prometheus=prometheus,
            budgets=[budget for path in budgets or () for budget in load_budgets(path)],
            budget_store=budget_store,
            links=Links(trace=trace_url, dashboard=dashboard_url),
            cors_origins=cors_origin or (),
        )
        run(app, host, port, tell=print)


def _refuse_strangers(host: str, tokens: Path | None) -> None:
    """Refuse to listen to other machines without tokens.

    Raises:
        ConfigurationError: with what to do.
    """
    if tokens is None and host not in (LOOPBACK, "::1", "localhost"):
        raise ConfigurationError(
            f"--host: given {host} without --tokens; make a file with `taskpilot-obs token create`, or leave it out"
        )
