"""Services that share a store: a budget of each, one of several, and two limits under one name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from taskpilot_obs import track_llm
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.config import build_recorder
from taskpilot_obs.doctor.finding import Finding, Level
from taskpilot_obs.doctor.store import check_store
from taskpilot_obs.exceptions import BudgetExceededError
from taskpilot_obs.store import Store, upgrade
from taskpilot_obs.store.budget_ledger import StoreLedger

CALL: dict[str, Any] = {"provider": "openai", "model": "gpt-4o"}
TEAM = {"budget": "team", "period": "day"}


@pytest.fixture
def url(url: str) -> str:
    """A store with its tables."""
    with_tables = Store(url, create=True)
    upgrade(with_tables)
    with_tables.close()
    return url


@contextmanager
def services(url: str, *budgets: Budget) -> Iterator[list[Recorder]]:
    """Recorders of two services in two environments, with a budget each, or both with the same one."""
    made = [
        build_recorder(
            budget_store=url, budgets=[budget], service=name, environment=where, registry=CollectorRegistry()
        )
        for budget, name, where in zip(cycle(budgets), ("billing", "search"), ("production", "staging"), strict=False)
    ]
    try:
        yield made
    finally:
        for recorder in made:
            recorder.shutdown()


def call(recorder: Recorder, cost: str = "0.75") -> None:
    with track_llm(recorder=recorder, **CALL) as run:
        run.set_cost(cost)
    assert recorder.flush()


def others_seen_by(recorder: Recorder) -> float | None:
    assert recorder.parts is not None
    assert recorder.parts.settler is not None
    recorder.parts.settler.refresh()
    registry: CollectorRegistry = recorder.registry  # type: ignore[assignment]  # given above
    return registry.get_sample_value("llm_budget_other_limits", TEAM)


def of_budgets(url: str) -> Finding:
    (found,) = (finding for finding in check_store(url) if "budget" in finding.text)
    return found


def test_two_limits_of_one_name_are_reported(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """By a metric and a warning of each process, and by `doctor`, until one of them is gone for some minutes."""
    one, two = Budget("team", limit_usd=1), Budget("team", limit_usd="2.5", timezone="Europe/Berlin")
    with caplog.at_level(logging.WARNING, "taskpilot_obs"), services(url, one, two) as (first, second):
        others_seen_by(first)
        assert (others_seen_by(second), others_seen_by(first)) == (1, 1)
        assert "'team' with other limits too: 2.5 usd a day (Europe/Berlin)" in caplog.text
        found = of_budgets(url)
        assert found.level is Level.PROBLEM
        assert "budget 'team' has 1 usd a day and 2.5 usd a day (Europe/Berlin)" in found.text
        warnings = len(caplog.records)
        others_seen_by(first)
        assert len(caplog.records) == warnings
        store = Store(url)
        later = datetime.now(UTC) + timedelta(minutes=4)
        assert StoreLedger(store).other_limits((one,), later) == {}
        store.close()


def test_one_limit_in_many_processes_is_right(url: str) -> None:
    """The metric is 0 from the start, and `doctor` finds nothing."""
    with services(url, Budget("team", limit_usd=1)) as (first, second):
        assert (others_seen_by(first), others_seen_by(second), others_seen_by(first)) == (0, 0, 0)
        assert of_budgets(url).level is Level.OK


def test_the_limit_of_what_was_booked_last_stands_beside_it(url: str) -> None:
    """In the columns of the ledger, for people who read it with SQL."""
    with services(url, Budget("team", limit_usd="0.1234567891")) as (first, _):
        call(first)
    store = Store(url)
    with store.reading() as connection:
        (line,) = connection.exec_driver_sql("SELECT limit_units, limit_rest FROM budget_ledger").all()
    assert tuple(line) == (123_456_789, 100)
    store.close()


def test_each_service_has_the_limit_for_itself(url: str) -> None:
    """Scope `{"service": "*"}`: what one spends takes nothing from the other."""
    team = Budget("team", limit_usd=1, scope={"service": "*"}, action="enforce")
    with services(url, team) as (billing, search):
        call(billing, "1.5")
        with pytest.raises(BudgetExceededError) as refused:
            call(billing)
        assert refused.value.scope == {"service": "billing"}
        call(search)
    spent = {status.scope_key: str(status.spent) for status in budget_status([team], store=url)}
    assert spent == {'{"service": "billing"}': "1.5", '{"service": "search"}': "0.75"}


@pytest.mark.parametrize("scope", [{"service": "bill*"}, {"environment": "production"}])
def test_a_budget_of_one_service_or_environment(url: str, scope: dict[str, str]) -> None:
    """Calls of the others are neither counted nor refused, though all processes have the same configuration."""
    team = Budget("team", limit_usd=1, scope=scope, action="enforce")
    with services(url, team) as (billing, search):
        call(search, "5")
        call(billing, "1.5")
        with pytest.raises(BudgetExceededError):
            call(billing)
        call(search, "5")
    (status,) = budget_status([team], store=url)
    assert str(status.spent) == "1.5"
