"""`taskpilot-obs db`: the version of a telemetry store's tables."""

from __future__ import annotations

from typing import Annotated

import typer

from taskpilot_obs.cli._output import say, working
from taskpilot_obs.cli._program import CommandGroup
from taskpilot_obs.cli._store_options import StoreUrl, explained

NOT_CURRENT = 1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        help="Create and upgrade the tables of a telemetry store.", no_args_is_help=True, cls=CommandGroup
    )
    commands.command(name="upgrade")(upgrade_tables)
    commands.command(name="current")(current)
    commands.command(name="check")(check)
    commands.command(name="downgrade")(downgrade_tables)
    commands.command(name="partition")(partition_tables)
    commands.command(name="repair")(repair_marks)
    commands.command(name="rebuild-summaries")(rebuild)
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


Version = Annotated[str, typer.Argument(help="The version to go to.")]


def downgrade_tables(version: Version, store: StoreUrl = None) -> None:
    """Take the tables back to an older version, before older code is installed. Rows and sums are kept."""
    with explained():
        from taskpilot_obs.store import downgrade
        from taskpilot_obs.store.access import opened

        with opened(store, any_version=True) as opened_store:
            with working("taking the tables back"):
                downgrade(opened_store, version)
            say(f"{opened_store}: version {opened_store.version()}")


Abandon = Annotated[
    bool, typer.Option("--abandon", help="Give up a run that was interrupted, and drop what it has copied.")
]


def partition_tables(store: StoreUrl = None, *, abandon: Abandon = False) -> None:
    """Put monthly partitions under the big tables of PostgreSQL, while they are used. An interrupted run goes on."""
    with explained():
        from taskpilot_obs.store import partitioning

        if abandon:
            partitioning.abandon(store=store)
            say("no table is being copied")
            return
        with working("copying the tables into partitions"):
            months = partitioning.partition(store=store)
    for table, amount in months.items():
        say(f"{table}: {amount} monthly partitions")


def repair_marks(store: StoreUrl = None) -> None:
    """Undo marks of deleted rows that a fast clock set too late, so that new rows count again."""
    with explained():
        from taskpilot_obs.store import aggregate_summaries, repair

        with working("looking at the marks"):
            done = repair(store=store)
        for each in done:
            say(f"{each.table}: deleted before {each.was:%Y-%m-%d %H:%M} UTC, now before {each.now:%Y-%m-%d %H:%M} UTC")
        if done:
            with working("summing up hours and days"):
                aggregate_summaries("daily", None, store=store)
        else:
            say("no mark is beyond the rows that are there")


def rebuild(store: StoreUrl = None) -> None:
    """Sum up again every hour whose rows are there: after rows were deleted or changed by hand."""
    with explained():
        from taskpilot_obs.store import rebuild_summaries

        with working("summing up hours and days"):
            done = rebuild_summaries(store=store)
        say(f"{done} hours and days summed up")


def check(store: StoreUrl = None) -> None:
    """Say whether the tables are those that this code expects. Exit code: 0 they are, 1 they are not."""
    with explained():
        from taskpilot_obs.store.access import opened
        from taskpilot_obs.store.differences import differences
        from taskpilot_obs.store.versions import REVISIONS

        with opened(store, any_version=True) as opened_store:
            version = opened_store.version()
            wrong = differences(opened_store) if opened_store.is_current else []
            is_current = opened_store.is_current
    for difference in wrong:
        say(difference)
    if not is_current:
        say(f"version {version}, this code needs {REVISIONS[-1]}: run `taskpilot-obs db upgrade`")
    if wrong or not is_current:
        raise typer.Exit(NOT_CURRENT)
    say(f"version {version}, as expected")
