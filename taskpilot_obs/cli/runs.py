"""`taskpilot-obs runs REQUEST_ID`: everything of one request, as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from taskpilot_obs._support.figures import at_least, ms, usd
from taskpilot_obs.cli._output import complain, print_json, show
from taskpilot_obs.cli._store_options import AsJson, StoreUrl, Tenant, explained
from taskpilot_obs.cli._tables import Column, FittedTable, name_column, whole_column

if TYPE_CHECKING:
    from taskpilot_obs.stats import RunTree, Step

RequestId = Annotated[str, typer.Argument(help="The request, as log lines, spans and `calls` name it.")]
_COLUMNS = (
    name_column("what", least=30),
    whole_column("status"),
    Column("took"),
    Column("cost"),
    name_column("error", rank=1),
)


def runs(request_id: RequestId, *, store: StoreUrl = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Print the runs and LLM calls of one request as a tree. Exits 1 where the store holds nothing of it."""
    with explained():
        from taskpilot_obs.stats import get_run_tree

        found = get_run_tree(request_id, store=store, tenant_id=tenant)
    if found is None:
        complain(f"the store holds nothing of request {request_id!r}; `taskpilot-obs calls` lists recent ones")
        raise typer.Exit(1)
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        show(FittedTable(_title(found), _COLUMNS, map(_row, found.steps), more="--json"))


def _title(found: RunTree) -> str:
    cost = "cost unknown" if found.cost is None else at_least(usd(found.cost), unknown=found.unpriced_calls)
    return f"{found.request_id}: {found.status or '-'}, {found.llm_calls} LLM calls, {cost}"


def _row(step: Step) -> tuple[str, ...]:
    return (
        f"{'  ' * step.depth}{step.operation} {step.name or ''}".rstrip(),
        step.status,
        ms(step.duration_ms),
        "-" if step.cost is None else at_least(usd(step.cost), unknown=step.unpriced_calls),
        step.error_type or "",
    )
