"""`/budgets`: where budgets stand, with their projection."""

from __future__ import annotations

from decimal import Decimal

from markupsafe import Markup

from taskpilot_obs._support import figures
from taskpilot_obs._support.charts import Bar, row_bar
from taskpilot_obs.budgets.status import BudgetStatus
from taskpilot_obs.server.blocks import Block, Cell, Notice, Page, Table, TableColumn, figure, moment, text
from taskpilot_obs.server.pages.query import PageQuery
from taskpilot_obs.server.questions import Questions

TOP = 200
_NEAR = 0.9


class BudgetsQuery(PageQuery):
    """All budgets are shown."""


def build(ask: Questions, query: BudgetsQuery) -> Page:
    """One line for each budget, or for each tenant, user, … that has one."""
    found = sorted(ask.budgets(), key=lambda status: -status.used_ratio)
    blocks: list[Block] = []
    if not found:
        code = "taskpilot-obs serve --budgets budgets.toml"
        blocks.append(Notice("", "No budget is configured here. Start the server with a file of budgets:", code=code))
    else:
        blocks.append(_table(found, whole=query.table is not None))
    return Page(
        "Budgets", "Limits, what is used of them, and where their periods end at this rate.", blocks, rest="/v1/budgets"
    )


def _table(found: list[BudgetStatus], *, whole: bool) -> Table:
    head = ("budget", "for", "period", "action", "used", "of limit", "limit", "left", "projected", "refused", "resets")
    texts = {"budget", "for", "period", "action", "of limit", "resets"}
    columns = [TableColumn(name, numeric=name not in texts, drawn=name == "of limit") for name in head]
    note = f"The {TOP} fullest of {len(found):,}; CSV has all." if len(found) > TOP else ""
    rows = [_row(status) for status in (found if whole else found[:TOP])]
    return Table("budgets", f"{len(found):,} budget{'' if len(found) == 1 else 's'}", columns, rows, note=note)


def _row(status: BudgetStatus) -> list[Cell]:
    used = figures.share(status.used_ratio)
    colour = 1 if status.used_ratio >= 1 else 4 if status.used_ratio >= _NEAR else 0
    bar = row_bar(Bar(status.budget, status.used_ratio), 1.0, figures.share, colour)
    over = status.projected is not None and status.projected > status.limit
    tone = "bad" if status.used_ratio >= 1 else "warn" if status.used_ratio >= _NEAR else "ok"
    return [
        text(status.budget),
        text(status.scope_key or "everyone"),
        text(status.period),
        text(status.action),
        Cell(used, status.used_ratio, tone=tone),
        Cell("", drawing=Markup(bar)),  # noqa: S704  `row_bar` escapes
        _amount(status, status.limit),
        _amount(status, status.left),
        _amount(status, status.projected, "warn" if over else ""),
        figure(figures.count, status.refusals),
        moment(status.resets_at),
    ]


def _amount(status: BudgetStatus, amount: Decimal | None, tone: str = "") -> Cell:
    if status.unit == "usd":
        return figure(figures.usd, amount, tone=tone)
    return Cell("-" if amount is None else f"{figures.count(float(amount))} tokens", amount, tone=tone)
