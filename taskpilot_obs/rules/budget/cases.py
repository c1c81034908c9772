"""What the alerts on budgets must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Expected, events, scenario
from taskpilot_obs.rules.series import ramp, steady, then

FOLDER = "budget"
TWO = ('job="shop",instance="shop-1:9464"', 'job="shop",instance="shop-2:9464"')
NEARLY, GONE, RUNS_OUT, REFUSED, DIFFER = (
    "TaskpilotBudgetNearlyUsed",
    "TaskpilotBudgetAlmostGone",
    "TaskpilotBudgetRunsOut",
    "TaskpilotBudgetRefusals",
    "TaskpilotBudgetLimitsDiffer",
)
OWN = 'budget="team",period="day"'
DAY_S = 86_400
BLOCKED = f'llm_requests_total{{{TWO[0]},agent="planner",model="gpt-4o",provider="openai",status="blocked"}}'
"""Calls that something else refused."""


def used(instance: int = 0) -> str:
    """The share of a budget that one process sees."""
    return f"llm_budget_used_ratio{{{TWO[instance]},{OWN}}}"


def resets(at_s: int, minutes: int) -> dict[str, str]:
    """When its period ends, seconds after the start of the test."""
    return {f"llm_budget_resets_timestamp_seconds{{{TWO[0]},{OWN}}}": steady(at_s, minutes)}


def refusals(budget: str) -> str:
    """A series of refusals."""
    return f'llm_budget_refusals_total{{{TWO[0]},budget="{budget}",period="day"}}'


expected = Expected("budget", budget="team", period="day")
nearly = expected(
    NEARLY,
    "warning",
    "budget_used",
    "Budget team (day) of shop is <figure> spent (above 75%)",
    "<figure> of the limit is spent. In enforce mode calls are refused once there is no room for them.",
)
gone = expected(
    GONE,
    "critical",
    "budget_used",
    "Budget team (day) of shop is <figure> spent",
    "<figure> of the limit is spent. In enforce mode calls are refused once there is no room for them. Fires above"
    " 90%, and where runs fail because they are refused.",
)
runs_out = expected(
    RUNS_OUT,
    "warning",
    "budget_projected",
    "Budget team (day) of shop will not last: <figure> by the end of the period",
    "At the rate of the last 1h, <figure> of the limit will be spent when the period ends.",
)
refused = expected(
    REFUSED,
    "warning",
    "budget_refusals",
    "Budget team (day) of shop refused <figure> calls in the last hour",
    "Budget team (day) of shop had no room for <figure> LLM calls in the last hour. They were not made: callers"
    " got an error.",
)
differ = expected(
    DIFFER,
    "warning",
    "budget_limits",
    "Budget team (day) of shop has <figure> other limits in its store",
    "Processes keep <figure> other limits under its name, and what is spent counts against all of them. Each"
    " process alerts and refuses by its own.",
)


def others(instance: int = 0) -> str:
    """How many other limits one process sees."""
    return f"llm_budget_other_limits{{{TWO[instance]},{OWN}}}"


USED = (
    scenario(
        Case.FIRES,
        "80 percent, then 95 percent in the fuller of two processes",
        {used(0): then(steady(0.8, 30), steady(0.95, 30)), used(1): steady(0.1, 60)},
        At("20m", nearly("80%"), (GONE,)),
        At("55m", (*nearly("95%"), *gone("95%"))),
    ),
    scenario(
        Case.THIN,
        "95 percent for two minutes",
        {used(): then(steady(0.5, 30), steady(0.95, 2), steady(0.5, 30))},
        At("35m", quiet=(NEARLY, GONE)),
    ),
    scenario(Case.HEALTHY, "70 percent", {used(): steady(0.7, 60)}, At("50m", quiet=(NEARLY, GONE))),
    scenario(
        Case.RESOLVES,
        "a new period begins",
        {used(): then(steady(0.95, 30), steady(0, 30))},
        At("20m", (*nearly("95%"), *gone("95%"))),
        At("45m", quiet=(NEARLY, GONE)),
    ),
)

PROJECTED = (
    scenario(
        Case.FIRES,
        "one percent a minute, five hours to go",
        {used(): ramp((0.01, 60)), **resets(6 * 3600, 60)},
        At("1h", runs_out("360%")),
    ),
    scenario(
        Case.THIN,
        "one percent in ten minutes, with ten percent spent",
        {used(): ramp((0.001, 100)), **resets(DAY_S, 100)},
        At("1h40m", quiet=(RUNS_OUT,)),
    ),
    scenario(
        Case.HEALTHY,
        "as much as the day allows",
        {used(): ramp((0.0005, 180), start=0.3), **resets(20 * 3600, 180)},
        At("3h", quiet=(RUNS_OUT,)),
    ),
    scenario(
        Case.RESOLVES,
        "spending stops",
        {used(): ramp((0.01, 60), (0, 90)), **resets(6 * 3600, 150)},
        At("1h", runs_out("360%")),
        At("2h20m", quiet=(RUNS_OUT,)),
    ),
)

OTHER_LIMITS = (
    scenario(
        Case.FIRES,
        "two other limits beside the one of a process",
        {others(0): steady(2, 30), others(1): steady(1, 30)},
        At("20m", differ(2)),
    ),
    scenario(
        Case.THIN,
        "a limit is changed within minutes, process by process",
        {others(): then(steady(0, 20), steady(1, 3), steady(0, 20))},
        At("23m", quiet=(DIFFER,)),
    ),
    scenario(Case.HEALTHY, "one limit", {others(): steady(0, 60)}, At("50m", quiet=(DIFFER,))),
    scenario(
        Case.RESOLVES,
        "the other process ends",
        {others(): then(steady(1, 30), steady(0, 30))},
        At("20m", differ(1)),
        At("45m", quiet=(DIFFER,)),
    ),
)

SCENARIOS = (*USED, *PROJECTED, *OTHER_LIMITS, *events(refusals("team"), refused, other=BLOCKED))
