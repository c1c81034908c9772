"""A provider outage in a service of four gunicorn workers, from the first failed call to six hours after the last.

What happens is real: gunicorn, Prometheus with the shipped rules at a fast pace (`_stack.py`), Alertmanager with the
shipped routes. One scrape fails before the outage, and Prometheus is restarted during it. Then every scrape that
Prometheus stored is replayed in promtool at the shipped pace, followed by six hours of a task every half an hour.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from _dashboards import ask, back_fill
from _gunicorn import WORKERS, get, gunicorn
from _scraped import Paced, Scrapes, figures, grown, replayed, scrapes_of
from _servers import ALERTMANAGER_BINARIES, PROMETHEUS_BINARIES, alertmanager_server, prometheus_server, require_binary
from _simulator import ALWAYS, Outcome, judged
from _stack import JOB, alertmanager_config, prometheus_config, render, write_history
from _stages import WAIT_S, until
from _webhook import Delivery, Webhook, receiving

from taskpilot_obs._support.assets import export_assets

CAUSE = "TaskpilotLLMProviderFailing"
HEALTHY_SCRAPES = 20
BURST = 200
"""Runs that fail at once: the windows of the rules are not as fast as the pace, so that shares would grow slowly."""
GOOD_FOR_A_BAD = 30
"""Runs that succeed after the outage for each that failed in it: less than 5 % are bad, which acquits the provider."""
QUIET_S = 6.0
"""Longer than any evaluation and any wait of Alertmanager's at the fast pace."""
STEP_S, HOURS_AFTER, EVERY_S = 15, 6, 1_800
PACE = Paced(STEP_S, gap=8, away_s=1.0)
"""The shipped scrape interval; Prometheus is away for two minutes."""


class Service:
    """The service, and what Prometheus knows of it."""

    def __init__(self, port: int, switches: Path) -> None:
        self.port, self.switches = port, switches
        self.instance = f"127.0.0.1:{port}"
        self.runs = 0
        self.workers: set[str] = set()

    def serve(self, runs: int) -> None:
        """One request, which takes so many runs."""
        self.workers.add(get(self.port, f"/?{runs}"))
        self.runs += runs

    def serve_until(self, condition: Callable[[], object], runs: int, what: str) -> None:
        """Requests, one after the other, until something has happened."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"no sign of {what}"
            self.serve(runs)
            time.sleep(0.2)

    def is_scraped(self, prometheus: str) -> bool:
        """Whether Prometheus knows of every run."""
        found = ask(prometheus, "query", query=f'sum(workflow_runs_total{{instance="{self.instance}"}})')["result"]
        return bool(found) and float(found[0]["value"][1]) == self.runs

    def up(self, prometheus: str) -> list[float]:
        """Which scrapes succeeded."""
        found = ask(prometheus, "query", query=f'up{{job="{JOB}",instance="{self.instance}"}}[30m]')["result"]
        return [float(value) for series in found for _, value in series["values"]]


class Seen(NamedTuple):
    """What came of it."""

    deliveries: tuple[Delivery, ...]
    scrapes: Scrapes
    workers: int
    restarted_at: float


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """The whole incident."""
    for names in (PROMETHEUS_BINARIES, ALERTMANAGER_BINARIES, ("promtool",)):
        require_binary(*names)
    folder = tmp_path_factory.mktemp("outage")
    export_assets(folder)
    render(folder / "fast.yml", folder / "prometheus" / "rules")
    write_history(folder / "history.om", int(time.time()))
    back_fill(folder / "history.om", folder / "data")
    home = tmp_path_factory.mktemp("service")
    serving = gunicorn(
        home, "--worker-class=gthread", "--threads=2", app="_outage_service:app", variables={"SWITCHES": str(home)}
    )
    with (
        serving as port,
        receiving() as webhook,
        alertmanager_server(alertmanager_config(folder, webhook)) as alertmanager,
    ):
        service = Service(port, home)
        config = prometheus_config(folder, service.instance, alertmanager)
        yield _incident(service, webhook, config, folder / "data")


def _incident(service: Service, webhook: Webhook, config: Path, data: Path) -> Seen:
    with ExitStack() as servers:
        prometheus = servers.enter_context(prometheus_server(config, data_dir=data))
        _healthy(service, prometheus)
        healthy = service.runs
        (service.switches / "down").touch()
        service.serve(BURST)
        service.serve_until(lambda: _came(webhook, "firing"), 2, "the page")
        servers.close()
        restarted_at = time.time()
        prometheus = servers.enter_context(prometheus_server(config, data_dir=data))
        service.serve_until(lambda: _fires(prometheus), 2, "the alert after the restart")
        _still(service, runs=2)
        (service.switches / "down").unlink()
        enough = service.runs + GOOD_FOR_A_BAD * (service.runs - healthy)
        service.serve_until(lambda: _came(webhook, "resolved") and service.runs >= enough, 200, "the end of the alert")
        until(lambda: service.is_scraped(prometheus), "the last run")
        service.serve(1)
        until(lambda: service.is_scraped(prometheus), "one more run")
        time.sleep(QUIET_S)
        scrapes = scrapes_of(prometheus, JOB, service.instance)
        return Seen(tuple(webhook.deliveries), scrapes, len(service.workers), restarted_at)


def _healthy(service: Service, prometheus: str) -> None:
    """Ordinary requests; then one scrape fails."""
    service.serve_until(
        lambda: len(service.up(prometheus)) >= HEALTHY_SCRAPES and len(service.workers) == WORKERS, 5, "health"
    )
    (service.switches / "deaf").touch()
    until(lambda: 0 in service.up(prometheus), "a failed scrape")
    (service.switches / "deaf").unlink()
    service.serve_until(lambda: service.up(prometheus)[-3:] == [1, 1, 1], 5, "scrapes that succeed again")


def _still(service: Service, runs: int) -> None:
    """The outage goes on for a while."""
    end = time.monotonic() + QUIET_S
    service.serve_until(lambda: time.monotonic() > end, runs, "time passing")


def _came(webhook: Webhook, status: str) -> bool:
    return any((each.name, each.status) == (CAUSE, status) for each in webhook.deliveries)


def _fires(prometheus: str) -> list[dict[str, Any]]:
    query = f'ALERTS{{alertname="{CAUSE}",alertstate="firing"}} and on () (time() - timestamp(up{{job="{JOB}"}}) < 2)'
    found: list[dict[str, Any]] = ask(prometheus, "query", query=query)["result"]
    return found


def test_the_incident_was_as_described(seen: Seen) -> None:
    """Four workers served; a scrape failed before the first failed run; Prometheus was away during the outage."""
    assert seen.workers == WORKERS
    failed_scrapes = [index for index, up in enumerate(seen.scrapes.up) if not up]
    failures = figures(seen.scrapes, "llm_errors_total{")
    outage = [index for index, count in enumerate(failures) if count]
    assert failed_scrapes
    assert min(failed_scrapes) < outage[0]
    times = seen.scrapes.times
    last = max(index for index, at in enumerate(times) if at < seen.restarted_at)
    assert times[last + 1] - times[last] > PACE.away_s
    assert outage[0] < last < failures.index(failures[-1])


def _one_run(scrapes: Scrapes) -> dict[str, float]:
    """What the last run, which came alone, added to each counter."""
    runs = figures(scrapes, "workflow_runs_total{")
    return grown(scrapes, max(index for index, count in enumerate(runs) if count == runs[-1] - 1))


def test_the_engineer_on_call_gets_one_page_and_its_end(seen: Seen) -> None:
    """Of all that went to the engineer on call, there is one page, for the provider, and one resolution after it."""
    called = [each for each in seen.deliveries if each.receiver == "on-call"]
    assert [(each.name, each.status) for each in called] == [(CAUSE, "firing"), (CAUSE, "resolved")]
    assert {each.labels["provider"] for each in called} == {"openai"}
    (share,) = re.findall(
        rf"^LLM provider is failing: ([0-9.]+)% of calls at openai for {JOB}$",
        called[0].annotations["summary"],
    )
    assert 5 < float(share) <= 100


@pytest.fixture(scope="module")
def afterwards(seen: Seen, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, float]:
    """What fires when the scrapes are replayed at the shipped pace and six hours follow; and when those begin."""
    run = _one_run(seen.scrapes)
    steps = HOURS_AFTER * 3_600 // STEP_S
    later = dict.fromkeys(range(EVERY_S // STEP_S, steps + 1, EVERY_S // STEP_S), run)
    series, recorded = replayed(seen.scrapes, PACE, later)
    series[f'job:taskpilot_obs_first_seen:timestamp_seconds{{job="{JOB}"}}'] = "-3000000"
    minutes = (recorded + steps) * STEP_S / 60
    outcome = judged(tmp_path_factory.mktemp("replayed"), series, minutes=minutes, step_s=STEP_S)
    return outcome, recorded * STEP_S / 60


def test_a_run_of_the_six_hours_is_a_run_of_the_service(seen: Seen) -> None:
    """What is added every half an hour is what one successful run added to the real counters."""
    run = _one_run(seen.scrapes)
    assert sum(value for name, value in run.items() if name.startswith("workflow_runs_total{")) == 1
    assert sum(value for name, value in run.items() if name.startswith("llm_errors_total{")) == 0


def test_nothing_pages_in_the_six_hours_after(afterwards: tuple[Outcome, float]) -> None:
    """At the shipped pace too the outage is one page, which is over when the quiet hours begin or soon after."""
    outcome, quiet = afterwards
    told = "\n".join(map(str, sorted(outcome.episodes, key=lambda each: each.start)))
    assert [alert for alert, _, _ in outcome.pages] == [CAUSE], told
    ((_, start, end),) = outcome.pages
    assert start < quiet, told
    assert end <= quiet + 10, told
    warned = [each for each in outcome.episodes if not each.inhibited and each.start > quiet + 10]
    assert [each for each in warned if each.end == ALWAYS] == [], told
