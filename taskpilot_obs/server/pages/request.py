"""`/requests/{id}`: the waterfall of one request, with what was decided and said about it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from taskpilot_obs._support import figures
from taskpilot_obs._support.charts import strip
from taskpilot_obs._support.timestamps import MICROSECOND
from taskpilot_obs.server import blocks
from taskpilot_obs.server.pages.calls import TONES
from taskpilot_obs.server.pages.query import PageQuery
from taskpilot_obs.server.questions import Questions
from taskpilot_obs.stats import RunTree, Step

_COLOURS: Final = {"invoke_workflow": 7, "invoke_agent": 0, "execute_tool": 4, "chat": 2}
_KINDS: Final = {"invoke_workflow": "workflow", "invoke_agent": "agent", "execute_tool": "tool", "chat": "LLM call"}
ROWS: Final = 300
_FAILED: Final = 1


class RequestQuery(PageQuery):
    """A request has no filters."""


def build(ask: Questions, _: RequestQuery, request_id: str) -> blocks.Page:
    """Facts, waterfall, decisions, verdicts."""
    tree = ask.run_tree(request_id)
    body: list[blocks.Block] = [_facts(ask, tree)]
    if tree.steps:
        body.append(_waterfall(tree))
    else:
        body.append(blocks.Notice("", "The store has verdicts on this request, and no run of it yet."))
    if tree.decisions:
        body.append(_decisions(tree))
    body += [_verdicts(tree), blocks.FeedbackForm(tree.request_id)]
    return blocks.Page(f"Request {tree.request_id}", "", body, rest=f"/v1/runs/{quote(tree.request_id, safe='')}")


def _facts(ask: Questions, tree: RunTree) -> blocks.FactList:
    cost = figures.usd(tree.cost) + (f", {tree.unpriced_calls} unpriced" if tree.unpriced_calls else "")
    items = [
        ("Status", blocks.Cell(tree.status or "-", tree.status, tone=TONES.get(tree.status or "", "none"))),
        ("Began", blocks.moment(tree.start)),
        ("Duration", blocks.figure(figures.ms, tree.duration_ms)),
        ("Cost", blocks.Cell(cost, tree.cost)),
        ("Tokens in / out", blocks.text(f"{figures.count(tree.input_tokens)} / {figures.count(tree.output_tokens)}")),
        ("LLM calls", blocks.figure(figures.count, tree.llm_calls)),
        ("Tool calls", blocks.figure(figures.count, tree.tool_calls)),
    ]
    trace_id = next((step.trace_id for step in tree.steps if step.trace_id), None)
    if trace_id is not None:
        url = ask.services.links.trace_url(trace_id)
        items.append(("Trace", blocks.Cell(trace_id, trace_id) if url is None else _outside(trace_id, url)))
    if ask.services.links.dashboard is not None:
        items.append(("Dashboard", _outside("Grafana", ask.services.links.dashboard)))
    return blocks.FactList("At a glance", items)


def _outside(name: str, url: str) -> blocks.Cell:
    """A link to another server, which is configured and not a reader's."""
    link = Markup('<a href="{}" rel="noreferrer">{}</a>').format(url, name)
    return blocks.Cell(name, name, drawing=link)


def _waterfall(tree: RunTree) -> blocks.Table:
    head = ("step", "kind", "when", "duration", "status", "tokens in", "tokens out", "cost")
    numbers = {"duration", "tokens in", "tokens out", "cost"}
    columns = [blocks.TableColumn(name, numeric=name in numbers, drawn=name == "when") for name in head]
    note = f"The first {ROWS} of {len(tree.steps):,} steps." if len(tree.steps) > ROWS or tree.truncated else ""
    caption = f"{len(tree.steps):,} steps in {figures.ms(tree.duration_ms)}"
    return blocks.Table("steps", caption, columns, [_step(step, tree) for step in tree.steps[:ROWS]], note=note)


def _step(step: Step, tree: RunTree) -> list[blocks.Cell]:
    name = step.name or "(unnamed)"
    error = f" ({step.error_type})" if step.error_type else ""
    return [
        blocks.Cell(name, name, depth=step.depth),
        blocks.text(_KINDS.get(step.operation, step.operation)),
        blocks.Cell("", drawing=_strip(step, tree)),
        blocks.figure(figures.ms, step.duration_ms),
        blocks.Cell(step.status + error, step.status + error, tone=TONES.get(step.status, "none")),
        *blocks.figures_in(figures.count, step.input_tokens, step.output_tokens),
        blocks.figure(figures.usd, step.cost),
    ]


def _strip(step: Step, tree: RunTree) -> Markup:
    first, last = tree.start or step.start, tree.end or step.end
    whole = max((last - first) / MICROSECOND, 1.0)

    def part(at: datetime) -> float:
        return ((at - first) / MICROSECOND) / whole

    colour = _FAILED if step.status in ("error", "timeout", "blocked") else _COLOURS.get(step.operation, 7)
    begins = figures.ms((step.start - first) / timedelta(milliseconds=1))
    title = f"{step.name or step.operation}: {figures.ms(step.duration_ms)}, {step.status}, begins after {begins}"
    return Markup(strip(part(step.start), part(step.end), colour, title))  # noqa: S704  `strip` escapes


def _decisions(tree: RunTree) -> blocks.Table:
    head = ("time", "policy", "severity", "result", "agent", "tool")
    rows = [
        [
            blocks.moment(line.created_at),
            *map(blocks.text, (line.policy, line.severity, line.result, line.agent, line.tool)),
        ]
        for line in tree.decisions
    ]
    return blocks.Table(
        "decisions", "Denials by policies", [blocks.TableColumn(name, numeric=False) for name in head], rows
    )


def _verdicts(tree: RunTree) -> blocks.Table:
    head = ("time", "verdict", "comment")
    rows = [
        [
            blocks.moment(line.created_at),
            blocks.Cell(_verdict(line.correct), line.correct, tone="ok" if line.correct else "bad"),
            blocks.text(line.comment),
        ]
        for line in tree.feedback
    ]
    columns = [blocks.TableColumn(name, numeric=False) for name in head]
    return blocks.Table("feedback", "Feedback of users", columns, rows, empty="No verdict on this request yet.")


def _verdict(correct: bool) -> str:  # noqa: FBT001  it is the verdict
    return "correct" if correct else "incorrect"
