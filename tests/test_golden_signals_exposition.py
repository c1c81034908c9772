"""Golden signals from expositions: they agree with the window, and survive restarts and strangers."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from math import isclose
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskpilot_obs._support.timestamps import NANOSECONDS
from taskpilot_obs.exceptions import SourceError
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exporters.prometheus.reading import Registry, parse_text
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.exporters.window import RollingWindow
from taskpilot_obs.golden_signals import GoldenSignals, SignalStatus, signals_from_window
from taskpilot_obs.golden_signals.from_exposition import (
    Exposition,
    evidence_from_exposition,
    exposition,
    increase,
    signals_from_exposition,
    signals_from_registry,
)
from taskpilot_obs.records import (
    CheckResult,
    Decision,
    DecisionKind,
    Feedback,
    Invocation,
    Operation,
    Origin,
    Record,
    Rollup,
    Status,
    Verdict,
)
from taskpilot_obs.semconv import WORKFLOW_BUCKETS

NOW = 1_790_000_003 * NANOSECONDS


def invocation(operation: Operation, name: str, status: Status, duration_s: float = 1.0, **rest: object) -> Invocation:
    done = Invocation(
        operation=operation,
        name=name,
        status=status,
        request_id="r",
        invocation_id="i",
        parent_id=None,
        workflow=name if operation is Operation.WORKFLOW else None,
        agent=None,
        start_unix_ns=NOW - int(duration_s * NANOSECONDS),
        duration_s=duration_s,
    )
    return done._replace(**rest)  # type: ignore[arg-type]


def task(name: str, status: Status, duration_s: float, cost: Decimal, violations: int) -> Invocation:
    rollup = Rollup(cost=cost, violations=violations)
    return invocation(Operation.WORKFLOW, name, status, duration_s, is_task=True, rollup=rollup)


def chat(status: Status, cost: Decimal | None, cached: bool | None) -> Invocation:
    return invocation(Operation.CHAT, "chat", status, cost=None if cached else cost, cached=cached, response_model="m")


money = st.decimals(min_value=0, max_value=10, places=6)
tasks = st.builds(
    task,
    st.sampled_from(["handle", "report"]),
    st.sampled_from(list(Status)),
    st.floats(min_value=0.001, max_value=3000),
    money,
    st.integers(0, 2),
)
chats = st.builds(chat, st.sampled_from(list(Status)), st.none() | money, st.sampled_from([None, True, False]))
denials = st.builds(
    lambda kind, verdict: Decision(kind, "pii", verdict, CheckResult.PASSED, Origin(workflow="handle"), NOW),
    st.sampled_from(list(DecisionKind)),
    st.sampled_from(list(Verdict)),
)
feedback = st.builds(lambda correct, revision: Feedback("r", correct, revision, Origin(), NOW), *[st.booleans()] * 2)
records = st.lists(tasks | chats | denials | feedback, max_size=40)


def both(stream: list[Record]) -> tuple[GoldenSignals, GoldenSignals]:
    """The same records on the two surfaces of a process."""
    registry = Registry()
    metrics, window = PrometheusExporter(registry), RollingWindow(lambda: NOW)
    metrics.export(stream)
    window.export(stream)
    return signals_from_registry(registry), signals_from_window(window, timedelta(minutes=5))


def same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and isclose(one, other, rel_tol=1e-9, abs_tol=1e-12))


def bucket(latency_ms: float | None) -> int | None:
    return None if latency_ms is None else sum(bound * 1000 < latency_ms for bound in WORKFLOW_BUCKETS)


@settings(deadline=None, max_examples=60)
@given(records)
def test_the_registry_and_the_window_agree(stream: list[Record]) -> None:
    """The same records give the same signals on both surfaces: equal counts and figures, p95 within one bucket."""
    lifetime, windowed = both(stream)
    assert lifetime.runs == windowed.runs
    for name in (
        "success_rate",
        "cost_per_successful_task_usd",
        "user_confirmed_correctness_percent",
        "policy_violation_rate_percent",
        "cost_coverage",
        "runs_with_violations_percent",
    ):
        assert same(getattr(lifetime, name), getattr(windowed, name)), name
    ours, theirs = bucket(lifetime.p95_latency_ms), bucket(windowed.p95_latency_ms)
    assert (ours is None) == (theirs is None)
    assert (lifetime.scope, lifetime.window_s) == ("workers", None)
    assert set(lifetime.workflows) == set(windowed.workflows)
    for name, mine in lifetime.workflows.items():
        other = windowed.workflows[name]
        assert mine.runs == other.runs
        assert same(mine.success_rate, other.success_rate)
        assert same(mine.cost_per_successful_task_usd, other.cost_per_successful_task_usd)
        assert same(mine.p95_latency_ms, other.p95_latency_ms)


def filled(*stream: Record) -> Registry:
    registry = Registry()
    PrometheusExporter(registry).export(stream)
    return registry


def scraped(registry: Registry) -> Exposition:
    return exposition(parse_text(render(registry)[0].decode()))


RUN = task("handle", Status.SUCCESS, 1.0, Decimal("0.5"), 1)
FAILED = task("handle", Status.ERROR, 3.0, Decimal("0.25"), 0)
PAID = chat(Status.SUCCESS, Decimal("0.75"), None)


def test_both_text_formats_are_read() -> None:
    """The classic text and OpenMetrics of one registry give the same signals as the registry itself."""
    registry = filled(RUN, RUN, FAILED, PAID)
    direct = signals_from_registry(registry)
    assert direct.success_rate == pytest.approx(200 / 3)
    assert direct.cost_per_successful_task_usd == 0.375
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        text, content_type = render(registry, accept)
        assert content_type.startswith(accept[:20])
        assert signals_from_exposition(text.decode(), content_type) == direct


def test_one_workflow_of_an_exposition() -> None:
    """A single workflow's figures come from its own series."""
    result = signals_from_registry(filled(RUN, task("report", Status.ERROR, 1, Decimal(0), 0)), workflow="handle")
    assert result.success_rate == 100.0
    assert result.cost_per_successful_task_usd == 0.5


def test_an_exposition_without_our_metrics_is_no_evidence() -> None:
    """The `/metrics` of something else gives no figure and no error."""
    result = signals_from_exposition("# TYPE go_threads gauge\ngo_threads 7\n")
    assert result.status is SignalStatus.INSUFFICIENT_DATA


@pytest.mark.parametrize("text", ["<html>login</html>", "workflow_runs_total{workflow= 1", "workflow_runs_total x"])
def test_what_is_no_exposition_is_an_error(text: str) -> None:
    """A page that is not an exposition is a SourceError, not an empty result."""
    with pytest.raises(SourceError, match="not an exposition"):
        signals_from_exposition(text)


@pytest.mark.parametrize(
    "line", ['workflow_runs_total{workflow="a",status="finished"} 1', 'workflow_runs_total{workflow="a"} 1']
)
def test_metrics_of_the_same_name_with_other_labels_are_an_error(line: str) -> None:
    """Another application's `workflow_runs_total` is told apart, in words."""
    with pytest.raises(SourceError, match="with other labels"):
        signals_from_exposition(line + "\n")


def test_values_that_are_no_number_are_left_out() -> None:
    """A NaN or infinite sample of another collector does not reach a figure."""
    assert parse_text("a NaN\nb +Inf\nc 1\n") == [("c", {}, 1.0)]


def test_two_scrapes_give_what_happened_in_between() -> None:
    """The increase between two expositions holds the new runs only, also of a workflow that is new."""
    before = scraped(filled(RUN, FAILED))
    later = filled(RUN, FAILED, RUN, task("report", Status.SUCCESS, 1, Decimal(0), 0))
    delta = evidence_from_exposition(increase(before, scraped(later)))
    assert delta.tasks.succeeded == 2
    assert delta.tasks.failed == 0
    assert delta.workflows["report"].total == 1


def test_a_restart_between_two_scrapes_counts_what_is_new() -> None:
    """Where a counter fell, the process was restarted: all it shows now is new, also the counters that did not fall."""
    before = scraped(filled(RUN, RUN, RUN))
    after = scraped(filled(RUN, FAILED))
    delta = evidence_from_exposition(increase(before, after))
    assert (delta.tasks.succeeded, delta.tasks.failed) == (1, 1)


def test_a_series_that_vanished_means_a_restart() -> None:
    """A workflow that is no longer there was lost by a restart, so that everything else counts again."""
    before = scraped(filled(task("old", Status.SUCCESS, 1, Decimal(0), 0), RUN))
    after = scraped(filled(RUN))
    assert evidence_from_exposition(increase(before, after)).tasks.succeeded == 1


@pytest.mark.parametrize(("start", "new_runs"), [(100.0, 2.0), (200.0, 7.0)])
def test_another_process_start_means_a_restart(start: float, new_runs: float) -> None:
    """A changed process start time tells a restart even where every counter has already outgrown its old value."""
    line = 'workflow_runs_total{{workflow="a",status="success"}} {}\nprocess_start_time_seconds {}\n'
    before = exposition(parse_text(line.format(5, 100)))
    after = exposition(parse_text(line.format(7, start)))
    assert evidence_from_exposition(increase(before, after)).tasks.succeeded == new_runs


WORKER = """
import sys
from test_golden_signals_exposition import RUN, FAILED, PAID
from taskpilot_obs.exporters.prometheus.reading import Registry
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.golden_signals.from_exposition import signals_from_registry
registry = Registry()
exporter = PrometheusExporter(registry)
exporter.export([RUN, PAID] if sys.argv[1] == "first" else [FAILED])
if sys.argv[1] == "last":
    print(signals_from_registry(registry).model_dump_json())
"""


def test_the_workers_of_a_multi_process_deployment_are_added_up(tmp_path: Path) -> None:
    """One worker's lifetime signals hold the runs of all, also of one that has ended."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}

    def work(which: str) -> str:
        command = [sys.executable, "-c", WORKER, which]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    work("first")
    result = GoldenSignals.model_validate_json(work("last"))
    assert (result.runs.success, result.runs.error) == (1, 1)
    assert result.cost_per_successful_task_usd == 0.75
    assert result.scope == "workers"
