"""`taskpilot-obs token`: who may ask the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs.cli._output import say
from taskpilot_obs.cli._output import show as show_table
from taskpilot_obs.cli._program import CommandGroup
from taskpilot_obs.cli._store_options import explained
from taskpilot_obs.cli._tables import FittedTable, name_column, whole_column
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.server.principal import EVERY_TENANT, ROLES, Role
from taskpilot_obs.server.tokens import create_token, list_tokens, revoke_token

File = Annotated[
    Path, typer.Option("--file", "-f", envvar="TASKPILOT_OBS_TOKENS", help="The token file; made where it is missing.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="token", help="Tokens of the server: create, list, revoke.", no_args_is_help=True, cls=CommandGroup
    )
    group.command(name="create")(create)
    group.command(name="list")(show)
    group.command(name="revoke")(revoke)
    app.add_typer(group)


def create(
    name: Annotated[str, typer.Argument(help="Whose token it is.")],
    *,
    role: Annotated[str, typer.Option(help=f"{', '.join(ROLES)}: read, send, or both.")] = "viewer",
    tenant: Annotated[str, typer.Option(help='The tenant that it sees and writes for; "*" for all.')],
    file: File = Path("tokens.toml"),
) -> None:
    """Make a token and print it, once: the file keeps a digest only."""
    with explained():
        say(create_token(file, name, _role(role), tenant))


def show(*, file: File = Path("tokens.toml")) -> None:
    """List whose tokens there are."""
    with explained():
        found = list_tokens(file)
    lines = [(one.name, one.role, EVERY_TENANT if one.tenant is None else one.tenant) for one in found]
    show_table(
        FittedTable(
            f"{len(lines)} {'token' if len(lines) == 1 else 'tokens'}",
            (name_column("name"), whole_column("role"), name_column("tenant")),
            lines,
        )
    )


def revoke(name: Annotated[str, typer.Argument(help="Whose token.")], *, file: File = Path("tokens.toml")) -> None:
    """Take a token out of the file; a running server refuses it within a second."""
    with explained():
        revoke_token(file, name)


def _role(given: str) -> Role:
    for role in ROLES:
        if role == given:
            return role
    raise ConfigurationError(f"--role: given {given!r}; allowed are {', '.join(ROLES)}")
