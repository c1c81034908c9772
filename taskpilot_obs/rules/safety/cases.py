"""What the alerts on policies and guardrails must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Fired, Scenario, absent, ramp, steady, then

FOLDER = "safety"
ONE = 'job="shop",instance="shop-1:9464"'
SURGE, GRAVE, TOKENS = (
    "TaskpilotPolicyViolationSurge",
    "TaskpilotCriticalPolicyViolation",
    "TaskpilotTokenLimitViolations",
)
BYPASS, BROKEN = "TaskpilotGuardrailBypassed", "TaskpilotGuardrailErrors"
STOPPED = "TaskpilotExperimentStopped"
DAY = 1440


def violation(policy: str, severity: str) -> str:
    """A series of violations."""
    return (
        f'policy_violations_total{{{ONE},workflow="checkout",agent="planner",policy="{policy}",severity="{severity}"}}'
    )


def check(result: str) -> str:
    """A series of checks."""
    return f'guardrail_checks_total{{{ONE},guardrail="pii",stage="output",result="{result}"}}'


def harm(variant: str) -> str:
    """A series of guardrails that a variant broke."""
    return f'experiment_guardrails_broken_total{{{ONE},experiment="planner",variant="{variant}",measure="cost"}}'


def surge(count: int) -> tuple[Fired]:
    """Far more violations than usual."""
    return (
        Fired(
            SURGE,
            FOLDER,
            {"severity": "warning", "signal": "violation_surge", "job": "shop", "policy": "pii"},
            f"Policy pii of shop denies far more than usual: {count} times in the last hour",
            f"Policy pii of shop denied {count} times in the last hour, more than 3 times the hourly mean of the"
            " day before.",
        ),
    )


def grave(count: int) -> tuple[Fired]:
    """Violations of severity critical."""
    return (
        Fired(
            GRAVE,
            FOLDER,
            {"severity": "critical", "signal": "critical_violation", "job": "shop", "policy": "pii"},
            f"Policy pii of shop denied {count} times at severity critical in the last hour",
            f"Policy pii of shop denied {count} inputs or tool calls at severity critical in the last hour."
            " The first one counts.",
        ),
    )


def tokens(count: int) -> tuple[Fired]:
    """The token limit was exceeded."""
    return (
        Fired(
            TOKENS,
            FOLDER,
            {"severity": "warning", "signal": "token_limit", "job": "shop", "policy": "max_tokens"},
            f"Token limit exceeded {count} times in the last hour: shop",
            f"Policy max_tokens of shop denied {count} runs in the last hour that took more tokens than it allows.",
        ),
    )


def bypassed(count: int) -> tuple[Fired]:
    """A guardrail failed open."""
    return (
        Fired(
            BYPASS,
            FOLDER,
            {"severity": "critical", "signal": "guardrail_bypassed", "job": "shop", "guardrail": "pii"},
            f"Guardrail pii of shop let {count} texts through unchecked in the last hour",
            f"Guardrail pii of shop could not check {count} texts in the last hour and, being set to fail open,"
            " let them pass.",
        ),
    )


def broken(value: str) -> tuple[Fired]:
    """A guardrail's checks fail."""
    return (
        Fired(
            BROKEN,
            FOLDER,
            {"severity": "warning", "signal": "guardrail_errors", "job": "shop", "guardrail": "pii"},
            f"Guardrail pii of shop fails in {value} of its checks (above 1%)",
            f"{value} of the checks of this guardrail raised an error,"
            " over the shortest of 5m, 1h, 6h, 1d with at least 10 checks.",
        ),
    )


def stopped(count: int) -> tuple[Fired]:
    """A variant broke a guardrail of its experiment."""
    return (
        Fired(
            STOPPED,
            FOLDER,
            {
                "severity": "warning",
                "signal": "experiment_guardrail",
                "job": "shop",
                "experiment": "planner",
                "variant": "v2",
                "measure": "cost",
            },
            f"Experiment planner of shop was stopped {count} times in the last hour: variant v2 breaks the guardrail of"
            " cost",
            f"{count} processes of shop stopped the experiment in the last hour, because cost of variant v2 is worse"
            " than its guardrail allows, with certainty. There every user gets the control.",
        ),
    )


def events(series: str, other: str, one: tuple[Fired], three: tuple[Fired]) -> tuple[Scenario, ...]:
    """The cases of an alert that a single event fires; `other` is a series like it that must not."""
    alert = one[0].alert
    return (
        Scenario(
            Case.FIRES,
            "three events in an hour",
            {series: then(steady(0, 30), steady(3, 30))},
            (At("50m", three),),
        ),
        Scenario(
            Case.FIRST_EVENT,
            "one event, the first ever",
            {series: then(absent(30), steady(1, 30))},
            (At("25m", quiet=(alert,)), At("35m", one), At("1h", one)),
        ),
        Scenario(
            Case.FIRST_EVENT,
            "born at one and gone on to three",
            {series: then(absent(30), steady(1, 10), steady(3, 20))},
            (At("1h", three),),
        ),
        Scenario(
            Case.HEALTHY,
            "events of another sort only",
            {series: steady(7, 120), other: ramp((5, 120))},
            (At("2h", quiet=(alert,)),),
        ),
        Scenario(
            Case.RESOLVES,
            "an hour after the event",
            {series: then(steady(0, 30), steady(1, 100))},
            (At("1h", one), At("1h40m", quiet=(alert,))),
        ),
        Scenario(
            Case.RESET,
            "the process restarts",
            {series: then(steady(50, 60), steady(0, 60)), other: then(steady(50, 60), steady(0, 60))},
            (At("1h30m", quiet=(alert,)),),
        ),
        Scenario(
            Case.RESET,
            "an event after the process restarted",
            {series: then(steady(50, 60), steady(0, 20), steady(1, 40))},
            (At("1h50m", one),),
        ),
    )


SURGES = (
    Scenario(
        Case.FIRES,
        "one violation an hour, then one a minute",
        {violation("pii", "high"): ramp((0, 1), *((1, 1), (0, 59)) * 8, (1, 65))},
        (At("9h", surge(59)),),
    ),
    Scenario(
        Case.FIRES,
        "twenty violations of a policy that never denied before",
        {violation("pii", "high"): then(absent(30), ramp((1, 19), start=1), steady(20, 30))},
        (At("1h10m", surge(20)),),
    ),
    Scenario(
        Case.THIN,
        "nine violations after none",
        {violation("pii", "low"): then(steady(0, 60), ramp((1, 9)), steady(9, 30))},
        (At("1h30m", quiet=(SURGE,)),),
    ),
    Scenario(
        Case.HEALTHY,
        "one violation a minute, as on the day before",
        {violation("pii", "low"): ramp((1, DAY))},
        (At("24h", quiet=(SURGE,)),),
    ),
    Scenario(
        Case.RESOLVES,
        "an hour after the surge",
        {violation("pii", "high"): ramp((0, 60), (1, 30), (0, 80))},
        (At("1h40m", surge(30)), At("2h40m", quiet=(SURGE,))),
    ),
    Scenario(
        Case.RESET,
        "the process restarts amid the surge",
        {violation("pii", "high"): then(ramp((0, 60), (1, 30)), ramp((1, 30)))},
        (At("2h", surge(59)),),
    ),
)

GUARDRAILS = (
    Scenario(
        Case.FIRES,
        "1 of 10 checks fails",
        {check("passed"): ramp((9, 120)), check("error"): ramp((1, 120))},
        (At("2h", broken("10%")),),
    ),
    Scenario(
        Case.FIRST_EVENT,
        "the first three errors ever, in sixty checks",
        {check("passed"): then(steady(0, 30), steady(57, 30)), check("error"): then(absent(30), steady(3, 30))},
        (At("1h", broken("5%")),),
    ),
    Scenario(
        Case.THIN,
        "2 of 10 checks fail",
        {check("passed"): then(steady(0, 60), steady(8, 60)), check("error"): then(steady(0, 60), steady(2, 60))},
        (At("1h50m", quiet=(BROKEN,)),),
    ),
    Scenario(
        Case.HEALTHY,
        "1 of 200 checks fails",
        {check("passed"): ramp((199, 120)), check("error"): ramp((1, 120))},
        (At("2h", quiet=(BROKEN,)),),
    ),
    Scenario(
        Case.RESOLVES,
        "an hour of good checks",
        {check("passed"): ramp((9, 190)), check("error"): ramp((1, 120), (0, 70))},
        (At("2h", broken("10%")), At("3h10m", quiet=(BROKEN,))),
    ),
    Scenario(
        Case.RESET,
        "the process restarts amid errors",
        {check("passed"): then(ramp((9, 90)), ramp((9, 90))), check("error"): then(ramp((1, 90)), ramp((1, 90)))},
        (At("1h55m", broken("10%")),),
    ),
)

SCENARIOS = (
    *SURGES,
    *events(violation("pii", "critical"), violation("pii", "high"), grave(1), grave(3)),
    *events(violation("max_tokens", "medium"), violation("pii", "medium"), tokens(1), tokens(3)),
    *events(check("bypassed"), check("blocked"), bypassed(1), bypassed(3)),
    *events(harm("v2"), "experiment_runs_total{" + ONE + ',experiment="planner",variant="v2"}', stopped(1), stopped(3)),
    *GUARDRAILS,
)
