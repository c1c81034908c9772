"""`taskpilot-obs aggregate`: sum up hours and days, and delete old rows; for cron."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from taskpilot_obs.cli._output import print_json, say, working
from taskpilot_obs.cli._store_options import AsJson, StoreUrl, explained

SummaryPeriod = Annotated[str, typer.Option("--period", help="hourly, or daily (which sums up the hours first).")]
Lookback = Annotated[
    float | None, typer.Option("--lookback-hours", help="How far back to look for hours that changed.  [default: all]")
]
RetentionDays = Annotated[
    float | None, typer.Option("--retention-days", help="Then delete rows older than this; summaries stay.")
]
Retention = Annotated[
    list[str] | None,
    typer.Option("--retention", help="The same for one table, as in agent_runs=90; may be given several times."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count what would be deleted, and change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="aggregate")(aggregate)


def aggregate(
    *,
    store: StoreUrl = None,
    period: SummaryPeriod = "daily",
    lookback_hours: Lookback = None,
    retention_days: RetentionDays = None,
    retention: Retention = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Sum up what changed since the last time, and delete old rows. Any number of processes may do it at once."""
    with explained():
        from taskpilot_obs.store import aggregate_summaries, prune

        ages = _ages(retention_days, retention or [])
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


def _ages(days: float | None, by_table: list[str]) -> dict[str, float]:
    """How many days each table is kept.

    Raises:
        ConfigurationError: a table, or a number of days, cannot be read.
    """
    from taskpilot_obs.exceptions import ConfigurationError
    from taskpilot_obs.store.retention import checked_retention

    ages = checked_retention(days)
    for given in by_table:
        name, _, number = given.partition("=")
        try:
            ages[name] = float(number)
        except ValueError as error:
            raise ConfigurationError(f"--retention: given {given!r}; write TABLE=DAYS, as in agent_runs=90") from error
    return checked_retention(ages)
