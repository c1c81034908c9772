"""What must fire for which service, and when: the cases by which every alert is judged.

Times are minutes after the start. An alert that a scenario does not name must not fire, unless another one inhibits it.
"""

from __future__ import annotations

from typing import NamedTuple

from _simulator import ALWAYS, DAY, HOUR, Fault, Gap, Kind, Life, Service, nightly, replicas, restarting

BUSY = 2_000 * 3_600.0
"""Runs an hour of a service with two thousand a second."""
AT = 62.0
"""When the incident begins in the fine scenarios: the windows of an hour are full by then."""


class Fires(NamedTuple):
    """An alert that must fire."""

    alert: str
    after: float
    """It must not fire before."""
    by: float
    resolved_by: float = ALWAYS
    """It must have ended by then; `ALWAYS`: however long."""
    times: int = 1


class Scenario(NamedTuple):
    """A service and what must come of it."""

    title: str
    service: Service
    fires: tuple[Fires, ...] = ()


def _named(scenarios: tuple[Scenario, ...]) -> tuple[Scenario, ...]:
    for scenario in scenarios:
        assert scenario.service.job == scenario.title.replace(" ", "-"), scenario.title
    return scenarios


def scenario(title: str, rate: object, *fires: Fires, **options: object) -> Scenario:
    """A scenario whose job is called as it is."""
    return Scenario(title, Service(title.replace(" ", "-"), rate, **options), fires)  # type: ignore[arg-type]  # as given


OUTAGE = (Fault(Kind.BUG, AT, 15),)
PROVIDER = (Fault(Kind.PROVIDER, AT, 15),)
FAST = (
    scenario("healthy at 2000 a second", BUSY, price=1e-9),
    scenario(
        "total outage at 2000 a second",
        BUSY,
        Fires("TaskpilotSuccessRateCritical", AT, AT + 3, AT + 22),
        faults=OUTAGE,
        price=1e-9,
    ),
    scenario(
        "provider outage at 2000 a second",
        BUSY,
        Fires("TaskpilotLLMProviderFailing", AT, AT + 3, AT + 22),
        faults=PROVIDER,
        price=1e-9,
    ),
)
QUIET = AT + 14
"""When work ends, in the scenarios of an evening."""


def evening(minute: float) -> float:
    """Two runs a second until an incident is over, and then none."""
    return 7_200 if minute <= QUIET else 0


def into_the_evening(title: str, kind: Kind, alert: str) -> Scenario:
    """A service that recovers from an incident, with enough runs to show it, before it falls silent."""
    return scenario(title, evening, Fires(alert, AT, AT + 8, QUIET + 1), faults=(Fault(kind, AT, 8),), price=1e-6)


DENIED = Fault(Kind.DENIALS, 0, ALWAYS, 0.1)
"""A policy that only reports, and does so all the time."""
FINE = (
    scenario("healthy at 720 an hour", 720),
    scenario("healthy at 2 an hour", 2, even=True),
    scenario(
        "provider outage at 720 an hour",
        720,
        Fires("TaskpilotLLMProviderFailing", AT, AT + 8, AT + 24),
        faults=PROVIDER,
    ),
    scenario(
        "rate limits refuse a third",
        7_200,
        Fires("TaskpilotLLMProviderFailing", AT, AT + 4, AT + 22),
        faults=(Fault(Kind.RATE_LIMIT, AT, 15, 0.3),),
    ),
    scenario(
        "a failing provider and ten calls a run",
        7_200,
        Fires("TaskpilotLLMProviderFailing", AT, AT + 4, AT + 22),
        faults=PROVIDER,
        calls=10,
        price=1e-6,
    ),
    scenario(
        "rate limits refuse one of thirty calls",
        7_200,
        Fires("TaskpilotLLMProviderFailing", AT, AT + 4, AT + 22),
        faults=(Fault(Kind.RATE_LIMIT, AT, 15, 0.3),),
        calls=10,
        price=1e-6,
    ),
    scenario(
        "a provider times out at low traffic",
        120,
        Fires("TaskpilotLLMProviderFailing", AT, AT + 10),
        faults=(Fault(Kind.TIMEOUT, AT, 15),),
        calls=10,
        price=1e-6,
    ),
    scenario(
        "a budget refuses",
        7_200,
        Fires("TaskpilotBudgetAlmostGone", AT, AT + 4, AT + 22),
        Fires("TaskpilotBudgetRefusals", AT, AT + 4),
        faults=(Fault(Kind.BUDGET, AT, 15),),
    ),
    scenario(
        "an outage while policies only report",
        7_200,
        Fires("TaskpilotPolicyViolationRateCritical", 0, 10),
        Fires("TaskpilotSuccessRateCritical", AT, AT + 4, AT + 22),
        faults=(DENIED, *OUTAGE),
    ),
    scenario(
        "an outage while retries cope with a provider",
        7_200,
        # It accounts for the few runs that fail before and after, and not for those of the outage.
        Fires("TaskpilotLLMProviderFailing", 0, 10, times=3),
        Fires("TaskpilotSuccessRateCritical", AT, AT + 4, AT + 22),
        faults=(Fault(Kind.FLAKY, 0, ALWAYS, 0.08), *OUTAGE),
    ),
    scenario("one failed scrape", 720, gaps=(Gap(AT, 1),)),
    scenario(
        "one failed scrape after events long ago",
        720,
        Fires("TaskpilotCriticalPolicyViolation", 4, 6, 66),
        gaps=(Gap(AT + 5, 1),),
        faults=(Fault(Kind.CRITICAL_VIOLATION, 4, 0.5),),
    ),
    scenario("a gap of one minute in all of Prometheus", 720, gaps=(Gap(AT, 1, server=True),)),
    scenario("a gap of ten minutes in all of Prometheus", 720, gaps=(Gap(AT, 10, server=True),)),
    scenario("a restart", 720, lives=restarting(AT)),
    scenario("a deployment of four replicas", 7_200, lives=restarting(AT, count=4)),
    scenario(
        "an event in a gap of ten minutes",
        720,
        Fires("TaskpilotCriticalPolicyViolation", AT, AT + 12),
        gaps=(Gap(AT, 10, server=True),),
        faults=(Fault(Kind.CRITICAL_VIOLATION, AT + 5, 0.5),),
    ),
    scenario(
        "an event just after adoption",
        720,
        Fires("TaskpilotCriticalPolicyViolation", AT + 20, AT + 22),
        lives=((Life(begin=-600, known=AT),),),
        faults=(Fault(Kind.CRITICAL_VIOLATION, AT + 20, 0.5),),
    ),
    scenario(
        "adoption of a process with a past",
        7_200,
        lives=((Life(begin=0, known=AT),),),
        faults=(Fault(Kind.CRITICAL_VIOLATION, 4, 0.5), Fault(Kind.BUG, 10, 20)),
    ),
    scenario(
        "a first event",
        720,
        Fires("TaskpilotCriticalPolicyViolation", AT, AT + 2),
        faults=(Fault(Kind.CRITICAL_VIOLATION, AT, 0.5),),
    ),
    scenario(
        "one of eight replicas is down",
        7_200,
        Fires("TaskpilotTargetDown", AT, AT + 7, AT + 17),
        lives=replicas(8),
        gaps=(Gap(AT, 15, replica=3),),
    ),
    scenario(
        "a service is down",
        7_200,
        Fires("TaskpilotServiceDown", AT, AT + 7, AT + 17),
        lives=replicas(2),
        gaps=(Gap(AT, 15),),
    ),
    scenario(
        "a guardrail lets pass",
        720,
        Fires("TaskpilotGuardrailBypassed", AT, AT + 2),
        faults=(Fault(Kind.BYPASS, AT, 15, 0.5),),
    ),
    scenario(
        "a guard stops an experiment",
        720,
        Fires("TaskpilotExperimentStopped", AT, AT + 2),
        faults=(Fault(Kind.EXPERIMENT, AT, 0.5),),
    ),
    scenario(
        "an attack is blocked",
        7_200,
        Fires("TaskpilotPolicyViolationRateCritical", AT, AT + 4, AT + 22),
        faults=(Fault(Kind.ATTACK, AT, 15, 0.3),),
    ),
    scenario(
        "runs are slow",
        7_200,
        Fires("TaskpilotLatencyCritical", AT, AT + 4, AT + 24),
        faults=(Fault(Kind.SLOW, AT, 15),),
    ),
    scenario(
        "records are lost",
        720,
        Fires("TaskpilotRecordsDropped", AT, AT + 2, AT + 18),
        faults=(Fault(Kind.DROPPED, AT, 0.5, 100),),
    ),
    scenario(
        "an agent loops",
        720,
        Fires("TaskpilotAgentLooping", AT, AT + 3),
        faults=(Fault(Kind.LOOP, AT, 30, 0.2),),
    ),
)
EVENING = (
    into_the_evening("failed runs before silence", Kind.BUG, "TaskpilotSuccessRateCritical"),
    into_the_evening("a failing provider before silence", Kind.PROVIDER, "TaskpilotLLMProviderFailing"),
    into_the_evening("slow runs before silence", Kind.SLOW, "TaskpilotLatencyCritical"),
    into_the_evening("an attack before silence", Kind.ATTACK, "TaskpilotPolicyViolationRateCritical"),
    scenario(
        "a guardrail that raises before silence",
        evening,
        Fires("TaskpilotGuardrailErrors", AT, AT + 8, QUIET + 1),
        Fires("TaskpilotInternalErrors", AT, AT + 8, QUIET + 15),
        faults=(Fault(Kind.GUARDRAIL, AT, 8),),
        price=1e-6,
    ),
    scenario(
        "a failing provider before a quiet evening",
        lambda minute: evening(minute) or 12,
        Fires("TaskpilotLLMProviderFailing", AT, AT + 4, QUIET + 1),
        faults=(Fault(Kind.PROVIDER, AT, 8),),
        failing=0.0,
    ),
    scenario(
        "a provider that fails again in a quiet evening",
        lambda minute: evening(minute) or 120,
        Fires("TaskpilotLLMProviderFailing", AT, AT + 4, times=2),
        faults=(Fault(Kind.PROVIDER, AT, 8), Fault(Kind.PROVIDER, AT + 25, 25)),
        failing=0.0,
    ),
)
FINE_MINUTES = 112
FAST_MINUTES = 92

SHORT_NIGHT = 6.0 * HOUR
HOURS = (
    scenario(
        "an incident before a night",
        lambda minute: 120 if minute < SHORT_NIGHT else 4,
        Fires("TaskpilotSuccessRateCritical", 3 * HOUR, 3 * HOUR + 30, 4 * HOUR + 20),
        faults=(Fault(Kind.BUG, 3 * HOUR, 20),),
    ),
    scenario(
        "a provider incident before a night",
        lambda minute: 1_200 if minute < SHORT_NIGHT else 2,
        Fires("TaskpilotLLMProviderFailing", 3 * HOUR, 3 * HOUR + 20, 3 * HOUR + 50),
        faults=(Fault(Kind.PROVIDER, 3 * HOUR, 20),),
    ),
    scenario(
        "total outage at 2 an hour",
        2,
        Fires("TaskpilotSuccessRateCritical", 4 * HOUR + 30, 4 * HOUR + 80, 8 * HOUR + 10),
        even=True,
        failing=0.0,
        faults=(Fault(Kind.BUG, 4 * HOUR, 3 * HOUR),),
    ),
    scenario(
        "a nightly job of five runs that all fail",
        30,
        Fires("TaskpilotSuccessRateCritical", 3 * HOUR, 3 * HOUR + 30, 4 * HOUR + 30),
        even=True,
        lives=((Life(3 * HOUR, 3 * HOUR + 10, 3 * HOUR),),),
        faults=(Fault(Kind.BUG, 0, ALWAYS),),
    ),
    scenario(
        "a cron job of ten minutes",
        60,
        lives=((Life(2 * HOUR, 2 * HOUR + 10, 2 * HOUR), Life(6 * HOUR, 6 * HOUR + 10, 6 * HOUR)),),
    ),
    scenario(
        "a service that vanishes",
        720,
        Fires("TaskpilotTelemetryAbsent", 9 * HOUR, 9 * HOUR + 20),
        lives=((Life(0, 9 * HOUR),),),
    ),
    scenario(
        "scaling in and out",
        7_200,
        lives=((Life(),), (Life(2 * HOUR, 5 * HOUR, 2 * HOUR),), (Life(3 * HOUR, 4 * HOUR, 3 * HOUR),)),
    ),
    scenario(
        "an event before a failed scrape",
        720,
        Fires("TaskpilotCriticalPolicyViolation", HOUR, HOUR + 10, 2 * HOUR + 10),
        gaps=(Gap(3 * HOUR, 1), Gap(5 * HOUR, 2), Gap(7 * HOUR, 60, server=True)),
        faults=(Fault(Kind.CRITICAL_VIOLATION, HOUR, 0.5),),
    ),
    scenario(
        "an event in a gap of an hour",
        720,
        Fires("TaskpilotCriticalPolicyViolation", 4 * HOUR, 4 * HOUR + 10, 5 * HOUR + 10),
        gaps=(Gap(3 * HOUR, 60, server=True),),
        faults=(Fault(Kind.CRITICAL_VIOLATION, 3 * HOUR + 20, 0.5),),
    ),
    scenario("six deployments", 720, lives=restarting(60, 180, 300, 420, 540, 660, count=2)),
    scenario("a constant rate of denials from the start", 6_000, faults=(Fault(Kind.DENIALS, 0, ALWAYS, 0.004),)),
    scenario("ordinary failures at 10 an hour", 10, failing=0.01),
    scenario("gaps of many lengths", 720, gaps=(Gap(2 * HOUR, 1), Gap(4 * HOUR, 3), Gap(6 * HOUR, 60, server=True))),
    scenario(
        "users reject answers",
        720,
        Fires("TaskpilotCorrectnessLow", 3 * HOUR, 4 * HOUR, 13 * HOUR),
        Fires("TaskpilotCorrectnessCritical", 3 * HOUR, 5 * HOUR, 13 * HOUR),
        faults=(Fault(Kind.WRONG, 3 * HOUR, 4 * HOUR, 0.8),),
    ),
    scenario(
        "calls become dear",
        720,
        Fires("TaskpilotTaskCostHigh", 3 * HOUR, 3 * HOUR + 40, 6 * HOUR),
        Fires("TaskpilotTaskCostCritical", 3 * HOUR, 4 * HOUR + 30, 6 * HOUR),
        Fires("TaskpilotLLMCostPerHourHigh", 3 * HOUR, 3 * HOUR + 40, 6 * HOUR + 10),
        faults=(Fault(Kind.DEAR, 3 * HOUR, 2 * HOUR),),
    ),
    scenario(
        "runs get stuck",
        60,
        Fires("TaskpilotAgentStuck", 3 * HOUR, 4 * HOUR),
        faults=(Fault(Kind.STUCK, 3 * HOUR, ALWAYS),),
    ),
)
HOURS_MINUTES = 14 * HOUR


def ordinary(days: int) -> tuple[Service, ...]:
    """Five services in ordinary operation: nights, deployments, scaling, cron jobs, gaps in scraping."""

    def office(minute: float) -> float:
        hour = minute / 60 % 24
        return 600 if 8 <= hour < 18 else 12

    restarts = [day * DAY + 11 * HOUR for day in range(days) if day % 2]
    scraped = tuple(Gap(day * DAY + 13 * HOUR, 2) for day in range(0, days, 3))
    away = tuple(Gap(day * DAY + 5 * HOUR, 10 * (day % 6 + 1), server=True) for day in range(2, days, 5))
    scaled = tuple(Life(day * DAY + 9 * HOUR, day * DAY + 17 * HOUR, day * DAY + 9 * HOUR) for day in range(days))
    return (
        Service("busy", 360_000, price=1e-7, lives=restarting(*restarts, count=2), gaps=(*scraped, *away)),
        Service("office", office, lives=((Life(),), scaled), gaps=(*scraped, *away)),
        Service("steady", 60, failing=0.005, lives=restarting(*restarts), gaps=away),
        Service("rare", 2, failing=0.005, lives=restarting(*restarts), gaps=away),
        Service("nightly", 60, failing=0.0, lives=nightly(days), gaps=away),
    )
