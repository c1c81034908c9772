"""What the alerts on policies and guardrails must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Expected, events, resolves, scenario
from taskpilot_obs.rules.series import Counters, absent, ramp, steady, then

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


expected = Expected("safety")
surge = expected(
    SURGE,
    "warning",
    "violation_surge",
    "Policy pii of shop denies far more than usual: <figure> times in the last hour",
    "Policy pii of shop denied <figure> times in the last hour, more than 3 times the hourly mean of the day before.",
    policy="pii",
)
grave = expected(
    GRAVE,
    "critical",
    "critical_violation",
    "Policy pii of shop denied <figure> times at severity critical in the last hour",
    "Policy pii of shop denied <figure> inputs or tool calls at severity critical in the last hour."
    " The first one counts.",
    policy="pii",
)
tokens = expected(
    TOKENS,
    "warning",
    "token_limit",
    "Token limit exceeded <figure> times in the last hour: shop",
    "Policy max_tokens of shop denied <figure> runs in the last hour that took more tokens than it allows.",
    policy="max_tokens",
)
bypassed = expected(
    BYPASS,
    "critical",
    "guardrail_bypassed",
    "Guardrail pii of shop let <figure> texts through unchecked in the last hour",
    "Guardrail pii of shop could not check <figure> texts in the last hour and, being set to fail open, let them pass.",
    guardrail="pii",
)
broken = expected(
    BROKEN,
    "warning",
    "guardrail_errors",
    "Guardrail pii of shop fails in <figure> of its checks (above 1%)",
    "<figure> of the checks of this guardrail raised an error,"
    " over the shortest of 5m, 1h, 6h, 1d with at least 10 checks.",
    guardrail="pii",
)
stopped = expected(
    STOPPED,
    "warning",
    "experiment_guardrail",
    "Experiment planner of shop was stopped <figure> times in the last hour: variant v2 breaks the guardrail of cost",
    "<figure> processes of shop stopped the experiment in the last hour, because cost of variant v2 is worse"
    " than its guardrail allows, with certainty. There every user gets the control.",
    experiment="planner",
    variant="v2",
    measure="cost",
)


SURGES = (
    scenario(
        Case.FIRES,
        "one violation an hour, then one a minute",
        {violation("pii", "high"): ramp((0, 1), *((1, 1), (0, 59)) * 8, (1, 65))},
        At("9h", surge(59)),
    ),
    scenario(
        Case.FIRES,
        "twenty violations of a policy that never denied before",
        {violation("pii", "high"): then(absent(30), ramp((1, 19), start=1), steady(20, 30))},
        At("1h10m", surge(20)),
    ),
    scenario(
        Case.THIN,
        "nine violations after none",
        {violation("pii", "low"): then(steady(0, 60), ramp((1, 9)), steady(9, 30))},
        At("1h30m", quiet=(SURGE,)),
    ),
    scenario(
        Case.HEALTHY,
        "one violation a minute, as on the day before",
        {violation("pii", "low"): ramp((1, DAY))},
        At("24h", quiet=(SURGE,)),
    ),
    scenario(
        Case.RESOLVES,
        "an hour after the surge",
        {violation("pii", "high"): ramp((0, 60), (1, 30), (0, 80))},
        At("1h40m", surge(30)),
        At("2h40m", quiet=(SURGE,)),
    ),
    scenario(
        Case.RESET,
        "the process restarts amid the surge",
        {violation("pii", "high"): then(ramp((0, 60), (1, 30)), ramp((1, 30)))},
        At("2h", surge(59)),
    ),
)

CHECKS = Counters(check("passed"), check("error"))
GUARDRAILS = (
    scenario(Case.FIRES, "1 of 10 checks fails", CHECKS.growing((9, 1, 120)), At("2h", broken("10%"))),
    scenario(
        Case.FIRST_EVENT,
        "the first three errors ever, in sixty checks",
        {check("passed"): then(steady(0, 30), steady(57, 30)), check("error"): then(absent(30), steady(3, 30))},
        At("1h", broken("5%")),
    ),
    scenario(Case.THIN, "2 of 10 checks fail", CHECKS.at_once(8, 2), At("1h50m", quiet=(BROKEN,))),
    scenario(Case.HEALTHY, "1 of 200 checks fails", CHECKS.growing((199, 1, 120)), At("2h", quiet=(BROKEN,))),
    resolves(
        "an hour of good checks",
        {check("passed"): ramp((9, 190)), check("error"): ramp((1, 120), (0, 70))},
        broken("10%"),
    ),
    scenario(Case.RESET, "the process restarts amid errors", CHECKS.restarted(9, 1), At("1h55m", broken("10%"))),
)

SCENARIOS = (
    *SURGES,
    *events(violation("pii", "critical"), grave, other=violation("pii", "high")),
    *events(violation("max_tokens", "medium"), tokens, other=violation("pii", "medium")),
    *events(check("bypassed"), bypassed, other=check("blocked")),
    *events(harm("v2"), stopped, other="experiment_runs_total{" + ONE + ',experiment="planner",variant="v2"}'),
    *GUARDRAILS,
)
