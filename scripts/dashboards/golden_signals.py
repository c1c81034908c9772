"""Golden signals: is the service good, how sure are we, and what is wrong."""

from __future__ import annotations

from scripts.dashboards import common
from scripts.dashboards.model import Dashboard, Panel, Query, Row
from scripts.dashboards.panels import (
    COUNT,
    PER_MINUTE,
    PERCENT,
    PLAIN,
    RATIO,
    SECONDS,
    USD,
    Column,
    label_table,
    lines,
    stat,
    stats,
    table,
)
from scripts.dashboards.promql import (
    COUNTED_STATUSES,
    RANGE,
    Selector,
    events,
    per_minute,
    quantile,
    ratio,
    share,
    whole,
)
from taskpilot_obs import semconv
from taskpilot_obs.records import Status
from taskpilot_obs.semconv import Label

_select = Selector((Label.WORKFLOW,))
_SUCCESSES = _select(semconv.WORKFLOW_RUNS, status=Status.SUCCESS)
_COUNTED = _select(semconv.WORKFLOW_RUNS, status=COUNTED_STATUSES)
_DURATION_BUCKETS = _select(semconv.WORKFLOW_DURATION, "_bucket")
_ALL_WORKFLOWS = Selector()
_NO_RUNS = "No runs in this time range"
_NO_RULES = "Too few runs, or the recording rules are not loaded"
_RECENT = "Over the shortest of 1h, 6h and 1d in which at least 10 runs were counted."


def _rule(name: str) -> str:
    """A recording rule by workflow."""
    return _select.rule(name, (Label.WORKFLOW,))


def _verdicts(verdict: str) -> str:
    """First verdicts of a kind, plus those revised to it, less those revised away from it."""
    other = "incorrect" if verdict == "correct" else "correct"
    first = events(_ALL_WORKFLOWS(semconv.FEEDBACK, verdict=verdict))
    to = events(_ALL_WORKFLOWS(semconv.FEEDBACK_REVISIONS, verdict=verdict))
    away = events(_ALL_WORKFLOWS(semconv.FEEDBACK_REVISIONS, verdict=other))
    return f"({first} or vector(0)) + ({to} or vector(0)) - ({away} or vector(0))"


def _all_verdicts() -> str:
    """Correct plus incorrect: what was revised to one was revised away from the other, so revisions cancel out."""
    return events(_ALL_WORKFLOWS(semconv.FEEDBACK))


def _success_rate(by: str = "") -> str:
    return share(events(_SUCCESSES, by=by), events(_COUNTED, by=by), by)


def _violation_rate(by: str = "") -> str:
    return share(events(_select(semconv.POLICY_VIOLATIONS), by=by), events(_COUNTED, by=by), by)


def _cost_per_success() -> str:
    cost = events(_ALL_WORKFLOWS(semconv.LLM_COST))
    return ratio(cost, events(_ALL_WORKFLOWS(semconv.WORKFLOW_RUNS, status=Status.SUCCESS)))


def _cost_per_success_by_workflow() -> str:
    cost = events(_select(semconv.WORKFLOW_COST), by=Label.WORKFLOW)
    return ratio(cost, events(_SUCCESSES, by=Label.WORKFLOW))


_SIGNALS: tuple[Panel, ...] = (
    stat(
        "Success rate",
        "Runs that succeeded, of those that ended as success, error, timeout or blocked. Runs that were cancelled, "
        "abandoned or interrupted prove nothing and do not count. Healthy from 95 %, critical below 90 %.",
        _success_rate(),
        unit=PERCENT,
        decimals=1,
        steps=common.SUCCESS_RATE_STEPS,
        below="taskpilot-agents",
        no_value=_NO_RUNS,
        width=4,
        height=5,
    ),
    stat(
        "p95 latency",
        "95 of 100 runs took less, whatever their status. Healthy up to 2 s, critical above 5 s.",
        quantile(0.95, _DURATION_BUCKETS, RANGE),
        unit=SECONDS,
        decimals=2,
        steps=common.P95_STEPS,
        below="taskpilot-agents",
        no_value=_NO_RUNS,
        width=4,
        height=5,
    ),
    stat(
        "Cost per successful task (all workflows)",
        "All LLM cost, divided by the runs that succeeded; calls outside of a run and the cost of failed runs are in "
        "it. LLM cost has no workflow, so the workflow filter does not apply here: see the table by workflow. "
        "Healthy up to $0.10, critical above $0.50.",
        _cost_per_success(),
        unit=USD,
        decimals=3,
        steps=common.COST_STEPS,
        below="taskpilot-llm",
        no_value="No successful run, or no price",
        width=6,
        height=5,
    ),
    stat(
        "User-confirmed correctness (all workflows)",
        "Verdicts that stand as correct, of all verdicts; a user who changes his mind counts under his last word. "
        "Healthy from 90 %, critical below 70 %.",
        f"100 * ({_verdicts('correct')}) / ({_all_verdicts()} > 0)",
        unit=PERCENT,
        decimals=1,
        steps=common.CORRECTNESS_STEPS,
        no_value="No feedback in this time range",
        width=6,
        height=5,
    ),
    stat(
        "Policy violations per 100 runs",
        "Denials by policies, in monitor and in enforce mode, per 100 counted runs. One run can have several. "
        "Healthy up to 1, critical above 2.",
        _violation_rate(),
        unit=PERCENT,
        decimals=2,
        steps=common.VIOLATION_STEPS,
        below="taskpilot-safety",
        no_value=_NO_RUNS,
        width=4,
        height=5,
    ),
)

_EVIDENCE: tuple[Panel, ...] = (
    stat(
        "Runs counted",
        "How many runs the success rate rests on.",
        whole(events(_COUNTED)),
        unit=COUNT,
        no_value="No runs",
        width=4,
        height=3,
    ),
    stat(
        "Runs timed",
        "How many runs the p95 rests on: every status.",
        whole(events(_select(semconv.WORKFLOW_DURATION, "_count"))),
        unit=COUNT,
        no_value="No runs",
        width=4,
        height=3,
    ),
    stat(
        "Successful runs paid for",
        "How many successful runs the cost is divided by, over all workflows.",
        whole(events(_ALL_WORKFLOWS(semconv.WORKFLOW_RUNS, status=Status.SUCCESS))),
        unit=COUNT,
        no_value="No runs",
        width=6,
        height=3,
    ),
    stat(
        "Verdicts of users",
        "How many verdicts the correctness rests on.",
        whole(_all_verdicts()),
        unit=COUNT,
        no_value="No feedback",
        width=6,
        height=3,
    ),
    stat(
        "Violations",
        "How many violations the rate rests on, the first ever included.",
        whole(events(_select(semconv.POLICY_VIOLATIONS))),
        unit=COUNT,
        no_value="None recorded",
        width=4,
        height=3,
    ),
)

_TRENDS: tuple[Panel, ...] = (
    lines(
        "Runs per minute, by how they ended",
        "A wall of red that replaces green is an outage; without any colour there was no traffic.",
        Query(per_minute(_select(semconv.WORKFLOW_RUNS), Label.STATUS), "{{status}}"),
        unit=PER_MINUTE,
        no_value=_NO_RUNS,
        stacked=True,
    ),
    lines(
        "Run duration: p50, p95, p99",
        "Points are exemplars: click one to open its trace.",
        *(
            Query(quantile(level, _DURATION_BUCKETS), f"p{level * 100:g}", exemplar=exemplar)
            for level, exemplar in ((0.5, False), (0.95, True), (0.99, False))
        ),
        unit=SECONDS,
        steps=common.P95_STEPS,
        no_value=_NO_RUNS,
    ),
    lines(
        "Success rate by workflow, as the alerts see it",
        f"Which workflow pulls the figure above down. {_RECENT}",
        Query(f"100 * {_rule('workflow:workflow_runs:success_ratio_recent')}", "{{workflow}}"),
        unit=PERCENT,
        steps=common.SUCCESS_RATE_STEPS,
        bounds=(None, 100),
        no_value=_NO_RULES,
    ),
    lines(
        "p95 by workflow, as the alerts see it",
        f"Which workflow is slow. {_RECENT}",
        Query(_rule("workflow:workflow_duration_seconds:p95_recent"), "{{workflow}}"),
        unit=SECONDS,
        steps=common.P95_STEPS,
        no_value=_NO_RULES,
    ),
    lines(
        "Violations per minute, by workflow",
        "Which workflow is denied most. A jump from nothing is an attack, a bad prompt or a new policy.",
        Query(per_minute(_select(semconv.POLICY_VIOLATIONS), Label.WORKFLOW), "{{workflow}}"),
        unit=PER_MINUTE,
        no_value="No violation recorded",
    ),
    lines(
        "Active runs by workflow",
        "A line that climbs while runs per minute fall means that runs hang.",
        Query(f"sum by ({Label.WORKFLOW}) ({_select(semconv.WORKFLOW_ACTIVE)})", "{{workflow}}"),
        unit=COUNT,
        no_value="No workflow has run yet",
    ),
)

_WHAT_IS_WRONG: tuple[Panel, ...] = (
    label_table(
        "Firing alerts",
        "Every alert that Prometheus holds as firing now. Each has a runbook: the link is in the notification.",
        Query(common.firing(), instant=True, format="table"),
        hide=("__name__", "alertstate", "instance", "signal"),
        first="severity",
        no_value="No alert is firing (if the rules are loaded)",
        width=12,
    ),
    stats(
        "Error budget left, 30 days",
        "All workflows. What is left of the failures, and of the slow runs, that the objective allows in 30 days. "
        "Below 0 the objective is missed.",
        Query(_ALL_WORKFLOWS.rule("job:slo_success:error_budget_left_ratio"), "{{job}}: failed runs", instant=True),
        Query(_ALL_WORKFLOWS.rule("job:slo_latency:error_budget_left_ratio"), "{{job}}: slow runs", instant=True),
        unit=RATIO,
        decimals=0,
        steps=((None, "red"), (0, "orange"), (0.25, "green")),
        no_value=_NO_RULES,
        width=12,
        height=9,
    ),
    lines(
        "Burn rate of the error budget (all workflows)",
        "How many times faster than allowed the budget is spent: at 1 it lasts exactly 30 days, at 14.4 two days. "
        "Alerts ask for a long and a short window at once; the short one says whether it goes on.",
        *(
            Query(_ALL_WORKFLOWS.rule(f"job:slo_{slo}:burn_rate{window}"), f"{{{{job}}}}: {what}, {window}")
            for slo, what in (("success", "failed"), ("latency", "slow"))
            for window in ("5m", "1h", "6h")
        ),
        unit=PLAIN,
        steps=((None, "green"), (1, "orange"), (14.4, "red")),
        no_value=_NO_RULES,
        width=24,
    ),
)

_BY_WORKFLOW = table(
    "Golden signals by workflow",
    "The same figures for each workflow over the time range. The cost is the roll-up of the runs of that workflow. "
    "User verdicts belong to a request, not to a workflow.",
    Label.WORKFLOW,
    Column("Runs counted", whole(events(_COUNTED, by=Label.WORKFLOW)), COUNT),
    Column("Success rate", _success_rate(Label.WORKFLOW), PERCENT, common.SUCCESS_RATE_STEPS, 1),
    Column("p95 latency", quantile(0.95, _DURATION_BUCKETS, RANGE, Label.WORKFLOW), SECONDS, common.P95_STEPS, 2),
    Column("Cost per success", _cost_per_success_by_workflow(), USD, common.COST_STEPS, 3),
    Column("Violations per 100 runs", _violation_rate(Label.WORKFLOW), PERCENT, common.VIOLATION_STEPS, 2),
    no_value=_NO_RUNS,
    below="taskpilot-safety",
)

DASHBOARD = Dashboard(
    uid="taskpilot-golden-signals",
    title="taskpilot / Golden signals",
    description="Five figures that say whether the agents do their work, with the evidence behind each.",
    variables=common.variables(Label.WORKFLOW),
    rows=(
        Row("Now: the five signals over the time range, and what each rests on", (*_SIGNALS, *_EVIDENCE)),
        Row("What is wrong", _WHAT_IS_WRONG),
        Row("Trends", _TRENDS),
        Row("By workflow", (_BY_WORKFLOW,)),
    ),
    annotations=common.marks(),
)
