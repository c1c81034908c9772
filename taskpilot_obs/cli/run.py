"""`taskpilot-obs run`: start an application that is observed without a changed line."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer

from taskpilot_obs.cli._store_options import explained
from taskpilot_obs.exceptions import MissingExtraError

AUTOLOAD: Final = "taskpilot_obs.autoload"
"""Entry points of packages with a folder `autoload` for PYTHONPATH, whose `sitecustomize` observes the process."""
_FOLDER: Final = "autoload"
NAMES: Final = "TASKPILOT_OBS_INSTRUMENT"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="run", context_settings={"ignore_unknown_options": True})(run)


def run(
    command: Annotated[list[str], typer.Argument(help="The command, such as: python app.py.", show_default=False)],
    *,
    only: Annotated[list[str] | None, typer.Option(help="Observe this SDK or framework alone; repeatable.")] = None,
) -> None:
    """Start a Python application and observe the SDKs and frameworks that it uses: `run -- python app.py`.

    An application that sets up OpenTelemetry by itself calls `instrument()` behind that instead.

    Exit code: that of the application, or 2 for wrong usage.
    """
    program = shutil.which(command[0])
    if program is None:
        raise typer.BadParameter(f"{command[0]!r} is not a program on PATH")
    environ = dict(os.environ)
    with explained():
        folders = _folders()
    environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [environ.get("PYTHONPATH")])])
    if only:
        environ[NAMES] = ",".join(only)
    sys.stdout.flush()
    os.execve(program, command, environ)  # noqa: S606  the command that the user gives, without a shell


def _folders() -> list[str]:
    """The folders. Of their packages only those around a nested one are imported: the application imports the rest."""
    packages = [_found(point.module) for point in entry_points(group=AUTOLOAD)]
    found = [str(Path(spec.origin).parent / _FOLDER) for spec in packages if spec is not None and spec.origin]
    if not found or _found("opentelemetry.sdk") is None:
        raise MissingExtraError("taskpilot-obs run", "otel")
    return found


def _found(module: str) -> ModuleSpec | None:
    try:
        return find_spec(module)
    except ImportError:  # a package around it is missing
        return None
