"""What the alerts on LLM calls must do."""

from __future__ import annotations

from taskpilot_obs.rules.cases import At, Case, Fired, Scenario, resolves, scenario
from taskpilot_obs.rules.llm.expected import (
    CACHE,
    CALL,
    ERRORS,
    FAILING,
    HOUR,
    MODEL,
    ONE,
    PROMPT_CACHE,
    SPIKE,
    cache,
    errors,
    explained,
    fell,
    first_token,
    no_usage,
    per_hour,
    rate_limited,
    retried,
    slow,
    spike,
    unpriced,
)
from taskpilot_obs.rules.series import Counters, absent, by_label, histogram, ramp, steady, then, twice

OK, BAD = by_label("llm_requests_total", CALL, "status", "success", "error")
LIMITED = f'llm_errors_total{{{CALL},error_type="rate_limit"}}'
RETRIES = f"llm_retries_total{{{MODEL}}}"
UNPRICED, NO_USAGE = f"llm_unpriced_requests_total{{{MODEL}}}", f"llm_usage_missing_total{{{MODEL}}}"
BILLABLE = f"llm_billable_requests_total{{{MODEL}}}"
HITS = f'llm_cache_hits_total{{{ONE},agent="planner",model="m1"}}'
MISSES = f'llm_cache_misses_total{{{ONE},agent="planner",model="m1"}}'
COST = f"llm_cost_usd_total{{{CALL}}}"
CALLS, LOOKUPS = Counters(OK, BAD), Counters(HITS, MISSES)
DURATION, FIRST_TOKEN = "llm_request_duration_seconds", "llm_time_to_first_token_seconds"

DAY = 1440


def runs_fail(a_minute: int, minutes: int) -> dict[str, str]:
    """So many failed runs; what another folder records of them."""
    return {
        f'workflow_runs_total{{{ONE},workflow="support",status="error"}}': ramp((a_minute, minutes)),
        'workflow:workflow_runs:success_ratio_low{job="shop",workflow="support"}': steady(0.8, minutes),
    }


def calls(good: float, bad: float, minutes: int) -> dict[str, str]:
    """Calls a minute."""
    return CALLS.growing((good, bad, minutes))


def late(name: str, bounds: tuple[str, str], counts: tuple[float, float], minutes: int) -> dict[str, str]:
    """Observations a minute up to the first and up to the second bound."""
    low, high = counts
    return histogram(name, MODEL, {bounds[0]: low, bounds[1]: high, "+Inf": high}, minutes)


def share(series: str, fires: tuple[Fired], what: str, few: float, many: float) -> tuple[Scenario, ...]:
    """The cases of an alert on one sort of event among 100 calls a minute: `many` are too many, `few` are not."""
    alert = fires[0].alert
    base = calls(100, 0, 120) | {BILLABLE: ramp((100, 120))}
    return (
        scenario(Case.FIRES, f"{many:g} {what} in 100 calls", base | {series: ramp((many, 120))}, At("2h", fires)),
        scenario(
            Case.FIRST_EVENT,
            f"{many:g} {what} in 100 calls, the first ones ever",
            {OK: then(steady(0, 30), steady(100, 40)), BAD: steady(0, 70)}
            | {BILLABLE: then(steady(0, 30), steady(100, 40))}
            | {series: then(absent(30), steady(many, 40))},
            At("1h", fires),
        ),
        scenario(
            Case.THIN,
            f"19 calls, 19 {what}",
            {OK: then(steady(0, 60), ramp((1, 19)), steady(19, 40)), BAD: steady(0, 120)}
            | {BILLABLE: then(steady(0, 60), ramp((1, 19)), steady(19, 40))}
            | {series: then(steady(0, 60), ramp((1, 19)), steady(19, 40))},
            At("1h50m", quiet=(alert,)),
        ),
        scenario(
            Case.HEALTHY, f"{few:g} {what} in 100 calls", base | {series: ramp((few, 120))}, At("2h", quiet=(alert,))
        ),
        resolves(
            f"an hour without {what}",
            calls(100, 0, 190) | {BILLABLE: ramp((100, 190))} | {series: ramp((many, 120), (0, 70))},
            fires,
        ),
        scenario(
            Case.RESET,
            f"the process restarts amid {what}",
            {
                OK: then(ramp((100, 90)), ramp((100, 90))),
                BAD: steady(0, 180),
                BILLABLE: then(ramp((100, 90)), ramp((100, 90))),
            }
            | {series: then(ramp((many, 90)), ramp((many, 90)))},
            At("1h55m", fires),
        ),
    )


def latency(
    name: str, bounds: tuple[str, str], bad: tuple[float, float], good: tuple[float, float], fires: tuple[Fired]
) -> tuple[Scenario, ...]:
    """The cases of an alert on a quantile: `bad` and `good` are calls a minute up to either bound."""
    alert = fires[0].alert
    slow_calls = late(name, bounds, bad, 120)
    return (
        scenario(Case.FIRES, f"calls beyond {bounds[0]} s", slow_calls, At("2h", fires)),
        scenario(
            Case.THIN,
            "19 slow calls",
            {series: then(steady(0, 60), steady(0 if bounds[0] in series else 19, 60)) for series in slow_calls},
            At("1h50m", quiet=(alert,)),
        ),
        scenario(Case.HEALTHY, f"calls within {bounds[0]} s", late(name, bounds, good, 120), At("2h", quiet=(alert,))),
        resolves(
            "an hour of fast calls after slow ones",
            {series: ramp((bad[0] if bounds[0] in series else bad[1], 120), (bad[1], 70)) for series in slow_calls},
            fires,
        ),
        scenario(
            Case.RESET, "the process restarts amid slow calls", twice(late(name, bounds, bad, 90)), At("1h55m", fires)
        ),
    )


FAILURES = (
    scenario(Case.FIRES, "8 of 100 calls fail", calls(92, 8, 120), At("2h", errors("8%"))),
    scenario(
        Case.FIRES,
        "2 of 100 calls fail, which is a warning only",
        calls(98, 2, 120),
        At("2h", errors("2%")[:1], (FAILING,)),
    ),
    scenario(
        Case.FIRES,
        "2 of 100 calls fail, and runs by them",
        calls(98, 2, 120) | runs_fail(2, 120),
        At("2h", explained("2%")),
    ),
    scenario(
        Case.HEALTHY,
        "2 of 100 calls fail, and more runs than calls",
        calls(98, 2, 120) | runs_fail(3, 120),
        At("2h", quiet=(FAILING,)),
    ),
    scenario(
        Case.FIRST_EVENT,
        "the first twenty calls to a new model fail",
        {BAD: then(absent(20), steady(20, 20))},
        At("40m", errors("100%")),
    ),
    scenario(Case.THIN, "2 of 20 calls fail", CALLS.at_once(18, 2), At("1h50m", quiet=(ERRORS, FAILING))),
    scenario(Case.HEALTHY, "5 of 1,000 calls fail", calls(995, 5, 120), At("2h", quiet=(ERRORS, FAILING))),
    resolves("an hour of good calls after an outage", CALLS.growing((5, 5, 120), (10, 0, 70)), errors("50%")),
    scenario(Case.RESET, "the process restarts amid an outage", CALLS.restarted(92, 8), At("1h55m", errors("8%"))),
)

CACHES = (
    scenario(Case.FIRES, "2 hits in 10 look-ups", LOOKUPS.growing((2, 8, 120)), At("2h", cache("20%"))),
    scenario(Case.FIRES, "only misses, no series of hits at all", {MISSES: ramp((8, 120))}, At("2h", cache("0%"))),
    scenario(
        Case.THIN,
        "19 misses",
        {HITS: steady(0, 120), MISSES: then(steady(0, 60), ramp((1, 19)), steady(19, 40))},
        At("1h50m", quiet=(CACHE,)),
    ),
    scenario(Case.HEALTHY, "4 hits in 10 look-ups", LOOKUPS.growing((4, 6, 120)), At("2h", quiet=(CACHE,))),
    scenario(Case.HEALTHY, "only hits, no series of misses at all", {HITS: ramp((8, 120))}, At("2h", quiet=(CACHE,))),
    resolves("an hour of hits after misses", LOOKUPS.growing((2, 8, 120), (10, 0, 70)), cache("20%")),
    scenario(Case.RESET, "the process restarts amid misses", LOOKUPS.restarted(2, 8), At("1h55m", cache("20%"))),
)

SPENDING = (
    scenario(Case.FIRES, "10 cents a minute", {COST: ramp((0.1, 120))}, At("2h", per_hour("$6.00"))),
    scenario(
        Case.FIRST_EVENT,
        "the first call to a new model costs 7 USD",
        {COST: then(absent(30), steady(7, 60))},
        At("1h", per_hour("$7.00")),
    ),
    scenario(Case.THIN, "one call of 4.99 USD", {COST: then(steady(0, 30), steady(4.99, 60))}, At("1h", quiet=(HOUR,))),
    scenario(Case.HEALTHY, "5 cents a minute", {COST: ramp((0.05, 120))}, At("2h", quiet=(HOUR,))),
    resolves("an hour at a low rate", {COST: ramp((0.1, 120), (0.01, 70))}, per_hour("$6.00")),
    scenario(
        Case.RESET,
        "the process restarts",
        {COST: then(ramp((0.1, 90)), ramp((0.1, 90)))},
        At("1h50m", per_hour("$5.90")),
    ),
    scenario(
        Case.FIRES,
        "four times as dear as at the same hour yesterday",
        {COST: ramp((0.01, DAY + 60), (0.04, 70))},
        At("26h10m", spike("$2.40")),
    ),
    scenario(
        Case.THIN,
        "a hundred times as dear, but cents",
        {COST: ramp((0.0001, DAY + 60), (0.01, 70))},
        At("26h10m", quiet=(SPIKE,)),
    ),
    scenario(
        Case.HEALTHY,
        "twice as dear as yesterday",
        {COST: ramp((0.02, DAY + 60), (0.04, 70))},
        At("26h10m", quiet=(SPIKE,)),
    ),
    scenario(
        Case.HEALTHY, "the first day, with nothing to compare", {COST: ramp((0.08, 180))}, At("3h", quiet=(SPIKE,))
    ),
    scenario(
        Case.RESOLVES,
        "an hour at the usual rate",
        {COST: ramp((0.01, DAY + 60), (0.04, 60), (0.01, 70))},
        At("26h", spike("$2.40")),
        At("27h10m", quiet=(SPIKE,)),
    ),
    scenario(
        Case.RESET,
        "the process restarts amid the spike",
        {COST: then(ramp((0.01, DAY + 60), (0.04, 30)), ramp((0.04, 50)))},
        At("26h10m", spike("$2.36")),
    ),
)


def prompts(*phases: tuple[float, int], calls: float = 10) -> dict[str, str]:
    """So many calls a minute of 1,000 tokens; (tokens a minute that are read from the cache, minutes)."""
    minutes = sum(length for _, length in phases)
    return {
        f'llm_tokens_total{{{CALL},token_type="input"}}': ramp((1000 * calls, minutes)),
        f'llm_token_details_total{{{MODEL},detail="cache_read"}}': ramp(*phases),
        f'{DURATION}_bucket{{{MODEL},le="+Inf"}}': ramp((calls, minutes)),
    }


PROMPT_CACHES = (
    scenario(
        Case.FIRES,
        "the share falls from 60 % to 10 %",
        prompts((6000, DAY + 70), (1000, 80)),
        At("26h20m", fell("10%")),
    ),
    scenario(
        Case.THIN,
        "a call every ten minutes",
        prompts((60, DAY + 70), (10, 80), calls=0.1),
        At("26h20m", quiet=(PROMPT_CACHE,)),
    ),
    scenario(Case.HEALTHY, "a steady share", prompts((6000, DAY + 150)), At("26h20m", quiet=(PROMPT_CACHE,))),
    scenario(Case.HEALTHY, "caching was never used", prompts((0, DAY + 150)), At("26h20m", quiet=(PROMPT_CACHE,))),
    scenario(
        Case.RESOLVES,
        "an hour with the usual share",
        prompts((6000, DAY + 70), (1000, 80), (6000, 80)),
        At("26h20m", fell("10%")),
        At("27h40m", quiet=(PROMPT_CACHE,)),
    ),
    scenario(
        Case.RESET,
        "the process restarts",
        {name: then(*[values] * 2) for name, values in prompts((6000, DAY)).items()},
        At("25h", quiet=(PROMPT_CACHE,)),
        At("26h", quiet=(PROMPT_CACHE,)),
    ),
)

SCENARIOS = (
    *FAILURES,
    *PROMPT_CACHES,
    *share(LIMITED, rate_limited("8%"), "rate limits", 2, 8),
    *share(RETRIES, retried("25%"), "retries", 5, 25),
    *share(UNPRICED, unpriced("8%"), "unpriced calls", 2, 8),
    *share(NO_USAGE, no_usage("8%"), "calls without usage", 2, 8),
    # 90 of 100 within 10 s, the rest within 30 s: 10 + 20 x (99 - 90) / 10 = 28 s.
    *latency(DURATION, ("10.0", "30.0"), (90, 100), (100, 100), slow("28.0 s")),
    # 80 of 100 within 5 s, the rest within 10 s: 5 + 5 x (95 - 80) / 20 = 8.75 s.
    *latency(FIRST_TOKEN, ("5.0", "10.0"), (80, 100), (100, 100), first_token("8.8 s")),
    *CACHES,
    *SPENDING,
)
