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
Retention = Annotated[
    float | None, typer.Option("--retention-days", help="Then delete rows older than this; summaries stay.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="aggregate")(aggregate)


def aggregate(
    *,
    store: StoreUrl = None,
    period: SummaryPeriod = "daily",
    lookback_hours: Lookback = None,
    retention_days: Retention = None,
    as_json: AsJson = False,
) -> None:
    """Sum up what changed since the last time. Any number of processes may do it at once."""
    with explained():
        from taskpilot_obs.store import aggregate_summaries, prune

        with working("summing up hours and days"):
            done = aggregate_summaries(period, lookback_hours, store=store)  # type: ignore[arg-type]  # it refuses others
        with working("deleting old rows"):
            deleted = {} if retention_days is None else prune(retention_days, store=store)
    if as_json:
        print_json(json.dumps({"summed_up": done, "deleted": deleted}))
        return
    say(f"{done} hours and days summed up")
    for name, rows in deleted.items():
        say(f"{rows} rows of {name} deleted")
