"""`taskpilot-obs signals`: the golden signals behind a `/metrics` URL or a Prometheus server."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Final

import typer

from taskpilot_obs.cli._credentials import ANONYMOUS, Credentials
from taskpilot_obs.cli._output import complain, print_json, show, working
from taskpilot_obs.cli._signals_table import jobs_view, signals_view
from taskpilot_obs.exceptions import ConfigurationError, SourceError
from taskpilot_obs.golden_signals.from_prometheus import signals_from_prometheus, signals_of_all_jobs
from taskpilot_obs.golden_signals.from_url import signals_from_url
from taskpilot_obs.golden_signals.model import GoldenSignals, SignalStatus

DEFAULT_URL: Final = "http://127.0.0.1:9464/metrics"
DEFAULT_WINDOW: Final = "1h"
EXIT_CODES: Final = {
    SignalStatus.HEALTHY: 0,
    SignalStatus.WARNING: 1,
    SignalStatus.CRITICAL: 2,
    SignalStatus.INSUFFICIENT_DATA: 3,
}
CANNOT_READ: Final = 4


def signals(  # noqa: PLR0913  a command line has as many options as it has
    *,
    url: Annotated[
        str | None, typer.Option(help=f"A /metrics URL (default: {DEFAULT_URL}).", show_default=False)
    ] = None,
    over: Annotated[
        str | None, typer.Option(help="Scrape twice, this far apart (60s, 5m), and tell the difference.")
    ] = None,
    prometheus: Annotated[str | None, typer.Option(help="Base URL of a Prometheus server: the whole fleet.")] = None,
    window: Annotated[
        str | None,
        typer.Option(help=f"How far back the server looks (default: {DEFAULT_WINDOW})."),
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="This workflow alone.")] = None,
    job: Annotated[str | None, typer.Option(help="This scrape job of the server alone.")] = None,
    all_jobs: Annotated[bool, typer.Option("--all-jobs", help="One line for each scrape job of the server.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the model as JSON.")] = False,
    credentials: Credentials = ANONYMOUS,
) -> None:
    """Print the five golden signals and their evidence.

    Exit code: 0 healthy, 1 warning, 2 critical, 3 no evidence, 4 the source cannot be read; with --all-jobs the
    worst of all jobs. Wrong usage exits with 2 and an explanation on standard error.
    """
    _refuse_contradictions(url, over, prometheus, window, job)
    if all_jobs and (prometheus is None or job is not None):
        raise typer.BadParameter("--all-jobs needs --prometheus, and no --job")
    try:
        access = credentials.access()
        if prometheus is not None and all_jobs:
            every = signals_of_all_jobs(prometheus, window or DEFAULT_WINDOW, workflow=workflow, access=access)
            _show_all(every, as_json=as_json)
            raise typer.Exit(max((EXIT_CODES[each.status] for each in every.values()), key=_GRAVITY.index, default=3))
        if prometheus is not None:
            found = signals_from_prometheus(
                prometheus, window or DEFAULT_WINDOW, workflow=workflow, job=job, access=access
            )
        else:
            with _waiting(over):
                found = signals_from_url(url or DEFAULT_URL, over=over, workflow=workflow, access=access)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error
    except SourceError as error:
        complain(f"cannot read: {error}")
        raise typer.Exit(CANNOT_READ) from error
    _show(found, as_json=as_json)
    raise typer.Exit(EXIT_CODES[found.status])


def _refuse_contradictions(
    url: str | None, over: str | None, prometheus: str | None, window: str | None, job: str | None
) -> None:
    if prometheus is None and (window is not None or job is not None):
        raise typer.BadParameter("--window and --job need --prometheus; for a /metrics URL give --over")
    if prometheus is not None and (url is not None or over is not None):
        raise typer.BadParameter("--prometheus takes --window; --url and --over are for a /metrics URL")


def _waiting(over: str | None) -> AbstractContextManager[object]:
    """A spinner on a terminal, because the command is silent for as long as the user asked for."""
    return nullcontext() if over is None else working(f"waiting {over} between two scrapes")


_GRAVITY: Final = (0, 3, 1, 2)
"""Exit codes from the least to the worst: no evidence is worse than healthy and better than a warning."""


def _show_all(every: dict[str, GoldenSignals], *, as_json: bool) -> None:
    if as_json:
        print_json(json.dumps({job: found.model_dump(mode="json") for job, found in every.items()}, indent=2))
    else:
        show(jobs_view(every))


def _show(found: GoldenSignals, *, as_json: bool) -> None:
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        show(signals_view(found))
