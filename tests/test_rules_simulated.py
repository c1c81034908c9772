"""Services run through the shipped rules: what fires when, what resolves, and who is called."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from _scenarios import (
    AT,
    EVENING,
    FAST,
    FAST_MINUTES,
    FINE,
    FINE_MINUTES,
    HOURS,
    HOURS_MINUTES,
    QUIET,
    Fires,
    Scenario,
    evening,
    ordinary,
)
from _simulator import ALWAYS, DAY, HOUR, Episode, Fault, Kind, Outcome, Service, simulate

pytestmark = pytest.mark.timeout(600)
SAID_ALWAYS = "TaskpilotWatchdog"


@cache
def _fine(number: int) -> dict[str, Outcome]:
    """Two hours, evaluated every minute, of every third service; scraped every 15 s where it matters."""
    batches = [
        (FAST, FAST_MINUTES, 15),
        *((FINE[part::3], FINE_MINUTES, 60) for part in range(3)),
        (EVENING, FINE_MINUTES, 60),
    ]
    scenarios, minutes, step_s = batches[number]
    with TemporaryDirectory(prefix="simulated-") as folder:
        return simulate(Path(folder), [each.service for each in scenarios], minutes=minutes, step_s=step_s)


def _batch(scenario: Scenario) -> int:
    if scenario in FINE:
        return 1 + FINE.index(scenario) % 3
    return 0 if scenario in FAST else 4


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Fourteen hours, evaluated every ten minutes."""
    services = [scenario.service for scenario in HOURS]
    return simulate(tmp_path_factory.mktemp("hours"), services, minutes=HOURS_MINUTES, evaluation_s=600)


def _titles(scenarios: Sequence[Scenario]) -> list[str]:
    return [scenario.title for scenario in scenarios]


@pytest.mark.parametrize("scenario", [*FAST, *FINE, *EVENING], ids=_titles((*FAST, *FINE, *EVENING)))
def test_what_fires_within_minutes(scenario: Scenario) -> None:
    """Exactly the alerts of the scenario reach somebody, each within its minutes, and they resolve in time."""
    _compare(scenario, _fine(_batch(scenario))[scenario.service.job])


@pytest.mark.parametrize("scenario", HOURS, ids=_titles(HOURS))
def test_what_fires_within_hours(hours: dict[str, Outcome], scenario: Scenario) -> None:
    """Over half a day, with a night in it, exactly the alerts of the scenario reach somebody, and none comes back."""
    _compare(scenario, hours[scenario.service.job])


def test_a_total_outage_at_two_runs_an_hour_pages_within_65_minutes(tmp_path: Path) -> None:
    """With a run every half an hour, the engineer is called at most 65 minutes after all runs began to fail, once."""
    began = 2 * HOUR
    service = Service("two", 2, even=True, failing=0.0, faults=(Fault(Kind.BUG, began, 2 * HOUR),))
    outcome = simulate(tmp_path, [service], minutes=began + 70, evaluation_s=120)["two"]
    ((_, start, _),) = outcome.pages
    assert began < start <= began + 65


def test_an_outage_right_after_a_recovery_pages_within_65_minutes_at_12_runs_an_hour(tmp_path: Path) -> None:
    """The recovery acquits for an hour only, though a quiet evening has too few runs in minutes to say otherwise."""
    began = QUIET + 5
    faults = (Fault(Kind.PROVIDER, AT, 8), Fault(Kind.BUG, began, 2 * HOUR))
    service = Service("again", lambda minute: evening(minute) or 12, faults=faults, even=True)
    outcome = simulate(tmp_path, [service], minutes=began + 70, evaluation_s=60, pages_only=True)["again"]
    (_, first, over), (_, second, _) = outcome.pages
    assert AT < first < over <= QUIET + 1
    assert began < second <= began + 65


def _compare(scenario: Scenario, outcome: Outcome) -> None:
    told = "\n".join(map(str, sorted(outcome.episodes, key=lambda each: each.start)))
    by_name: dict[str, list[Episode]] = {}
    for episode in outcome.episodes:
        if not episode.inhibited and episode.alert != SAID_ALWAYS:
            by_name.setdefault(episode.alert, []).append(episode)
    assert set(by_name) == {fires.alert for fires in scenario.fires}, told
    for fires in scenario.fires:
        _compare_times(fires, by_name[fires.alert], told)


def _compare_times(fires: Fires, episodes: list[Episode], told: str) -> None:
    first = min(episode.start for episode in episodes)
    last = max(episode.end for episode in episodes)
    assert len(episodes) == fires.times, told
    assert fires.after <= first <= fires.by, told
    assert last <= fires.resolved_by or fires.resolved_by == ALWAYS, told


INCIDENTS = (
    "total outage at 2000 a second",
    "provider outage at 2000 a second",
    "rate limits refuse a third",
    "a provider times out at low traffic",
    "runs are slow",
    "a budget refuses",
    "an attack is blocked",
    "a first event",
    "a guardrail lets pass",
    "records are lost",
    "a service is down",
    "a service that vanishes",
    "users reject answers",
    "calls become dear",
    "a nightly job of five runs that all fail",
)
"""One scenario for each kind of incident that calls somebody."""


@pytest.mark.parametrize("title", INCIDENTS)
def test_an_incident_is_one_page(hours: dict[str, Outcome], title: str) -> None:
    """Whatever goes wrong, the engineer on call is called once: by the cause, and not by what follows from it."""
    (incident,) = (each for each in (*FAST, *FINE, *HOURS) if each.title == title)
    job = incident.service.job
    outcome = hours[job] if incident in HOURS else _fine(_batch(incident))[job]
    assert len(outcome.pages) == 1, outcome.pages


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_ordinary_operation_pages_nobody_in_thirty_days(tmp_path: Path) -> None:
    """Five services, thirty days with nights, deployments, scaling, cron jobs and gaps: not one page.

    Critical alerts are evaluated every five minutes, and count from the moment their condition holds.
    """
    days = 30
    outcomes = simulate(tmp_path, ordinary(days), minutes=days * DAY, evaluation_s=300, pages_only=True)
    assert [(job, page) for job, outcome in outcomes.items() for page in outcome.pages] == []
