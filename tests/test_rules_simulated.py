"""Services run through the shipped rules: what fires when, what resolves, and who is called."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from _scenarios import FAST, FAST_MINUTES, FINE, FINE_MINUTES, HOURS, HOURS_MINUTES, Fires, Scenario, ordinary
from _simulator import ALWAYS, DAY, Episode, Outcome, simulate

pytestmark = pytest.mark.timeout(600)
SAID_ALWAYS = "TaskpilotWatchdog"


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Two hours, evaluated every minute; scraped every 15 s where it matters."""
    few = [scenario.service for scenario in FAST]
    many = [scenario.service for scenario in FINE]
    fast = simulate(tmp_path_factory.mktemp("fast"), few, minutes=FAST_MINUTES, step_s=15)
    return fast | simulate(tmp_path_factory.mktemp("fine"), many, minutes=FINE_MINUTES)


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Fourteen hours, evaluated every ten minutes."""
    services = [scenario.service for scenario in HOURS]
    return simulate(tmp_path_factory.mktemp("hours"), services, minutes=HOURS_MINUTES, evaluation_s=600)


def _titles(scenarios: Sequence[Scenario]) -> list[str]:
    return [scenario.title for scenario in scenarios]


@pytest.mark.parametrize("scenario", [*FAST, *FINE], ids=_titles((*FAST, *FINE)))
def test_what_fires_within_minutes(fine: dict[str, Outcome], scenario: Scenario) -> None:
    """Exactly the alerts of the scenario reach somebody, each within its minutes, and they resolve in time."""
    _compare(scenario, fine[scenario.service.job])


@pytest.mark.parametrize("scenario", HOURS, ids=_titles(HOURS))
def test_what_fires_within_hours(hours: dict[str, Outcome], scenario: Scenario) -> None:
    """Over half a day, with a night in it, exactly the alerts of the scenario reach somebody, and none comes back."""
    _compare(scenario, hours[scenario.service.job])


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


@pytest.mark.full
def test_ordinary_operation_pages_nobody_in_thirty_days(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Five services, thirty days with nights, deployments, scaling, cron jobs and gaps: not one page."""
    days = 30
    folder = tmp_path_factory.mktemp("month")
    outcomes = simulate(folder, ordinary(days), minutes=days * DAY, evaluation_s=600)
    assert [(job, page) for job, outcome in outcomes.items() for page in outcome.pages] == []
