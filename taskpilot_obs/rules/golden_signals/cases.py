"""What the alerts on the golden signals must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Fired, resolves, scenario
from taskpilot_obs.rules.golden_signals.expected import (
    CORRECTNESS,
    LATENCY,
    ONE,
    RUN,
    SUCCESS,
    TASK_COST,
    VIOLATIONS,
    burn,
    correctness,
    latency,
    success,
    success_overall,
    task_cost,
    violations,
)
from taskpilot_obs.rules.series import Counters, absent, by_label, histogram, ramp, steady, then, twice

OK, BAD = by_label("workflow_runs_total", RUN, "status", "success", "error")
COST = f'llm_cost_usd_total{{{ONE},agent="planner",model="m1",provider="acme"}}'
VIOLATION = f'policy_violations_total{{{RUN},agent="planner",policy="pii",severity="high"}}'
CORRECT, WRONG = by_label("llm_feedback_total", ONE, "verdict", "correct", "incorrect")
RUNS, VERDICTS = Counters(OK, BAD), Counters(CORRECT, WRONG)
SPENDING, DENIALS = Counters(OK, BAD, COST), Counters(OK, BAD, VIOLATION)
SUCCESS_BURN = ("TaskpilotSuccessBudgetBurnFast", "TaskpilotSuccessBudgetBurnSlow")
LATENCY_BURN = ("TaskpilotLatencyBudgetBurnFast", "TaskpilotLatencyBudgetBurnSlow")


def runs(good: float, bad: float, minutes: int) -> dict[str, str]:
    """Runs a minute."""
    return RUNS.growing((good, bad, minutes))


def slow(fast: float, total: float, minutes: int) -> dict[str, str]:
    """Runs a minute: so many within 2 s, the rest between 5 s and 10 s; and the counters beside them."""
    counts = {"1.0": 0, "2.0": fast, "5.0": fast, "10.0": total, "+Inf": total}
    return histogram("workflow_duration_seconds", RUN, counts, minutes) | runs(total, 0, minutes)


NINE = then(steady(0, 60), ramp((1, 9)), steady(9, 50))
"""Nine events after an hour, one a minute."""
SLOW_ONES = {
    name: then(steady(0, 60), steady(4 if 'le="10.0"' in name or "+Inf" in name else 0, 60)) for name in slow(0, 1, 1)
}
"""Four slow runs in all."""

SUCCESS_RATE = (
    scenario(Case.FIRES, "8 of 10 runs succeed", runs(8, 2, 120), At("2h", success("80%"))),
    scenario(
        Case.FIRES,
        "92 of 100 runs succeed, which is a warning only",
        runs(92, 8, 120),
        At("2h", success("92%")[:1], ("TaskpilotSuccessRateCritical",)),
    ),
    scenario(
        Case.FIRST_EVENT,
        "an undeclared workflow ends its first twelve runs as errors",
        {BAD: then(absent(20), steady(12, 20))},
        At("40m", success("0%")),
    ),
    scenario(Case.THIN, "2 of 10 runs fail", RUNS.at_once(8, 2), At("1h50m", quiet=SUCCESS)),
    scenario(Case.HEALTHY, "98 of 100 runs succeed", runs(98, 2, 120), At("2h", quiet=SUCCESS)),
    scenario(
        Case.HEALTHY,
        "runs that were cancelled prove nothing",
        runs(10, 0, 120) | {f'workflow_runs_total{{{RUN},status="cancelled"}}': ramp((50, 120))},
        At("2h", quiet=SUCCESS),
    ),
    resolves("an hour of good runs after an outage", RUNS.growing((5, 5, 120), (10, 0, 70)), success("50%")),
    scenario(Case.RESET, "the process restarts amid an outage", RUNS.restarted(8, 2), At("1h55m", success("80%"))),
    scenario(
        Case.RESET,
        "the process restarts and nothing else happens",
        {OK: then(ramp((10, 90)), ramp((10, 90))), BAD: then(steady(500, 90), steady(0, 90))},
        At("1h40m", quiet=SUCCESS),
        At("2h30m", quiet=SUCCESS),
    ),
    scenario(
        Case.LOW_TRAFFIC,
        "a run every half hour, of the last 12 three failed",
        {
            OK: ramp((0, 29), *((1, 1), (0, 29)) * 12, *((0, 30),) * 3, *((1, 1), (0, 29)) * 4),
            BAD: ramp((0, 29), *((0, 30),) * 12, *((1, 1), (0, 29)) * 3, *((0, 30),) * 4),
        },
        At("6h", quiet=SUCCESS),
        At("7h55m", success("75%")),
    ),
    scenario(
        Case.HIGH_TRAFFIC,
        "2,000 runs a second, of which 10 % fail, then none",
        RUNS.growing((106_800, 13_200, 120), (120_000, 0, 65)),
        At("2h", success("89%")),
        At("3h5m", quiet=SUCCESS),
    ),
    scenario(
        Case.LEVELS,
        "fifty workflows with a failed run each: too few for one, enough for all",
        {
            f'workflow_runs_total{{{ONE},workflow="w{index}",status="{status}"}}': then(
                steady(0, 60), steady(count, 40)
            )
            for index in range(10)
            for status, count in (("success", 3), ("error", 1))
        },
        At("1h30m", success_overall("75%")),
    ),
)

LATENCIES = (
    # 6 of 10 within 5 s, the rest within 10 s: the 95th of 100 lies at 5 + 5 x (9.5 - 6) / 4 = 9.375 s.
    scenario(Case.FIRES, "4 of 10 runs take 5 s to 10 s", slow(6, 10, 120), At("2h", latency("9.4 s"))),
    scenario(Case.THIN, "4 slow runs in all", SLOW_ONES, At("2h", quiet=LATENCY)),
    scenario(Case.HEALTHY, "98 of 100 runs take at most 2 s", slow(98, 100, 120), At("2h", quiet=LATENCY)),
    resolves(
        "an hour of fast runs after slow ones",
        {
            name: ramp((0 if any(f'le="{bound}"' in name for bound in ("1.0", "2.0", "5.0")) else 10, 120), (10, 70))
            for name in histogram(
                "workflow_duration_seconds", RUN, dict.fromkeys(("1.0", "2.0", "5.0", "10.0", "+Inf"), 0), 1
            )
        },
        latency("9.8 s"),
    ),
    scenario(Case.RESET, "the process restarts amid slow runs", twice(slow(6, 10, 90)), At("1h55m", latency("9.4 s"))),
)

COSTS = (
    scenario(
        Case.FIRES, "6.30 USD a minute for 10 runs", SPENDING.growing((10, 0, 6.3, 120)), At("2h", task_cost("$0.63"))
    ),
    scenario(
        Case.FIRES,
        "half of the runs fail, so what succeeds costs twice as much",
        SPENDING.growing((5, 5, 1, 120)),
        At("2h", task_cost("$0.20")[:1], ("TaskpilotTaskCostCritical",)),
    ),
    scenario(
        Case.FIRST_EVENT,
        "the first calls to a new model cost 6 USD",
        {OK: then(steady(0, 30), steady(10, 30)), BAD: steady(0, 60), COST: then(absent(30), steady(6, 30))},
        At("50m", task_cost("$0.60")),
    ),
    scenario(
        Case.THIN,
        "9 dear runs",
        {
            OK: NINE,
            BAD: steady(0, 120),
            COST: then(steady(0, 60), steady(90, 60)),
        },
        At("1h50m", quiet=TASK_COST),
    ),
    scenario(Case.HEALTHY, "5 cents a run", SPENDING.growing((10, 0, 0.5, 120)), At("2h", quiet=TASK_COST)),
    resolves(
        "an hour of cheap runs after dear ones",
        SPENDING.growing((10, 0, 6.3, 120), (10, 0, 0.1, 70)),
        task_cost("$0.63"),
    ),
    scenario(
        Case.RESET,
        "the process restarts amid dear runs",
        SPENDING.restarted(10, 0, 6.3),
        At("1h55m", task_cost("$0.63")),
    ),
)

REVISED = f'llm_feedback_revisions_total{{{ONE},verdict="incorrect"}}'
FEEDBACK = (
    scenario(Case.FIRES, "6 of 10 verdicts are good", VERDICTS.growing((6, 4, 120)), At("2h", correctness("60%"))),
    scenario(
        Case.FIRES,
        "9 of 10 verdicts are good, but 2 of them are taken back",
        {CORRECT: ramp((9, 120)), WRONG: ramp((1, 120)), REVISED: ramp((2, 120))},
        At("2h", correctness("70%")[:1]),
    ),
    scenario(
        Case.FIRST_EVENT,
        "the first ten verdicts ever, six of them good",
        {CORRECT: then(absent(30), steady(6, 30)), WRONG: then(absent(30), steady(4, 30))},
        At("1h", correctness("60%")),
    ),
    scenario(Case.THIN, "9 verdicts, all bad", {CORRECT: steady(0, 120), WRONG: NINE}, At("1h50m", quiet=CORRECTNESS)),
    scenario(Case.HEALTHY, "95 of 100 verdicts are good", VERDICTS.growing((95, 5, 120)), At("2h", quiet=CORRECTNESS)),
    resolves("an hour of good verdicts after bad ones", VERDICTS.growing((5, 5, 120), (10, 0, 70)), correctness("50%")),
    scenario(
        Case.RESET, "the process restarts amid bad verdicts", VERDICTS.restarted(6, 4), At("1h55m", correctness("60%"))
    ),
)

POLICIES = (
    scenario(Case.FIRES, "5 violations in 100 runs", DENIALS.growing((100, 0, 5, 120)), At("2h", violations("5%"))),
    scenario(
        Case.FIRST_EVENT,
        "sixty runs and the first three violations ever",
        {OK: then(steady(0, 30), steady(60, 30)), BAD: steady(0, 60), VIOLATION: then(absent(30), steady(3, 30))},
        At("1h", violations("5%")),
    ),
    scenario(
        Case.THIN,
        "9 runs and as many violations",
        {
            OK: NINE,
            BAD: steady(0, 120),
            VIOLATION: then(absent(60), ramp((1, 9)), steady(9, 50)),
        },
        At("1h50m", quiet=VIOLATIONS),
    ),
    scenario(Case.HEALTHY, "1 violation in 200 runs", DENIALS.growing((200, 0, 1, 120)), At("2h", quiet=VIOLATIONS)),
    scenario(
        Case.HEALTHY,
        "a process of last week, with a thousand violations behind it, is scraped for the first time",
        {
            OK: then(absent(30), ramp((10, 60), start=90_000)),
            BAD: then(absent(30), steady(0, 60)),
            VIOLATION: then(absent(30), steady(1000, 60)),
            f"taskpilot_obs_start_time_seconds{{{ONE}}}": then(absent(30), steady(-604_800, 60)),
        },
        At("45m", quiet=VIOLATIONS),
        At("1h20m", quiet=VIOLATIONS),
    ),
    resolves("an hour without violations", DENIALS.growing((100, 0, 5, 120), (100, 0, 0, 70)), violations("5%")),
    scenario(
        Case.RESET, "the process restarts amid violations", DENIALS.restarted(100, 0, 5), At("1h55m", violations("5%"))
    ),
)

FAST_S, SLOW_S = SUCCESS_BURN
FAST_L, SLOW_L = LATENCY_BURN


def burns(alerts: tuple[str, str], fast: str, slow: str) -> tuple[Fired, Fired]:
    """The fast and the slow alert of one objective, each with how many times too fast its budget burns."""
    return burn(alerts[0], fast), burn(alerts[1], slow)


BURNS = (
    # 80 % bad at a budget of 5 % burns 16 times too fast.
    scenario(Case.FIRES, "8 of 10 runs fail", runs(2, 8, 120), At("2h", burns(SUCCESS_BURN, "16.0", "16.0"))),
    scenario(
        Case.FIRES,
        "10 % of the runs fail: slow burn only",
        runs(9, 1, 120),
        At("2h", (burn(SLOW_S, "2.0"),), (FAST_S,)),
    ),
    scenario(
        Case.THIN,
        "9 runs, all failed",
        {
            OK: steady(0, 120),
            BAD: NINE,
        },
        At("1h10m", quiet=SUCCESS_BURN),
    ),
    scenario(Case.HEALTHY, "4 % of the runs fail", runs(96, 4, 120), At("2h", quiet=SUCCESS_BURN)),
    scenario(
        Case.RESOLVES,
        "good runs after an hour of outage: fast within half an hour, slow within six",
        RUNS.growing((10, 0, 60), (0, 10, 60), (10, 0, 370)),
        At("2h", burns(SUCCESS_BURN, "20.0", "10.0")),
        At("2h35m", quiet=(FAST_S,)),
        At("8h10m", quiet=SUCCESS_BURN),
    ),
    scenario(
        Case.RESET,
        "the process restarts amid an outage",
        RUNS.restarted(2, 8),
        At("1h55m", burns(SUCCESS_BURN, "16.0", "16.0")),
    ),
    scenario(
        Case.FIRES, "8 of 10 runs take longer than 2 s", slow(2, 10, 120), At("2h", burns(LATENCY_BURN, "16.0", "16.0"))
    ),
    scenario(Case.THIN, "4 slow runs in all", SLOW_ONES, At("1h10m", quiet=LATENCY_BURN)),
    scenario(Case.HEALTHY, "96 of 100 runs take at most 2 s", slow(96, 100, 120), At("2h", quiet=LATENCY_BURN)),
    scenario(
        Case.RESOLVES,
        "fast runs after an hour of slow ones",
        {
            name: ramp((10, 60), (10 if 'le="10.0"' in name or "+Inf" in name else 0, 60), (10, 370))
            for name in histogram("workflow_duration_seconds", RUN, dict.fromkeys(("2.0", "10.0", "+Inf"), 0), 1)
        }
        | runs(10, 0, 490),
        At("2h", burns(LATENCY_BURN, "20.0", "10.0")),
        At("2h35m", quiet=(FAST_L,)),
        At("8h10m", quiet=LATENCY_BURN),
    ),
    scenario(
        Case.RESET,
        "the process restarts amid slow runs",
        twice(slow(2, 10, 90)),
        At("1h55m", burns(LATENCY_BURN, "16.0", "16.0")),
    ),
)

SCENARIOS = (*SUCCESS_RATE, *LATENCIES, *COSTS, *FEEDBACK, *POLICIES, *BURNS)
