"""`taskpilot-obs export-assets`: the shipped rules, dashboards and server configuration, as files of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs.assets import export_assets, prometheus_lines
from taskpilot_obs.exceptions import ConfigurationError

Target = Annotated[Path, typer.Argument(help="Folder to write to; made if need be.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files of ours that were changed there.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="export-assets")(export)


def export(target: Target, *, overwrite: Overwrite = False) -> None:
    """Write rules, dashboards and server configuration to a folder, and say what to add to prometheus.yml."""
    try:
        written = export_assets(target, overwrite=overwrite)
    except (ConfigurationError, OSError) as problem:
        raise typer.BadParameter(str(problem), param_hint="DIR") from problem
    typer.echo(f"{len(written)} files written to {target}. Lines for an existing prometheus.yml:\n")
    typer.echo(prometheus_lines(target), nl=False)
