"""The command line: one module a command, each one call into the library."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules


def main() -> None:
    """Run `taskpilot-obs`; exits 2 and names the extra when its packages are missing."""
    try:
        import typer
    except ImportError:
        from taskpilot_obs.exceptions import MissingExtraError

        print(MissingExtraError("the command line", "cli"), file=sys.stderr)
        sys.exit(2)
    app = typer.Typer(
        name="taskpilot-obs",
        help="Production observability for LLM agents, in your own process.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for module in sorted(iter_modules(__path__), key=lambda found: found.name):
        if not module.name.startswith("_"):
            import_module(f"{__name__}.{module.name}").register(app)
    app()
