"""`taskpilot-obs export-assets`: the shipped rules, dashboards and server configuration, as files of your own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs._support.assets import export_assets, prometheus_lines
from taskpilot_obs._support.kubernetes import Placement, export_manifests
from taskpilot_obs._support.reasons import reason_with_path
from taskpilot_obs.cli._output import say, working
from taskpilot_obs.exceptions import ConfigurationError


class Format(StrEnum):
    """What is written."""

    FILES = "files"
    KUBERNETES = "kubernetes"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="export-assets")(export)


def export(
    target: Annotated[Path, typer.Argument(help="Folder to write to; it is created if it does not exist.")],
    *,
    format: Annotated[  # noqa: A002  the name of the option
        Format,
        typer.Option(help="files: for servers on this machine; kubernetes: for the Prometheus operator."),
    ] = Format.FILES,
    namespace: Annotated[str, typer.Option(help="Namespace of the Kubernetes objects.")] = "monitoring",
    label: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE that your operator selects objects by, e.g. release=prometheus."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace exported files that were changed there.")
    ] = False,
) -> None:
    """Write rules, dashboards and server configuration to a folder, and print how to load them."""
    try:
        if format is Format.KUBERNETES:
            _export_manifests(target, Placement(namespace, tuple(map(_pair, label or ()))), overwrite=overwrite)
        else:
            _export_files(target, overwrite=overwrite)
    except (ConfigurationError, OSError) as problem:
        raise typer.BadParameter(reason_with_path(problem), param_hint="DIR") from problem


def _export_files(target: Path, *, overwrite: bool) -> None:
    with working("writing files"):
        written = export_assets(target, overwrite=overwrite)
    say(f"{len(written)} files written to {target}. Lines for an existing prometheus.yml:\n")
    say(prometheus_lines(target).rstrip("\n"))


def _export_manifests(target: Path, placement: Placement, *, overwrite: bool) -> None:
    with working("writing manifests"):
        written = export_manifests(target, placement, overwrite=overwrite)
    say(f"{len(written)} files written to {target}. Load them:\n")
    say(f"kubectl apply --server-side -k {target}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"given {text!r}; write NAME=VALUE", param_hint="--label")
    return name, value
