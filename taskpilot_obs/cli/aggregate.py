"""`taskpilot-obs aggregate`: sum up hours and days, and delete old rows; for cron."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from taskpilot_obs.cli._output import print_json, say, working
from taskpilot_obs.cli._store_options import AsJson, StoreUrl, explained
from taskpilot_obs.exceptions import ConfigurationError


@dataclass(frozen=True)
class Ages:
    """How many days rows are kept."""

    retention_days: Annotated[float | None, typer.Option(help="Then delete rows older than this; summaries stay.")] = (
        None
    )
    retention: Annotated[
        list[str] | None,
        typer.Option(help="How many days the rows of one table stay, as in agent_runs=90; may be given several times."),
    ] = None

    def by_table(self) -> dict[str, float]:
        """The days of each table that has a limit.

        Raises:
            ConfigurationError: a table, or a number of days, cannot be read.
        """
        from taskpilot_obs.store.retention import checked_retention

        ages = checked_retention(self.retention_days)
        for given in self.retention or ():
            name, _, number = given.partition("=")
            try:
                ages[name] = float(number)
            except ValueError as error:
                raise ConfigurationError(
                    f"--retention: given {given!r}; write TABLE=DAYS, as in agent_runs=90"
                ) from error
        return checked_retention(ages)


FOREVER: Final = Ages()


def aggregate(
    *,
    store: StoreUrl = None,
    period: Annotated[str, typer.Option(help="hourly, or daily (which sums up the hours first).")] = "daily",
    lookback_hours: Annotated[
        float | None,
        typer.Option(help="How far back to look for hours that changed.  [default: all]"),
    ] = None,
    kept: Ages = FOREVER,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be deleted, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Sum up what changed since the last time, and delete old rows. Any number of processes may do it at once."""
    with explained():
        from taskpilot_obs.store import aggregate_summaries, prune

        ages = kept.by_table()
        done = 0
        if not dry_run:
            with working("summing up hours and days"):
                done = aggregate_summaries(period, lookback_hours, store=store)  # type: ignore[arg-type]  # it refuses others
        with working("deleting old rows"):
            deleted = prune(ages, store=store, dry_run=dry_run) if ages else {}
    if as_json:
        print_json(json.dumps({"summed_up": done, "deleted": deleted, "dry_run": dry_run}))
        return
    if not dry_run:
        say(f"{done} hours and days summed up")
    for name, rows in deleted.items():
        say(f"{rows} rows of {name} {'would be deleted' if dry_run else 'deleted'}")
