"""`/`: the golden signals, and what is wrong now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taskpilot_obs._support import figures
from taskpilot_obs.golden_signals.assess import wilson
from taskpilot_obs.golden_signals.model import GoldenSignals, SignalEvidence, SignalStatus
from taskpilot_obs.golden_signals.wording import WORDINGS, Wording
from taskpilot_obs.server.blocks import (
    Block,
    Heading,
    Notice,
    Page,
    Signal,
    Signals,
    Table,
    TableColumn,
    figure,
    figures_in,
    text,
)
from taskpilot_obs.server.pages.groups import calls_chart, cost_chart, latency_chart
from taskpilot_obs.server.pages.query import FilteredQuery, filter_fields, link, time_fields
from taskpilot_obs.server.params import Name, PeriodText, SummariesQuery
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.stats import BenchmarkSummary, Stats

_TOP: Final = 8
_NEAR: Final = 0.9
"""Share of a budget from which on it is worth a word."""
_HEALTHY: Final = 95.0
_DAY: Final = "24h"


class OverviewQuery(FilteredQuery):
    """Which part of the past the signals cover."""

    period: PeriodText = "1h"
    workflow: Name | None = None


def build(ask: Questions, query: OverviewQuery) -> Page:
    """Signals, warnings, and the last 24 hours."""
    period = query.over(ask.now)
    signals = ask.signals(period, query.workflow, query.tenant)
    before = ask.signals_before(period, query.workflow, query.tenant)
    asked = query.asked()
    drawn = _DAY if query.start is None else period
    day = ask.stats(drawn, asked)
    blocks: list[Block] = []
    if not signals.runs.total and not day.requests:
        blocks += _empty(ask)
    blocks.append(_signals(signals, before, query))
    blocks.append(Heading("What needs attention"))
    blocks += [*_wrong_now(ask, day)] or [Notice("ok", "Nothing is wrong: budgets, prices and providers.")]
    if day.requests:
        blocks.append(Heading("The last 24 hours" if query.start is None else query.spoken.capitalize()))
        points = ask.series(drawn, asked)
        by_model = [point.by_model for point in points]
        blocks += [calls_chart(points), cost_chart(points, by_model, "Spend by model"), latency_chart(points)]
        blocks.append(_models(ask.summaries(SummariesQuery(tenant=query.tenant)), query.tenant))
    return Page(
        "Overview",
        "How the agents are doing: the golden signals, and what needs attention.",
        blocks,
        [*time_fields(query), *filter_fields(ask, query, "workflow")],
        link("/v1/golden-signals", **query.times, workflow=query.workflow, tenant=query.tenant),
    )


def _empty(ask: Questions) -> list[Block]:
    code = (
        f'configure(store="{"sqlite:///telemetry.db" if ask.services.store.is_sqlite else "postgresql+psycopg://…"}")'
    )
    return [
        Notice("", "The store has nothing of the last 24 hours. Applications write to it when they call", code=code)
    ]


def _signals(now: GoldenSignals, before: GoldenSignals, query: OverviewQuery) -> Signals:
    earlier = f"in the {query.period} before" if query.start is None else "in as long a time before"
    items = [_signal(wording, now, before, earlier) for wording in WORDINGS]
    runs = f"{now.runs.total:,.0f} task{'' if now.runs.total == 1 else 's'} {query.spoken}"
    return Signals(f"Golden signals, {runs}", now.status.value, items, now.notes)


def _signal(wording: Wording, now: GoldenSignals, before: GoldenSignals, earlier: str) -> Signal:
    figure, evidence = getattr(now, wording.field), now.evidence.get(wording.field)
    return Signal(
        wording.title,
        wording.figure(figure),
        (SignalStatus.INSUFFICIENT_DATA if evidence is None else evidence.status).value,
        _evidence(wording.field, evidence),
        _trend(wording, figure, getattr(before, wording.field), earlier),
    )


def _evidence(name: str, evidence: SignalEvidence | None) -> str:
    if evidence is None or not evidence.denominator:
        return "no evidence"
    if evidence.numerator is None:
        return f"of {evidence.denominator:,.0f} tasks"
    part = figures.usd(evidence.numerator) if name.endswith("_usd") else figures.count(evidence.numerator)
    interval = evidence.interval
    ends = "" if interval is None else f", 95 % interval {interval.low:.1f} to {interval.high:.1f} %"
    return f"{part} of {evidence.denominator:,.0f}{ends}"


def _trend(wording: Wording, now: float | None, before: float | None, earlier: str) -> str:
    if now is None or before is None:
        return ""
    change = now - before
    if not round(change, 4):
        return f"as {earlier}"
    return f"{'up' if change > 0 else 'down'} from {wording.figure(before)} {earlier}"


def _wrong_now(ask: Questions, day: Stats) -> Iterator[Notice]:
    for status in ask.budgets():
        whose = f"{status.budget} {status.scope_key}".strip()
        if status.used_ratio >= _NEAR:
            tone = "bad" if status.used_ratio >= 1 else "warn"
            yield Notice(tone, f"Budget {whose}: {figures.share(status.used_ratio)} used", "/budgets")
        elif status.projected is not None and status.projected > status.limit:
            yield Notice("warn", f"Budget {whose}: at this rate its {status.period} ends over its limit", "/budgets")
    if day.cost_coverage is not None and day.cost_coverage < 1:
        parts = sorted(day.by_model.items(), key=lambda item: item[1].cost_coverage or 0.0)
        names = [name for name, part in parts if (part.cost_coverage or 0.0) < 1]
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004
        yield Notice("warn", f"{figures.share(1 - day.cost_coverage)} of calls have no known price: {listed}", "/costs")
    for name, part in day.by_provider.items():
        counted = part.successes + part.failures
        if counted and wilson(part.successes, counted).high < _HEALTHY:
            rate = figures.percent(part.success_rate)
            yield Notice(
                "bad", f"Provider {name}: {rate} of calls succeed", link("/calls", provider=name, status="error")
            )


def _models(lines: tuple[BenchmarkSummary, ...], tenant: str | None) -> Table:
    head = ("model", "provider", "calls", "success", "p95", "cost", "cost per call")
    rows = [
        (
            text(line.model_name, link("/calls", model=line.model_name, provider=line.provider, tenant=tenant)),
            text(line.provider),
            figure(figures.count, line.total_calls),
            figure(figures.percent, line.success_rate),
            figure(figures.ms, line.p95_latency_ms),
            *figures_in(figures.usd, line.total_cost, line.avg_cost),
        )
        for line in lines[:_TOP]
    ]
    columns = [TableColumn(name, numeric=place > 1) for place, name in enumerate(head)]
    note = f"The {_TOP} with most calls of {len(lines)}; see Benchmarks." if len(lines) > _TOP else ""
    return Table("models", "Models, 30 days", columns, rows, note=note)
