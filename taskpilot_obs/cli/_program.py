"""The program as a whole: its commands, its version, and what happens when its output cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from io import TextIOWrapper
from pkgutil import iter_modules
from types import ModuleType
from typing import Annotated, Any, Final, TextIO

import typer
from typer.core import TyperGroup

from taskpilot_obs._support.visible import printable
from taskpilot_obs.cli._option_groups import grouped
from taskpilot_obs.cli._text import ASCII_SIGNS, printable_lines

CANNOT_WRITE = 1
_WRONG_USAGE: Final = 2
_WHOLE: Final = 1_000
"""Characters of a sentence in a list of commands: more than any has."""


class CommandGroup(TyperGroup):
    """A group whose help lists its commands with whole sentences."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands and what they do; typer cuts that at the width of the terminal."""
        shown = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        lines = [(name, made.get_short_help_str(_WHOLE)) for name, made in shown if made and not made.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(lines)


class Program(CommandGroup):
    """The group of all commands. It prints usage errors as lines without a box, so that their paths can be copied."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the options that stand before the command."""
        with _plain_errors():
            return super().make_context(*args, **options)

    def invoke(self, *args: Any) -> Any:
        """Parse the command and run it."""
        with _plain_errors():
            return super().invoke(*args)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Print a usage error without typer's panel, which breaks long paths, and make what it quotes printable."""
    try:
        yield
    except Exception as error:
        # By its attributes, because typer's usage errors derive from click's or, since 0.25, from a copy of click.
        if not isinstance(message := vars(error).get("message"), str) or not hasattr(error, "format_message"):
            raise
        code = getattr(error.__cause__, "stable_code", None)
        vars(error)["message"] = printable_lines(f"{message} [{code}]" if isinstance(code, str) else message)
        if error.format_message() and hasattr(error, "show"):  # empty where the help was printed instead
            error.show()
        raise typer.Exit(getattr(error, "exit_code", 2)) from error


def run(folder: Iterable[str], package: str) -> None:
    """Run the program; exits 1 with a sentence, not a traceback, when a file or the output cannot be used.

    Args:
        folder: where the commands are: each module without an underscore is one.
        package: the package of that folder.
    """
    _survive_any_character()
    program = built(folder, package, sys.argv[1] if len(sys.argv) > 1 else "")
    try:
        try:
            program()
        finally:
            if (output := _output()) is not None:
                output.flush()  # here, where an error can be reported, and not while the interpreter ends
    except OSError as error:
        _give_up(error)
    except UnicodeEncodeError:
        if (unreadable := next((text for text in sys.argv if not _is_text(text)), None)) is None:
            raise
        print(f"taskpilot-obs: not text in the encoding of this shell: {printable(unreadable)}", file=sys.stderr)
        sys.exit(_WRONG_USAGE)


def built(folder: Iterable[str], package: str, asked: str = "") -> typer.Typer:
    """The program with all its commands, or with the one that is asked for.

    Args:
        folder: where the commands are: each module without an underscore is one.
        package: the package of that folder.
        asked: the first argument. Where it names a module, the others are not imported, because that takes longer than
            most commands.
    """
    program = typer.Typer(
        name="taskpilot-obs",
        cls=Program,
        help="Production observability for LLM agents, in your own process.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # panels cut names of options and long words, and cannot be copied
        pretty_exceptions_enable=False,
    )
    program.callback()(taskpilot_obs)
    names = sorted(module.name for module in iter_modules(folder) if not module.name.startswith("_"))
    wanted = asked.replace("-", "_")
    for name in [wanted] if wanted in names else names:
        add_commands(program, import_module(f"{package}.{name}"))
    return program


def add_commands(program: typer.Typer, module: ModuleType) -> None:
    """Add what a module's `register` adds, or else the function that is named as the module, as one command."""
    register = getattr(module, "register", None)
    if register is not None:
        register(program)
        return
    name = module.__name__.rpartition(".")[2]
    program.command(name=name.replace("_", "-"))(grouped(getattr(module, name)))


def _is_text(argument: str) -> bool:
    """Whether an argument could be decoded: Python keeps the bytes of others as lone surrogates."""
    return argument.isascii() or argument.encode("utf-8", "replace").decode() == argument


def _output() -> TextIO | None:
    """Standard output; None if the parent process closed it."""
    return sys.stdout


def _survive_any_character() -> None:
    """Write characters that the terminal's encoding lacks in others, instead of failing halfway through a table."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=ASCII_SIGNS)


def _print_version(asked: bool) -> None:
    if asked:
        from taskpilot_obs._support.version import library_version

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
    """Print what went wrong, and keep the interpreter from writing the rest of the output again."""
    if error.errno != errno.EPIPE:  # a reader that has seen enough (`| head`) needs no message
        with contextlib.suppress(OSError):
            print(f"taskpilot-obs: {printable(error.strerror or error)}{_where(error)}", file=sys.stderr, flush=True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.exit(CANNOT_WRITE)


def _where(error: OSError) -> str:
    return f": {printable(error.filename)}" if error.filename is not None else ""
