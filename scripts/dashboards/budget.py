"""Budgets: what is spent of each, what is set aside for calls in progress, where it leads, and what was refused."""

from __future__ import annotations

from scripts.dashboards import common
from scripts.dashboards.model import Annotation, Dashboard, Panel, Query, Row
from scripts.dashboards.panels import COUNT, RATIO, SECONDS, USD, at_most, lines, stats
from scripts.dashboards.promql import INTERVAL, RANGE, RULE_FILTER, Selector, events, whole
from taskpilot_obs import semconv
from taskpilot_obs.semconv import Label

_select = Selector()
_OWN = f"{Label.BUDGET}, {Label.PERIOD}"
_LEGEND = "{{budget}} ({{period}})"
_NONE = "No budget is configured"
_USED_STEPS = at_most(0.75, 0.9)
_REFUSALS = _select(semconv.BUDGET_REFUSALS)
_USED = f"max by ({_OWN}) ({_select(semconv.BUDGET_USED_RATIO)})"


def _fullest(metric: semconv.Metric) -> str:
    """Processes that share a store show the same figure, others each their own: the largest."""
    return f"max by ({_OWN}) ({_select(metric)})"


_NOW: tuple[Panel, ...] = (
    stats(
        "Spent, of the limit",
        "Share of each budget that is spent in its present period. Orange from 75 %, red from 90 %. Of a budget that "
        "is split by tenant or user, the fullest.",
        Query(_USED, _LEGEND, instant=True),
        unit=RATIO,
        decimals=0,
        steps=_USED_STEPS,
        width=8,
        no_value=_NONE,
    ),
    stats(
        "Resets in",
        "Until the present period ends, in the budget's own time zone. A total has no end.",
        Query(f"{_fullest(semconv.BUDGET_RESETS)} - time()", _LEGEND, instant=True),
        unit=SECONDS,
        width=8,
        no_value=_NONE,
    ),
    stats(
        "Calls refused",
        "Over the time range: calls for which a budget in enforce mode had no room. They were not made.",
        Query(whole(events(_REFUSALS, RANGE, _OWN)), _LEGEND, instant=True),
        unit=COUNT,
        steps=((None, "green"), (1, "orange")),
        width=8,
        no_value=_NONE,
    ),
)

_OVER_TIME: tuple[Panel, ...] = (
    lines(
        "Spent and limit",
        "USD in the present period; the line falls to 0 where a new one begins.",
        Query(_fullest(semconv.BUDGET_SPENT), f"{_LEGEND} spent"),
        Query(_fullest(semconv.BUDGET_LIMIT), f"{_LEGEND} limit"),
        unit=USD,
        no_value="No budget in USD is configured",
    ),
    lines(
        "Where it leads",
        "Share of the limit that will be spent at the end of the period if it goes on as in the last hour. Above 1 it "
        "will not last.",
        Query(_select.rule("budget:llm_budget_used:ratio_projected"), _LEGEND),
        unit=RATIO,
        steps=((None, "green"), (1, "red")),
        no_value="No budget, or the recording rules are not loaded",
    ),
    lines(
        "Reserved and booked by estimate",
        "USD reserved for calls in progress, and the part of the spent money that is an estimate because the calls' "
        "cost is unknown. Reservations that stay without traffic were left by a process that died; they expire.",
        Query(_fullest(semconv.BUDGET_RESERVED), f"{_LEGEND} reserved"),
        Query(_fullest(semconv.BUDGET_ASSUMED), f"{_LEGEND} estimated"),
        unit=USD,
        no_value="No budget in USD is configured",
    ),
    lines(
        "Other limits under one name",
        "How many other limits processes keep under the name of a budget in the same store. 0 is right: what is spent "
        "counts against all of them, and each process refuses by its own.",
        Query(_fullest(semconv.BUDGET_OTHER_LIMITS), _LEGEND),
        unit=COUNT,
        steps=((None, "green"), (1, "orange")),
        no_value=_NONE,
    ),
)

_MARKS: tuple[Annotation, ...] = (
    Annotation(
        "Refusals",
        f"sum by (job, {_OWN}) (increase({semconv.BUDGET_REFUSALS.name}{{{RULE_FILTER}}}[{INTERVAL}])) >= 1",
        "orange",
        "Budget {{budget}} refuses calls",
        "The first refusals of a stretch.",
    ),
)

DASHBOARD = Dashboard(
    uid="taskpilot-budget",
    title="taskpilot / Budgets",
    description="Budgets of money and tokens: spent, left, projected, refused.",
    variables=common.variables(),
    rows=(Row("Now", _NOW), Row("Over time", _OVER_TIME)),
    annotations=(*common.marks(), *_MARKS),
)
