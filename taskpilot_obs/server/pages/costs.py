"""`/costs`: where the money goes, where it is going, and what would be cheaper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final, Literal

from taskpilot_obs._support import figures
from taskpilot_obs._telemetry.filters import column_of
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.server import blocks
from taskpilot_obs.server.pages.groups import over_time, stacked
from taskpilot_obs.server.pages.query import FilteredQuery, filter_fields, link, time_fields
from taskpilot_obs.server.params import PeriodText
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.stats import BenchmarkSummary, CostBreakdown, CostShare, CostSummary
from taskpilot_obs.usage import Usage

TOP: Final = 100
_MODELS: Final = 5
"""How many of the dearest models are compared with others."""
_WORTH: Final = Decimal("0.95")
BY: Final = (("model", "Model"), ("provider", "Provider"), ("agent", "Agent"), ("tenant", "Tenant"))
_PRICES: Final = PriceTable()


class CostsPageQuery(FilteredQuery):
    """Which calls, and by what the money is divided."""

    period: PeriodText = "30d"
    by: Literal["model", "provider", "agent", "tenant"] = "model"


def build(ask: Questions, query: CostsPageQuery) -> blocks.Page:
    """The month so far, spend over time, shares, cheaper models."""
    asked = query.asked()
    month = ask.month(asked)
    spent = ask.breakdown(query.over(ask.now), asked)
    body: list[blocks.Block] = [_month(month)]
    if spent.cost_coverage is not None and spent.cost_coverage < 1:
        unpriced = figures.share(1 - spent.cost_coverage)
        body.append(
            blocks.Notice("warn", f"{unpriced} of calls have no known price; the true cost is higher.", "/benchmarks")
        )
    if spent.requests:
        body.append(_over_time(ask, query))
    body.append(_shares(spent, query))
    cheaper = [*_cheaper(ask, query)]
    if cheaper:
        head = ("model", "cheaper model", "spent", "would have cost", "less")
        columns = [blocks.TableColumn(name, numeric=place > 1) for place, name in enumerate(head)]
        note = "The same tokens at today's list prices; whether the answers are as good, the benchmarks say."
        body.append(blocks.Table("cheaper", "Cheaper models already in use", columns, cheaper, note=note))
    return blocks.Page(
        "Costs",
        "What LLM calls cost, in USD. Calls without a known price are in no sum.",
        body,
        [
            *time_fields(query),
            blocks.FormField("by", "Divided by", query.by, BY),
            *filter_fields(ask, query, "provider", "model", "agent"),
        ],
        link("/v1/costs", **query.times, tenant=query.tenant),
    )


def _month(month: CostSummary) -> blocks.FactList:
    change = month.change_percent
    before = f"{figures.usd(month.previous_to_date_usd)} by this day of last month"
    return blocks.FactList(
        "This month",
        (
            ("Spent", blocks.figure(figures.usd, month.cost_usd)),
            ("Projected at this rate", blocks.figure(figures.usd, month.projected_cost_usd)),
            ("Against last month", blocks.Cell("-" if change is None else f"{change:+.1f} % ({before})", change)),
            ("Calls", blocks.figure(figures.count, month.requests)),
            ("Cost per call", blocks.figure(figures.usd, month.cost_per_request_usd)),
            ("Calls with a known price", blocks.figure(figures.share, month.cost_coverage)),
        ),
    )


def _over_time(ask: Questions, query: CostsPageQuery) -> blocks.Drawing:
    points = ask.spend(query.over(ask.now), column_of(query.by), query.asked())
    series = stacked([point.cost_usd for point in points], float)
    return over_time(points, f"Spend by {query.by}", series, figures.usd)


def _shares(spent: CostBreakdown, query: CostsPageQuery) -> blocks.Table:
    groups: Mapping[str, CostShare] = getattr(spent, f"by_{query.by}")
    items = list(groups.items())
    kept = items if query.table else items[:TOP]
    head = (query.by, "cost", "share", "calls", "cost per call", "priced")
    rows = [
        (
            blocks.text(name, link("/calls", **query.times, **{query.by: name})),
            _cost(part),
            _share(part),
            blocks.figure(figures.count, part.requests),
            blocks.figure(figures.usd, part.cost_per_request_usd),
            blocks.figure(figures.share, part.cost_coverage),
        )
        for name, part in kept
    ]
    note = f"The {TOP} dearest of {len(items):,}; CSV has all." if len(items) > TOP else ""
    cost = figures.known_total(spent.cost_usd, (part.cost_coverage for part in groups.values()))
    return blocks.Table(
        "shares",
        f"{cost} {query.spoken}, by {query.by}",
        [blocks.TableColumn(name, numeric=place > 0) for place, name in enumerate(head)],
        rows,
        empty="No calls in this time: choose a longer period, or take a filter away.",
        note=note,
    )


def _cost(part: CostShare) -> blocks.Cell:
    """What a group cost; unknown where no call has a known price."""
    cost = None if part.cost_coverage == 0 else part.cost_usd
    return blocks.figure(figures.usd, cost)


def _share(part: CostShare) -> blocks.Cell:
    """Which part of the whole that is; unknown as the cost is."""
    percent = None if part.cost_coverage == 0 else part.percent
    return blocks.figure(figures.percent, percent)


def _cheaper(ask: Questions, query: CostsPageQuery) -> Iterator[tuple[blocks.Cell, ...]]:
    lines = ask.summaries_over(query.over(ask.now), "model", query.asked())
    priced = [line for line in lines if line.total_cost and line.model_name and line.cost_coverage == 1]
    for line in sorted(priced, key=lambda line: -(line.total_cost or 0))[:_MODELS]:
        found = [(cost, other) for other in lines if (cost := _cost_with(line, other, ask)) is not None]
        if not found:
            continue
        cost, other = min(found, key=lambda pair: pair[0])
        spent = line.total_cost or Decimal(0)
        if cost < spent * _WORTH:
            less = float(100 * (1 - cost / spent))
            yield (
                blocks.text(line.model_name),
                blocks.text(f"{other.model_name} ({other.provider})"),
                *blocks.figures_in(figures.usd, spent, cost),
                blocks.figure(figures.percent, less),
            )


def _cost_with(line: BenchmarkSummary, other: BenchmarkSummary, ask: Questions) -> Decimal | None:
    """What the tokens of one model would have cost with another, by the price of its average call."""
    if other.model_name is None or other.model_name == line.model_name or not line.total_calls:
        return None
    usage = Usage(line.total_input_tokens // line.total_calls, line.total_output_tokens // line.total_calls)
    found = _PRICES.explain(
        other.model_name, usage, provider=other.provider, at_unix_ns=int(ask.now.timestamp()) * 1_000_000_000
    )
    return None if found is None or found.cost is None else found.cost * line.total_calls
