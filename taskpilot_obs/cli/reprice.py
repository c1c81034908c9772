"""`taskpilot-obs reprice`: what the recorded usage would have cost at other prices."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskpilot_obs._support.figures import count, usd
from taskpilot_obs.cli import _store_options as options
from taskpilot_obs.cli._output import say, show
from taskpilot_obs.cli._tables import FittedTable, figure_columns, name_column

if TYPE_CHECKING:
    from taskpilot_obs.compare.repricing import Repriced, RepricedGroup


def reprice(  # noqa: PLR0913  a command line has as many options as it has
    *,
    store: options.StoreUrl = None,
    since: Annotated[
        str, typer.Option("--since", "--period", help="How far back to look: 1h, 24h, 30d; or today, 2026-11.")
    ] = "30d",
    as_model: Annotated[str | None, typer.Option(help="Price every call as this model.")] = None,
    at: Annotated[str | None, typer.Option(help="At the prices of this day, such as 2026-01-31.")] = None,
    prices: Annotated[list[Path] | None, typer.Option(help="A file of own prices, such as a contract's.")] = None,
    by: Annotated[str, typer.Option(help="agent, tenant, prompt, model, provider, workflow or user.")] = "agent",
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Write the cost of calls that were unpriced; a booked cost is never changed."),
    ] = False,
    dimensions: options.Dimensions = options.ANYONE,
    prompt: options.Prompt = None,
    form: options.OutputFormat = options.TABLE,
) -> None:
    """Print what the recorded usage would have cost at another model's, day's or contract's prices."""
    with options.explained():
        from taskpilot_obs.compare.repricing import reprice as ask

        asked = options.asked_by(None, **dimensions.filters(), prompt_name=prompt)
        found = ask(since, prices=prices, as_model=as_model, at=_day(at), by=by, apply=apply, store=store, **asked)  # type: ignore[arg-type]  # it checks `by`
    lines = (_values(group) for group in found.groups)
    if not form.printed(found, (found.by, *_FIELDS), lines):
        _show(found)


_FIELDS = ("calls", "booked_usd", "unbooked_calls", "repriced_usd", "unknown_calls", "difference_usd")


def _day(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"given {text!r}; write a day, such as 2026-01-31", param_hint="--at") from None
    return day if day.tzinfo is not None else day.replace(tzinfo=UTC)


def _values(group: RepricedGroup) -> tuple[object, ...]:
    return (group.name, *(getattr(group, name) for name in _FIELDS))


def _show(found: Repriced) -> None:
    columns = (
        name_column(found.by),
        *figure_columns({"calls": 1, "booked": 0, "repriced": 0, "difference": 0, "unbooked": 3, "unknown": 2}),
    )
    told = f" as {found.as_model}" if found.as_model else ""
    show(FittedTable(f"Recorded usage{told}", columns, map(_cells, (*found.groups, found.total)), more="--json"))
    if found.total.unknown_calls:
        say(f"{found.total.unknown_calls:,} calls have no cost at these prices; they are in no sum of repriced")
    if found.total.unbooked_calls and not found.applied:
        say(f"{found.total.unbooked_calls:,} calls have no booked cost; --apply writes those that have a price now")
    if found.applied:
        say(f"the cost of {found.applied:,} calls was written; `taskpilot-obs aggregate` brings it into the summaries")
    if found.as_model:
        say("another model's tokenizer may count the same text differently")


def _cells(group: RepricedGroup) -> tuple[object, ...]:
    return (
        group.name,
        count(group.calls),
        *map(usd, (group.booked_usd, group.repriced_usd, group.difference_usd)),
        *map(count, (group.unbooked_calls, group.unknown_calls)),
    )
