"""`/calls`: single LLM calls, newest first."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from pydantic import Field as Option

from taskpilot_obs._support import figures
from taskpilot_obs.records import Status
from taskpilot_obs.server import cursors
from taskpilot_obs.server.blocks import Cell, FormField, Page, Table, TableColumn, figure, figures_in, moment, text
from taskpilot_obs.server.pages.query import FilteredQuery, filter_fields, link, time_fields
from taskpilot_obs.server.params import Name, PeriodText
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.stats import Call

ROWS: Final = 50
CSV_ROWS: Final = 1_000
TONES: Final = {"success": "ok", "error": "bad", "timeout": "bad", "blocked": "warn"}
_STATUSES: Final = (("", "any"), *((status.value, status.value) for status in Status))


class CallsQuery(FilteredQuery):
    """Which calls, and from where on."""

    period: PeriodText = Option("7d")
    status: Status | None = None
    request_id: Name | None = None
    min_cost: Name | None = Option(None, description="In USD.")
    next: Name | None = Option(None, alias="_next", max_length=cursors.LONGEST)

    def narrowing(self) -> dict[str, object]:
        """What a cursor belongs to."""
        return self.model_dump(exclude={"next", "table"}, exclude_none=True)


def build(ask: Questions, query: CallsQuery) -> Page:
    """One page of calls."""
    after = None if query.next is None else cursors.decode(query.next, query.narrowing())
    named = {"status": query.status, "request_id": query.request_id}
    page = ask.calls_over(
        query.over(ask.now),
        query.asked(),
        after=after,
        limit=CSV_ROWS if query.table else ROWS,
        min_cost=query.min_cost,
        exact={name: str(value) for name, value in named.items() if value is not None},
    )
    older = None
    if page.next is not None:
        older = link("/calls", **query.narrowing(), _next=cursors.encode(page.next, query.narrowing()))
    return Page(
        "Calls",
        "Single LLM calls, newest first. A call leads to everything of its request.",
        [_table([*page.calls], older, query)],
        [
            *time_fields(query),
            FormField("status", "Status", str(query.status or ""), _STATUSES),
            *filter_fields(
                ask, query, "provider", "model", "agent", "workflow", "prompt_name", "user", "request_id", "min_cost"
            ),
        ],
        link("/v1/benchmarks/traces", limit=ROWS, tenant=query.tenant, **query.dates()),
    )


def _table(calls: list[Call], older: str | None, query: CallsQuery) -> Table:
    head = (
        *("time", "request", "status", "model", "provider", "agent", "workflow", "tenant"),
        *("latency", "first token", "tokens in", "tokens out", "cost", "error"),
    )
    texts = {"time", "request", "status", "model", "provider", "agent", "workflow", "tenant", "error"}
    return Table(
        "calls",
        f"LLM calls {query.spoken}",
        [TableColumn(name, numeric=name not in texts) for name in head],
        [_row(call) for call in calls],
        empty="No call matches: choose a longer period, or take a filter away.",
        older=older,
    )


def _row(call: Call) -> list[Cell]:
    return [
        moment(call.created_at),
        text(call.request_id, f"/requests/{quote(call.request_id, safe='')}"),
        Cell(call.status, call.status, tone=TONES.get(call.status, "none")),
        text(call.model_name),
        text(call.provider),
        text(call.agent),
        text(call.workflow),
        text(call.organization_id),
        *figures_in(figures.ms, call.latency_ms, call.time_to_first_token_ms),
        *figures_in(figures.count, call.input_tokens, call.output_tokens),
        figure(figures.usd, call.cost),
        text(call.error_category or call.error_type),
    ]
