"""`taskpilot-obs compare`: groups of calls side by side, or the variants of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from taskpilot_obs._support.figures import UNKNOWN, count, ms, percent, share, usd
from taskpilot_obs.cli._output import complain, print_json, say, show
from taskpilot_obs.cli._store_options import (
    AsJson,
    Period,
    StoreUrl,
    Tenant,
    Where,
    asked_by,
    explained,
    say_incomplete,
)
from taskpilot_obs.cli._tables import Column, FittedTable, figure_columns, name_column

if TYPE_CHECKING:
    from taskpilot_obs.compare import Arm, ComparedGroup, Comparison, Effect, VariantsReport
    from taskpilot_obs.stats.asking import Asked

BROKEN = 3
_SECONDARY = ("cost", "p95", "correctness")


def compare(  # noqa: PLR0913  a command line has as many options as it has
    *,
    by: Annotated[str, typer.Option(help="model, provider, prompt_name, agent, variant or period.")] = "model",
    within: Annotated[str | None, typer.Option(help="The work that must be the same: prompt_name or agent.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Compare the variants of this experiment instead.")] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(help="VARIANT=SHARE as it was planned, the control first; equal shares by default."),
    ] = None,
    primary: Annotated[
        str, typer.Option(help="The measure that decides: success, cost, p95, correctness, …")
    ] = "success",
    guardrail: Annotated[
        list[str] | None,
        typer.Option(help="MEASURE=LIMIT, such as cost=0.2: exit 3 if a variant is worse by more, for cron."),
    ] = None,
    store: StoreUrl = None,
    period: Period = "30d",
    against: Annotated[
        str | None,
        typer.Option(help="With --by period: the other one: 2026-10.  [default: just before]"),
    ] = None,
    tenant: Tenant = None,
    where: Where = None,
    as_json: AsJson = False,
) -> None:
    """Compare models, providers, prompts, agents or periods, or the variants of an experiment, and what is certain."""
    if guardrail and experiment is None:
        raise typer.BadParameter("--guardrail belongs to --experiment; give its name")
    if experiment is not None and (where or against):
        raise typer.BadParameter("--where and --against do not belong to --experiment; leave them out")
    with explained():
        limits = _limits(guardrail or [])
        found = (
            _groups(by, within, (period, against), store, asked_by(where, tenant_id=tenant))
            if experiment is None
            else _variants(experiment, share, _measures(primary, limits), period, store, tenant)
        )
    if as_json:
        print_json(found.model_dump_json(indent=2))
    elif experiment is None:
        _show_groups(found)  # type: ignore[arg-type]  # which of the two it is follows from the option
    else:
        _show_variants(found)  # type: ignore[arg-type]  # likewise
    if limits:
        _alarm(found, limits)  # type: ignore[arg-type]  # guardrails belong to experiments


def _groups(
    by: str, within: str | None, periods: tuple[str, str | None], store: str | None, asked: Asked
) -> Comparison:
    from taskpilot_obs.compare import compare as ask

    period, against = periods
    return ask(by, period, within=within, against=against, store=store, **asked)  # type: ignore[arg-type]  # it checks


def _variants(
    name: str, shares: list[str] | None, measures: list[str], period: str, store: str | None, tenant: str | None
) -> VariantsReport:
    from taskpilot_obs.compare import compare_variants

    planned = dict(map(_share, shares)) if shares else None
    return compare_variants(
        name,
        period,
        shares=planned,
        primary=measures[0],  # type: ignore[arg-type]  # it checks them
        secondary=measures[1:],  # type: ignore[arg-type]  # likewise
        tenant_id=tenant,
        store=store,
    )


def _measures(primary: str, limits: dict[str, float]) -> list[str]:
    """The measure that decides, and those beside it."""
    return [*dict.fromkeys((primary, *_SECONDARY, *limits))]


def _limits(given: list[str]) -> dict[str, float]:
    """The guardrails that were given."""
    if not given:
        return {}
    from taskpilot_obs.compare.guardrails import checked_guardrails

    return checked_guardrails(dict(map(_share, given)))


def _alarm(found: VariantsReport, limits: dict[str, float]) -> None:
    """Exit 3 where a guardrail is broken."""
    from taskpilot_obs.compare.guardrails import broken

    alerts = broken(found, limits)
    for alert in alerts:
        complain(alert.sentence)
    if alerts:
        raise typer.Exit(BROKEN)


def _share(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise typer.BadParameter(f"given {text!r}; write NAME=NUMBER, such as v2=0.5 or cost=0.2") from None


def _show_groups(found: Comparison) -> None:
    columns = (
        name_column(found.by),
        *figure_columns(
            {
                "rank": 0,
                "requests": 0,
                "success": 0,
                "p50": 2,
                "p95": 0,
                "first token": 3,
                "per call": 0,
                "per success": 1,
                "per correct": 3,
                "priced": 2,
            }
        ),
    )
    show(FittedTable(f"LLM calls by {found.by}", columns, map(_group_cells, found.groups)))
    unranked = [group.name for group in found.groups if group.not_comparable]
    if unranked:
        say(f"not ranked, because no other group did the same work ({found.within}): {', '.join(unranked[:5])}")
    say_incomplete(found.incomplete_before)


def _group_cells(group: ComparedGroup) -> tuple[object, ...]:
    between = group.success_interval
    rate = percent(group.success_rate)
    success = rate if between is None else f"{rate} ({between.low:.1f} to {between.high:.1f})"
    return (
        group.name,
        UNKNOWN if group.rank is None else group.rank,
        count(group.requests),
        success,
        ms(group.p50_ms),
        ms(group.p95_ms),
        ms(group.first_token_p50_ms),
        usd(group.cost_per_call_usd),
        usd(group.cost_per_success_usd),
        usd(group.cost_per_correct_usd),
        share(group.cost_coverage),
    )


def _show_variants(found: VariantsReport) -> None:
    arms = (
        name_column("variant"),
        *figure_columns({"units": 0, "tasks": 0, "success": 0, "per task": 0, "p95": 0, "correct": 1}),
    )
    show(FittedTable(f"Variants of {found.experiment}", arms, map(_arm_cells, found.arms)))
    effects = (
        name_column("measure"),
        name_column("variant"),
        Column("difference"),
        Column("between"),
        name_column("verdict"),
    )
    lines = [(effect.measure, effect.variant, *_effect_cells(effect)) for effect in found.effects]
    if lines:
        show(FittedTable(f"Differences from {found.control}", effects, lines))
    say(found.conclusion)
    say_incomplete(found.incomplete_before)


def _arm_cells(arm: Arm) -> tuple[object, ...]:
    return (
        arm.variant,
        count(arm.units),
        count(arm.tasks),
        share(arm.success),
        usd(arm.cost),
        ms(arm.p95),
        share(arm.correctness),
    )


def _effect_cells(effect: Effect) -> tuple[object, ...]:
    if effect.difference is None:
        return (UNKNOWN, UNKNOWN, effect.verdict)
    between = UNKNOWN if effect.low is None or effect.high is None else f"{effect.low:.4g} to {effect.high:.4g}"
    return (f"{effect.difference:+.4g}", between, effect.verdict)
