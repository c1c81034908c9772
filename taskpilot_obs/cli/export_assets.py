"""`taskpilot-obs export-assets`: the shipped rules, dashboards and server configuration, as files of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs._support.assets import export_assets, prometheus_lines
from taskpilot_obs.cli._output import say, working
from taskpilot_obs.exceptions import ConfigurationError

Target = Annotated[Path, typer.Argument(help="Folder to write to; it is created if it does not exist.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace exported files that were changed there.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="export-assets")(export)


def export(target: Target, *, overwrite: Overwrite = False) -> None:
    """Write rules, dashboards and server configuration to a folder, and print what to add to prometheus.yml."""
    try:
        with working("writing files"):
            written = export_assets(target, overwrite=overwrite)
    except (ConfigurationError, OSError) as problem:
        raise typer.BadParameter(str(problem), param_hint="DIR") from problem
    say(f"{len(written)} files written to {target}. Lines for an existing prometheus.yml:\n")
    say(prometheus_lines(target).rstrip("\n"))
