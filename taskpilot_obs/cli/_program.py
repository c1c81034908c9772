"""The program as a whole: its commands, its version, and what happens when its output cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, TextIO

import typer

import taskpilot_obs.cli as commands

CANNOT_WRITE = 1


def run() -> None:
    """Run it. Exits 1 with a sentence, not a traceback, where a file or the output cannot be read or written."""
    program = typer.Typer(
        name="taskpilot-obs",
        help="Production observability for LLM agents, in your own process.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    program.callback()(taskpilot_obs)
    for module in sorted(iter_modules(commands.__path__), key=lambda found: found.name):
        if not module.name.startswith("_"):
            import_module(f"{commands.__name__}.{module.name}").register(program)
    try:
        try:
            program()
        finally:
            if (output := _output()) is not None:
                output.flush()  # here, where it can be told, and not while the interpreter ends
    except OSError as error:
        _give_up(error)


def _output() -> TextIO | None:
    """Standard output; None where whoever started the command has closed it."""
    return sys.stdout


def _print_version(asked: bool) -> None:
    if asked:
        from taskpilot_obs.config import library_version

        print(f"taskpilot-obs {library_version()}")
        raise typer.Exit


def taskpilot_obs(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Production observability for LLM agents, in your own process."""


def _give_up(error: OSError) -> None:
    """Say what went wrong, and let the interpreter not try again to write what is left."""
    if error.errno != errno.EPIPE:  # a reader that has seen enough (`| head`) needs no word
        with contextlib.suppress(OSError):
            print(f"taskpilot-obs: {error.strerror or error}{_where(error)}", file=sys.stderr, flush=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.exit(CANNOT_WRITE)


def _where(error: OSError) -> str:
    return f": {error.filename}" if error.filename is not None else ""
