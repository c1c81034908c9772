"""Guardrails: a variant that harms is stopped, whatever else it improves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from taskpilot_obs import get_recorder, record_llm_call, record_policy_violation, semconv, track_workflow
from taskpilot_obs.cli import compare as command
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.compare import Experiment, ExperimentGuard, GuardrailAlert
from taskpilot_obs.compare.experiment import Measure
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import AuditEvent
from taskpilot_obs.testing import capture_records, fresh_recorder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with fresh_recorder(store=url):
        yield url


def experiment() -> Experiment:
    return Experiment("planner-prompt", {"v1": 0.5, "v2": 0.5})


def run_users(users: int, cost: dict[str, str], violating: dict[str, int]) -> None:
    """One task for each user; every so many tasks of a variant violate a policy."""
    tested = experiment()
    for user in range(users):
        with tested.assign(f"user-{user}") as variant, track_workflow("plan"):
            record_llm_call(model="gpt-4o", cost=cost[variant])
            if violating[variant] and user % violating[variant] == 0:
                record_policy_violation("no_secrets", severity="high")
    assert get_recorder().flush(30)


NEVER = {"v1": 0, "v2": 0}
EQUAL = {"v1": "0.01", "v2": "0.01"}


def test_a_variant_that_costs_too_much_stops_the_experiment(store: str, caplog: pytest.LogCaptureFixture) -> None:
    """The alert names variant, measure and limit; from then on everybody gets the control, and nothing is counted."""
    run_users(300, {"v1": "0.010", "v2": "0.020"}, NEVER)
    tested, heard = experiment(), list[GuardrailAlert]()
    guard = ExperimentGuard(tested, {"cost": 0.2, "violations": 0.05}, store=store, on_alert=heard.append)
    with caplog.at_level(logging.WARNING, "taskpilot_obs"):
        found = guard.check()
    assert tuple(heard) == found
    (alert,) = found
    assert (alert.variant, alert.measure, alert.limit) == ("v2", "cost", 0.2)
    assert alert.at_least is not None
    assert 0.2 < alert.at_least <= 1.01
    assert caplog.text.count(alert.sentence) == 1
    assert guard.check() == found
    assert tuple(heard) == found, "an alert is given once"
    assert tested.stopped == alert.sentence
    with tested.assign("user-2") as variant:
        assert variant == "v1"


def test_a_variant_that_costs_where_the_control_is_free_breaks_its_guardrail(store: str) -> None:
    """Any cost is more than any part of 0."""
    run_users(300, {"v1": "0", "v2": "0.02"}, NEVER)
    (alert,) = ExperimentGuard(experiment(), {"cost": 5.0}, store=store).check()
    assert (alert.variant, alert.at_least) == ("v2", None)
    assert "worse than the control's by at least any part of its 0" in alert.sentence


def test_a_broken_guardrail_is_counted_and_audited(tmp_path: Path) -> None:
    """The counter that the alert watches rises once, and the audit log names experiment, variant, measure and limit."""
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with fresh_recorder(store=url) as recorder, capture_records(AuditEvent) as events:
        run_users(300, {"v1": "0.010", "v2": "0.020"}, NEVER)
        guard = ExperimentGuard(experiment(), {"cost": 0.2}, store=url)
        assert len(guard.check()) == len(guard.check()) == 1
        (event,) = events
        labels = {"experiment": "planner-prompt", "variant": "v2", "measure": "cost"}
        assert recorder.registry is not None
        assert recorder.registry.get_sample_value(semconv.EXPERIMENT_GUARDRAILS_BROKEN.name, labels) == 1
    assert event.event == semconv.EXPERIMENT_STOPPED
    assert labels.items() <= event.attributes.items()
    assert event.attributes["limit"] == 0.2


def test_an_alert_that_did_not_get_through_is_given_again(store: str) -> None:
    """What `on_alert` raises reaches the caller; the next check calls it again until it returns; one audit event."""
    run_users(300, {"v1": "0.010", "v2": "0.020"}, {"v1": 0, "v2": 2})
    down, heard = [True, True], list[str]()

    def page(alert: GuardrailAlert) -> None:
        if down and down.pop():
            raise ConnectionError("on purpose")
        heard.append(alert.measure)

    tested = experiment()
    guard = ExperimentGuard(tested, {"cost": 0.2, "violations": 0.05}, store=store, on_alert=page)
    with capture_records(AuditEvent) as events:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                guard.check()
            assert tested.stopped is not None
        assert len(guard.check()) == len(guard.check()) == 2
        assert [event.attributes["measure"] for event in events] == heard
    assert sorted(heard) == ["cost", "violations"]


def test_every_measure_is_a_value_of_the_label() -> None:
    """The label `measure` has the measures that experiments know, and no other value."""
    assert get_args(Measure) == semconv.MEASURES


def test_violations_are_a_guardrail(store: str) -> None:
    """A variant that violates policies in a third of its tasks is stopped at a limit of five in a hundred."""
    run_users(300, EQUAL, {"v1": 0, "v2": 2})
    tested = experiment()
    (alert,) = ExperimentGuard(tested, {"violations": 0.05}, store=store).check()
    assert (alert.measure, alert.variant) == ("violations", "v2")
    assert tested.stopped is not None


def test_what_is_within_its_limits_goes_on(store: str) -> None:
    """No alert without certainty: neither for equal variants, nor for a difference within the limit."""
    run_users(300, {"v1": "0.010", "v2": "0.011"}, {"v1": 50, "v2": 50})
    tested = experiment()
    assert ExperimentGuard(tested, {"cost": 0.2, "violations": 0.05, "success": 0.05}, store=store).check() == ()
    assert tested.stopped is None


@pytest.mark.parametrize("guardrails", [{}, {"luck": 0.1}, {"cost": -1.0}, {"cost": float("nan")}])
def test_wrong_guardrails_are_refused(guardrails: dict[str, float]) -> None:
    """The error says what is allowed."""
    with pytest.raises(ConfigurationError, match=r"allowed|give"):
        ExperimentGuard(experiment(), guardrails)  # type: ignore[arg-type]  # wrong on purpose


def test_the_command_alarms(store: str) -> None:
    """With a broken guardrail the command exits 3 and names it, so that cron and CI notice; else 0."""
    run_users(300, {"v1": "0.010", "v2": "0.020"}, NEVER)
    app = typer.Typer()
    add_commands(app, command)
    asked = ["--store", store, "--experiment", "planner-prompt", "--guardrail"]
    done = CliRunner().invoke(app, [*asked, "cost=0.2"])
    assert done.exit_code == 3, done.output
    assert "cost of v2 is worse than the control's by at least" in done.stderr
    assert CliRunner().invoke(app, [*asked, "cost=5"]).exit_code == 0
    assert CliRunner().invoke(app, [*asked, "luck=5"]).exit_code == 2
    assert CliRunner().invoke(app, ["--store", store, "--guardrail", "cost=5"]).exit_code == 2
