"""`taskpilot-obs rules`: render the Prometheus rules from your settings, or check that they were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs._support.assets import RULES, SETTINGS, observability_dir
from taskpilot_obs._support.reasons import reason_with_path
from taskpilot_obs.cli._output import say
from taskpilot_obs.cli._program import CommandGroup
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.rules.aliases import write_aliases
from taskpilot_obs.rules.folders import Target, differing, write
from taskpilot_obs.rules.listing import alerts_table
from taskpilot_obs.rules.settings import RuleSettings, load_settings

SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="Settings file; without it, the shipped settings.", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", help="Folder that the rules are written to.")]
For = Annotated[Target, typer.Option("--target", help="What will load the files.")]
Aliases = Annotated[
    Path | None,
    typer.Option("--aliases", help="File of old metric names and their expressions, YAML or TOML.", show_default=False),
]
Folder = Annotated[
    Path | None, typer.Option("--dir", help="Folder of rules; without it, the shipped one.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the command and its verbs."""
    group = typer.Typer(help="Recording and alert rules for Prometheus.", no_args_is_help=True, cls=CommandGroup)
    group.command(name="render")(render)
    group.command(name="check")(check)
    group.command(name="list")(list_alerts)
    app.add_typer(group, name="rules")


def render(
    out: Out, *, settings: SettingsFile = None, target: For = Target.PROMETHEUS, aliases: Aliases = None
) -> None:
    """Write the rule files that the settings ask for, and with --aliases recording rules under old names.

    Targets: prometheus (and Thanos), victoriametrics (vmalert), mimir (mimirtool), kubernetes (PrometheusRule objects).
    """
    found = _settings(settings)
    try:
        written = write(found, out, target)
        if aliases is not None:
            written.append(write_aliases(aliases, found, out, target))
    except (ConfigurationError, MissingExtraError) as problem:
        raise typer.BadParameter(str(problem), param_hint="--aliases") from problem
    except OSError as problem:
        raise typer.BadParameter(reason_with_path(problem), param_hint="--out") from problem
    say(f"{len(written)} files written to {out}")


def check(*, settings: SettingsFile = None, folder: Folder = None) -> None:
    """Tell whether the rule files are those that the settings ask for; exits 1 if not."""
    found = _settings(settings)
    where = folder or observability_dir() / RULES
    wrong = differing(found, where)
    for name in wrong:
        say(f"missing or different: {where / name}")
    if wrong:
        raise typer.Exit(1)
    say(f"the rules in {where} are those of the settings")


def list_alerts(*, settings: SettingsFile = None) -> None:
    """Print the alerts that the settings ask for, as a table of Markdown."""
    say(alerts_table(_settings(settings)).rstrip("\n"))


def _settings(path: Path | None) -> RuleSettings:
    try:
        return load_settings(path or observability_dir() / SETTINGS)
    except (ConfigurationError, MissingExtraError) as problem:
        raise typer.BadParameter(str(problem), param_hint="--settings") from problem
