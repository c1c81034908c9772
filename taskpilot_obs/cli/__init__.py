"""The command line: one module a command, each one call into the library."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `taskpilot-obs`; exits 2 and names the extra when its packages are missing."""
    try:
        import typer  # noqa: F401  whether it is there
    except ImportError:
        from taskpilot_obs.exceptions import MissingExtraError

        print(MissingExtraError("the command line", "cli"), file=sys.stderr)
        sys.exit(2)
    from taskpilot_obs.cli._program import run

    run(__path__, __name__)
