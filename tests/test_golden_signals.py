"""`golden_signals()`: the same figures wherever the caller asks."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from itertools import count

import pytest
from _http import answering
from _runs import run_tasks
from _servers import prometheus_server

from taskpilot_obs import get_recorder, golden_signals
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import ConfigurationError, RulesNotLoadedError, SourceError
from taskpilot_obs.exporters.prometheus.reading import Registry
from taskpilot_obs.golden_signals import GoldenSignals, Limits, SignalStatus, Thresholds
from taskpilot_obs.golden_signals.http import Access

NUMBERS = count()


def work(recorder: Recorder) -> None:
    """Four tasks of a workflow, one of them failing, an LLM call in each; a rating, revised, and a violation."""
    run_tasks(recorder, 4)
    request_id = f"r{next(NUMBERS)}"
    for correct in (False, True, True):
        recorder.record_feedback(request_id, correct=correct)
    recorder.record_policy_violation("pii")


def check(result: GoldenSignals) -> None:
    assert result.success_rate == 75.0
    assert result.p95_latency_ms is not None
    assert result.cost_per_successful_task_usd == pytest.approx(0.04)
    assert result.user_confirmed_correctness_percent == 100.0
    assert result.policy_violation_rate_percent == 25.0
    assert result.cost_coverage == 1.0
    assert result.status is SignalStatus.CRITICAL
    assert {name for name, its in result.workflows.items() if its.runs.total} == {"handle"}


def test_without_a_window_since_the_start() -> None:
    """Records show at once, since the start, over all workers."""
    work(get_recorder())
    result = golden_signals()
    check(result)
    assert (result.scope, result.window_s) == ("workers", None)


@pytest.mark.parametrize(
    ("window", "least_s"), [("15m", 900), (timedelta(hours=24), 86_400), ("1s", 1), (timedelta(minutes=16), 960)]
)
def test_with_a_window_this_process(window: timedelta | str, least_s: int) -> None:
    """With a window the same records show for this process, and the window says what it really covers."""
    work(get_recorder())
    result = golden_signals(window)
    check(result)
    assert result.scope == "process"
    assert result.window_s is not None
    assert least_s <= result.window_s < least_s + (10 if least_s <= 900 else 300) + 1


def test_one_workflow() -> None:
    """One workflow can be asked for alone, with and without a window."""
    work(get_recorder())
    for result in (golden_signals(workflow="handle"), golden_signals("15m", workflow="handle")):
        assert result.success_rate == 75.0
        assert result.cost_per_successful_task_usd == pytest.approx(0.04)
        assert result.runs_with_violations_percent == 0.0
        assert result.policy_violation_rate_percent is None


def test_a_recorder_of_its_own() -> None:
    """Another recorder's signals are its own, with the thresholds of its configuration or of the call."""
    recorder = build_recorder(registry=Registry(), thresholds={"success_rate": (70, 60)})
    work(recorder)
    assert golden_signals(recorder=recorder).evidence["success_rate"].status is SignalStatus.HEALTHY
    strict = golden_signals(recorder=recorder, thresholds=Thresholds(success_rate=Limits(100, 99)))
    assert strict.evidence["success_rate"].status is SignalStatus.CRITICAL
    assert golden_signals().status is SignalStatus.INSUFFICIENT_DATA
    recorder.shutdown()


def test_a_registry_of_its_own() -> None:
    """A registry can be read instead of the recorder's."""
    registry = Registry()
    recorder = build_recorder(registry=registry)
    work(recorder)
    recorder.drain()
    check(golden_signals(registry=registry))
    recorder.shutdown()


def test_without_metrics_the_last_day_of_the_window() -> None:
    """Where the Prometheus metrics are switched off, no window means all that the process still knows: 24 hours."""
    recorder = build_recorder(prometheus=False)
    work(recorder)
    result = golden_signals(recorder=recorder)
    check(result)
    assert result.scope == "process"
    recorder.shutdown()


@pytest.mark.promise("no-evidence")
def test_a_disabled_library_has_no_evidence() -> None:
    """Switched off, everything passes through and no figure is made up."""
    recorder = build_recorder(registry=Registry(), enabled=False)
    assert golden_signals(recorder=recorder).status is SignalStatus.INSUFFICIENT_DATA
    recorder.shutdown()


def test_arguments_that_contradict_each_other_are_refused() -> None:
    """A registry with a window, and credentials without a server, say which to drop."""
    with pytest.raises(ConfigurationError, match="a registry holds no past"):
        golden_signals("15m", registry=Registry())
    with pytest.raises(ConfigurationError, match="without prometheus=URL"):
        golden_signals(access=Access())
    with pytest.raises(ConfigurationError, match="at most 24h"):
        golden_signals("25h")


def test_a_prometheus_server() -> None:
    """With `prometheus` the server is asked; without the rules, the error names them."""
    with prometheus_server() as url, pytest.raises(RulesNotLoadedError):
        golden_signals("1h", prometheus=url)
    with answering(lambda _: (500, "text/plain", b"broken")) as url, pytest.raises(SourceError, match="broken"):
        golden_signals("1h", prometheus=url)


NAMES = """
import json, pickle, sys
import taskpilot_obs
import taskpilot_obs.golden_signals.from_prometheus
import taskpilot_obs.golden_signals.from_url
from taskpilot_obs.golden_signals import Thresholds
print(json.dumps([callable(taskpilot_obs.golden_signals), taskpilot_obs.golden_signals().status]))
"""


def test_the_function_keeps_its_name() -> None:
    """`taskpilot_obs.golden_signals` is the function, also after modules of the package of that name were imported."""
    answer = subprocess.run([sys.executable, "-c", NAMES], check=True, capture_output=True, text=True).stdout
    assert json.loads(answer) == [True, "insufficient_data"]
