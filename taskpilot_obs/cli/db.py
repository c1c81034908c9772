"""`taskpilot-obs db`: the version of a telemetry store's tables."""

from __future__ import annotations

import typer

from taskpilot_obs.cli._output import say, working
from taskpilot_obs.cli._store_options import StoreUrl, explained

NOT_CURRENT = 1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(help="Create and upgrade the tables of a telemetry store.", no_args_is_help=True)
    commands.command(name="upgrade")(upgrade_tables)
    commands.command(name="current")(current)
    commands.command(name="check")(check)
    app.add_typer(commands, name="db")


def upgrade_tables(store: StoreUrl = None) -> None:
    """Bring the tables to the version of this code. PostgreSQL needs it once; a SQLite file does it by itself."""
    with explained():
        from taskpilot_obs.store import upgrade
        from taskpilot_obs.store.access import opened

        with opened(store, create=True, any_version=True) as opened_store:
            with working("upgrading the tables"):
                upgrade(opened_store)
            say(f"{opened_store}: version {opened_store.version()}")


def current(store: StoreUrl = None) -> None:
    """Print the version of the tables."""
    with explained():
        from taskpilot_obs.store.access import opened

        with opened(store, any_version=True) as opened_store:
            say(opened_store.version() or "no tables")


def check(store: StoreUrl = None) -> None:
    """Say whether the tables are those that this code expects. Exit code: 0 they are, 1 they are not."""
    with explained():
        from taskpilot_obs.store.access import opened
        from taskpilot_obs.store.engine import REVISIONS, differences

        with opened(store, any_version=True) as opened_store:
            version = opened_store.version()
            wrong = differences(opened_store) if version == REVISIONS[-1] else []
    for difference in wrong:
        say(difference)
    if version != REVISIONS[-1]:
        say(f"version {version}, this code needs {REVISIONS[-1]}: run `taskpilot-obs db upgrade`")
    if wrong or version != REVISIONS[-1]:
        raise typer.Exit(NOT_CURRENT)
    say(f"version {version}, as expected")
