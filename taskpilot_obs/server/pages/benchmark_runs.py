"""Runs of the benchmark, for `/benchmarks`: their verdicts, and the arms of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from taskpilot_obs._support import figures
from taskpilot_obs._support.charts import Bar, row_bar
from taskpilot_obs.server.blocks import Block, Cell, Heading, Table, TableColumn, figure, figures_in, moment, text
from taskpilot_obs.server.pages.query import link
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.stats import BenchmarkArm, BenchmarkRun

ROWS: Final = 20
CSV_ROWS: Final = 100
_TONES: Final = {"finished": "ok", "stopped": "warn", "cancelled": "warn", "failed": "bad"}
_ARM_HEAD: Final = (
    *("arm", "calls", "success", "between", "", "correct", "p50", "p95", "first token, p50"),
    *("tokens in", "tokens out", "cost", "cost per call", "priced"),
)
_TEXTS: Final = frozenset({"arm", ""})


def blocks(ask: Questions, chosen: str | None, *, whole: bool) -> list[Block]:
    """The newest runs, and the arms of the chosen one or of the newest; nothing for a principal of one tenant.

    Args:
        ask: the queries.
        chosen: the ID of the run whose arms are shown; None for the newest.
        whole: as many runs as there may be, for CSV.
    """
    if ask.principal.tenant is not None:
        return []
    runs = ask.benchmark_runs(None, CSV_ROWS if whole else ROWS)
    if not runs:
        return []
    shown = next((run for run in runs if run.run_id == chosen), runs[0])
    return [Heading("Benchmark runs"), _runs(runs), _arms(shown)]


def _runs(runs: Sequence[BenchmarkRun]) -> Table:
    head = ("began", "run", "status", "arms", "calls", "cost", "verdict")
    columns = [TableColumn(name, numeric=name in ("arms", "calls", "cost")) for name in head]
    note = "Verdicts are those that the evidence allows at the planned number of calls; a run leads to its arms."
    caption = f"The newest {len(runs)} run{'' if len(runs) == 1 else 's'}"
    return Table("runs", caption, columns, [_run(run) for run in runs], note=note)


def _run(run: BenchmarkRun) -> list[Cell]:
    calls = sum(arm.calls for arm in run.arms)
    costs = [arm.cost for arm in run.arms if arm.cost is not None]
    verdict = "; ".join(verdicts(run.summary))
    return [
        moment(run.created_at),
        text(run.name or run.run_id, link("/benchmarks", run=run.run_id)),
        Cell(run.status, run.status, tone=_TONES.get(run.status, "none")),
        *figures_in(figures.count, len(run.arms), calls),
        figure(figures.usd, sum(costs) if costs else None),
        text(verdict or None)._replace(prose=True),
    ]


def verdicts(summary: Mapping[str, Any] | None) -> list[str]:
    """What a run found, in sentences; nothing while it goes on, or where another version wrote it."""
    found = (summary or {}).get("findings")
    return [_sentence(one) for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _sentence(finding: Mapping[str, Any]) -> str:
    best, worse = (", ".join(map(str, finding.get(name) or ())) for name in ("best", "worse"))
    if not worse:
        return f"{finding.get('measure')}: not enough evidence to tell {best} apart"
    return f"{finding.get('measure')}: {best} better than {worse}"


def _arms(run: BenchmarkRun) -> Table:
    columns = [TableColumn(name or "0 to 100 %", numeric=name not in _TEXTS, drawn=not name) for name in _ARM_HEAD]
    note = "Without the calls to warm up. Intervals are Wilson score intervals at 95 %."
    caption = f"Arms of {run.name or run.run_id}"
    return Table("arms", caption, columns, [_arm(arm) for arm in run.arms], empty="No call was written.", note=note)


def _arm(arm: BenchmarkArm) -> list[Cell]:
    interval = arm.success_rate_interval
    low, high = (None, None) if interval is None else interval
    bar = Bar(arm.arm, arm.success_rate, low, high)
    return [
        text(arm.arm),
        figure(figures.count, arm.calls),
        figure(figures.percent, arm.success_rate),
        Cell(*_between(low, high)),
        Cell("", drawing=Markup(row_bar(bar, 100.0, figures.percent))),  # noqa: S704  `row_bar` escapes
        figure(figures.percent, arm.correct_rate),
        *figures_in(figures.ms, arm.p50_latency_ms, arm.p95_latency_ms, arm.p50_time_to_first_token_ms),
        *figures_in(figures.count, arm.input_tokens, arm.output_tokens),
        *figures_in(figures.usd, arm.cost, arm.cost_per_call),
        figure(figures.share, arm.cost_coverage),
    ]


def _between(low: float | None, high: float | None) -> tuple[str, str | None]:
    if low is None or high is None:
        return figures.UNKNOWN, None
    return f"{low:.1f} to {high:.1f}", f"{low:.4f} to {high:.4f}"
