"""`taskpilot-obs calls`: single LLM calls, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from taskpilot_obs._support.figures import count, ms, usd
from taskpilot_obs.cli import _store_options as options
from taskpilot_obs.cli._output import show
from taskpilot_obs.cli._tables import FittedTable, figure_columns, name_column, whole_column

if TYPE_CHECKING:
    from taskpilot_obs.stats import Call


_COLUMNS = (
    whole_column("ended (UTC)"),
    name_column("model", least=6),
    whole_column("status"),
    name_column("agent", rank=3),
    *figure_columns({"tokens": 2, "cost": 0, "took": 1}),
    whole_column("request"),
)
_FIGURES = (
    *("created_at", "request_id", "provider", "model_name", "status", "error_type", "agent", "workflow"),
    *("organization_id", "user_id", "input_tokens", "output_tokens", "cost", "cost_source", "latency_ms"),
)


def calls(
    *,
    span: options.Span = options.OF_A_DAY,
    dimensions: options.Dimensions = options.ANYONE,
    status: Annotated[str | None, typer.Option(help="Only calls that ended like this: error, timeout, …")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Most calls to list.")] = 50,
    form: options.OutputFormat = options.TABLE,
) -> None:
    """Print single LLM calls, newest first, with the request that each belongs to."""
    with options.explained():
        from taskpilot_obs.stats import get_calls

        exact = {} if status is None else {"status": status}
        found = get_calls(
            span.asked, store=span.store, limit=limit, exact=exact, **options.asked_by(None, **dimensions.filters())
        )
    lines = (tuple(getattr(call, name) for name in _FIGURES) for call in found.calls)
    if not form.printed(found, _FIGURES, lines):
        title = f"{len(found.calls)} calls" + (", more with --limit" if found.next is not None else "")
        show(FittedTable(title, _COLUMNS, map(_row, found.calls), more="--csv"))


def _row(call: Call) -> tuple[str, ...]:
    tokens = None if call.input_tokens is None else call.input_tokens + (call.output_tokens or 0)
    return (
        f"{call.created_at:%m-%d %H:%M:%S}",
        call.model_name or "-",
        call.status,
        call.agent or "-",
        "-" if tokens is None else count(tokens),
        "-" if call.cost is None else usd(call.cost),
        ms(call.latency_ms),
        call.request_id,
    )
