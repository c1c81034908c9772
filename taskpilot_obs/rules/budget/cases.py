"""What the alerts on budgets must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Fired, Scenario, ramp, steady, then
from taskpilot_obs.rules.safety.cases import events

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


def labels(severity: str, signal: str) -> dict[str, str]:
    """The labels of an alert on this budget."""
    return {"severity": severity, "signal": signal, "job": "shop", "budget": "team", "period": "day"}


def nearly(share: str) -> Fired:
    """Over three quarters are spent."""
    return Fired(
        NEARLY,
        FOLDER,
        labels("warning", "budget_used"),
        f"Budget team (day) of shop is {share} spent (above 75%)",
        f"{share} of the limit is spent. In enforce mode calls are refused once there is no room for them.",
    )


def gone(share: str) -> Fired:
    """Over nine tenths are spent."""
    return Fired(
        GONE,
        FOLDER,
        labels("critical", "budget_used"),
        f"Budget team (day) of shop is {share} spent",
        f"{share} of the limit is spent. In enforce mode calls are refused once there is no room for them. Fires above"
        " 90%, and where runs fail because they are refused.",
    )


def runs_out(share: str) -> Fired:
    """It will not last until the period ends."""
    return Fired(
        RUNS_OUT,
        FOLDER,
        labels("warning", "budget_projected"),
        f"Budget team (day) of shop will not last: {share} by the end of the period",
        f"At the rate of the last 1h, {share} of the limit will be spent when the period ends.",
    )


def refused(count: int) -> tuple[Fired]:
    """Calls were refused."""
    return (
        Fired(
            REFUSED,
            FOLDER,
            labels("warning", "budget_refusals"),
            f"Budget team (day) of shop refused {count} calls in the last hour",
            f"Budget team (day) of shop had no room for {count} LLM calls in the last hour. They were not made: callers"
            " got an error.",
        ),
    )


def differ(count: int) -> Fired:
    """Other processes keep other limits under its name."""
    return Fired(
        DIFFER,
        FOLDER,
        labels("warning", "budget_limits"),
        f"Budget team (day) of shop has {count} other limits in its store",
        f"Processes keep {count} other limits under its name, and what is spent counts against all of them. Each"
        " process alerts and refuses by its own.",
    )


def others(instance: int = 0) -> str:
    """How many other limits one process sees."""
    return f"llm_budget_other_limits{{{TWO[instance]},{OWN}}}"


USED = (
    Scenario(
        Case.FIRES,
        "80 percent, then 95 percent in the fuller of two processes",
        {used(0): then(steady(0.8, 30), steady(0.95, 30)), used(1): steady(0.1, 60)},
        (At("20m", (nearly("80%"),), (GONE,)), At("55m", (nearly("95%"), gone("95%")))),
    ),
    Scenario(
        Case.THIN,
        "95 percent for two minutes",
        {used(): then(steady(0.5, 30), steady(0.95, 2), steady(0.5, 30))},
        (At("35m", quiet=(NEARLY, GONE)),),
    ),
    Scenario(Case.HEALTHY, "70 percent", {used(): steady(0.7, 60)}, (At("50m", quiet=(NEARLY, GONE)),)),
    Scenario(
        Case.RESOLVES,
        "a new period begins",
        {used(): then(steady(0.95, 30), steady(0, 30))},
        (At("20m", (nearly("95%"), gone("95%"))), At("45m", quiet=(NEARLY, GONE))),
    ),
)

PROJECTED = (
    Scenario(
        Case.FIRES,
        "one percent a minute, five hours to go",
        {used(): ramp((0.01, 60)), **resets(6 * 3600, 60)},
        (At("1h", (runs_out("360%"),)),),
    ),
    Scenario(
        Case.THIN,
        "one percent in ten minutes, with ten percent spent",
        {used(): ramp((0.001, 100)), **resets(DAY_S, 100)},
        (At("1h40m", quiet=(RUNS_OUT,)),),
    ),
    Scenario(
        Case.HEALTHY,
        "as much as the day allows",
        {used(): ramp((0.0005, 180), start=0.3), **resets(20 * 3600, 180)},
        (At("3h", quiet=(RUNS_OUT,)),),
    ),
    Scenario(
        Case.RESOLVES,
        "spending stops",
        {used(): ramp((0.01, 60), (0, 90)), **resets(6 * 3600, 150)},
        (At("1h", (runs_out("360%"),)), At("2h20m", quiet=(RUNS_OUT,))),
    ),
)

OTHER_LIMITS = (
    Scenario(
        Case.FIRES,
        "two other limits beside the one of a process",
        {others(0): steady(2, 30), others(1): steady(1, 30)},
        (At("20m", (differ(2),)),),
    ),
    Scenario(
        Case.THIN,
        "a limit is changed within minutes, process by process",
        {others(): then(steady(0, 20), steady(1, 3), steady(0, 20))},
        (At("23m", quiet=(DIFFER,)),),
    ),
    Scenario(Case.HEALTHY, "one limit", {others(): steady(0, 60)}, (At("50m", quiet=(DIFFER,)),)),
    Scenario(
        Case.RESOLVES,
        "the other process ends",
        {others(): then(steady(1, 30), steady(0, 30))},
        (At("20m", (differ(1),)), At("45m", quiet=(DIFFER,))),
    ),
)

SCENARIOS = (*USED, *PROJECTED, *OTHER_LIMITS, *events(refusals("team"), BLOCKED, refused(1), refused(3)))
