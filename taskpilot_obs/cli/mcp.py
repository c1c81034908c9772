"""`taskpilot-obs mcp`: the Model Context Protocol server, over standard input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskpilot_obs.cli._store_options import StoreUrl, TokensFile, explained
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError

TOKEN_VARIABLE = "TASKPILOT_OBS_TOKEN"  # noqa: S105  the name of a variable


def mcp(
    *,
    store: StoreUrl = None,
    tokens: TokensFile = None,
    token: Annotated[
        str | None, typer.Option(envvar=TOKEN_VARIABLE, help="Whose answers to give; needs --tokens.")
    ] = None,
    budgets: Annotated[
        list[Path] | None,
        typer.Option(envvar="TASKPILOT_OBS_BUDGETS", help="TOML or YAML file of budgets to tell about."),
    ] = None,
) -> None:
    """Let an agent ask about agents: golden signals, statistics, costs, budgets, calls; read-only, for MCP clients."""
    with explained():
        from taskpilot_obs.budgets import load_budgets
        from taskpilot_obs.server.principal import LOCAL
        from taskpilot_obs.server.running import store_url

        try:
            from taskpilot_obs.server.mcp_server import mcp_server
        except ModuleNotFoundError as error:
            raise MissingExtraError("the MCP server", "mcp") from error
        from taskpilot_obs.server.routers import services_for
        from taskpilot_obs.server.tokens import TokenFile

        principal = LOCAL
        if tokens is not None:
            found = TokenFile(tokens).find(token or "")
            if found is None:
                raise ConfigurationError(f"--token: missing, or not in {str(tokens)!r}; set {TOKEN_VARIABLE}")
            principal = found
        services = services_for(
            store_url(store), budgets=[budget for path in budgets or () for budget in load_budgets(path)]
        )
        mcp_server(services, principal).run("stdio")
