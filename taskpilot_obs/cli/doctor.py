"""`taskpilot-obs doctor`: what is wrong with a service or an environment, and how to fix it."""

from __future__ import annotations

import json
from typing import Annotated, Final

import typer
from rich.text import Text

from taskpilot_obs._support.visible import printable
from taskpilot_obs.cli._credentials import ANONYMOUS, Credentials
from taskpilot_obs.cli._output import console, print_json
from taskpilot_obs.cli._store_options import explained
from taskpilot_obs.doctor import Finding, Level, diagnose
from taskpilot_obs.exceptions import ConfigurationError

_STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


def doctor(
    *,
    url: Annotated[str | None, typer.Option(help="A running /metrics, such as http://127.0.0.1:9464/metrics.")] = None,
    prometheus: Annotated[str | None, typer.Option(help="Base URL of a Prometheus server.")] = None,
    store: Annotated[str | None, typer.Option(help="URL of a telemetry store.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="How many processes serve; by default read from WEB_CONCURRENCY."),
    ] = None,
    environment: Annotated[
        bool | None,
        typer.Option(
            "--environment/--no-environment",
            help="Check the environment variables of this shell; by default only if no URL is given.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    credentials: Credentials = ANONYMOUS,
) -> None:
    """Check /metrics (--url), a Prometheus server (--prometheus), a store (--store), or else this shell's environment.

    Exit code: 0 no problem, 1 a problem (with --strict also a warning), 2 wrong usage.
    """
    here = environment if environment is not None else (url, prometheus, store) == (None, None, None)
    if workers is not None and not here:
        raise typer.BadParameter("--workers is checked against the environment of this shell: add --environment")
    try:
        with explained():
            found = diagnose(
                metrics_url=url,
                prometheus=prometheus,
                store=store,
                workers=workers,
                access=credentials.access(),
                environment=here,
                integrations=here,
            )
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error
    _show(found, as_json=as_json)
    bad = {Level.PROBLEM, Level.WARNING} if strict else {Level.PROBLEM}
    raise typer.Exit(1 if any(finding.level in bad for finding in found) else 0)


def _show(found: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json(json.dumps([{"code": finding.code, **finding._asdict()} for finding in found], indent=2))
        return
    out = console()
    for finding in found:
        line = Text.assemble(
            (f"{finding.level:<8}", _STYLES[finding.level]), f" {finding.check}: {printable(finding.text)}"
        )
        out.print(line, soft_wrap=True)
        if finding.remedy:
            out.print(Text(f"         -> {printable(finding.remedy)}"), soft_wrap=True)
