"""From evidence to golden signals: formulas, statuses, intervals and the edges where there is no evidence."""

from __future__ import annotations

import json
from math import inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals import GoldenSignals, Limits, SignalStatus, Thresholds, parse_window
from taskpilot_obs.golden_signals.assess import assess, wilson
from taskpilot_obs.golden_signals.evidence import (
    BilledCalls,
    Evidence,
    OverallEvidence,
    TaskEvidence,
    VerdictCounts,
    histogram_quantile,
)
from taskpilot_obs.records import COUNTED, Status

FIVE = [
    "success_rate",
    "p95_latency_ms",
    "cost_per_successful_task_usd",
    "user_confirmed_correctness_percent",
    "policy_violation_rate_percent",
]


def signals(
    tasks: TaskEvidence | None = None, overall: OverallEvidence | None = None, workflow: str | None = None
) -> GoldenSignals:
    tasks = tasks or TaskEvidence()
    return assess(
        Evidence(tasks, overall or OverallEvidence(), {"handle": tasks} if tasks.total else {}),
        scope="process",
        workflow=workflow,
    )


def ran(cost: float = 0.0, p95_s: float = 1.0, violated: float = 0, **runs: float) -> TaskEvidence:
    counts = {Status(name): count for name, count in runs.items()}
    return TaskEvidence(counts, p95_s, sum(runs.values()), cost, violated)


def test_no_evidence_is_none_and_never_a_figure() -> None:
    """Zero traffic: the five keys come first, each None, the status is insufficient_data, and nothing is 0 or 100."""
    empty = signals()
    assert list(empty.model_dump())[:5] == FIVE
    assert [getattr(empty, name) for name in FIVE] == [None] * 5
    assert empty.status is SignalStatus.INSUFFICIENT_DATA
    assert {signal.status for signal in empty.evidence.values()} == {SignalStatus.INSUFFICIENT_DATA}
    assert empty.cost_coverage is None
    assert empty.runs_with_violations_percent is None
    assert empty.notes == ("no run",)
    assert "NaN" not in empty.model_dump_json()


def test_the_five_formulas() -> None:
    """Each figure is its formula, beside its numerator, denominator and status."""
    result = signals(
        ran(success=90, error=5, timeout=3, blocked=2, cancelled=7, cost=9.0, p95_s=2.5, violated=3),
        OverallEvidence(BilledCalls(200, 10), violations=4, correct=8, incorrect=2),
    )
    assert result.success_rate == 90.0
    assert result.p95_latency_ms == 2500.0
    assert result.cost_per_successful_task_usd == 0.1
    assert result.user_confirmed_correctness_percent == 80.0
    assert result.policy_violation_rate_percent == 4.0
    assert result.cost_coverage == 0.95
    assert result.runs_with_violations_percent == pytest.approx(300 / 107)
    assert {name: result.evidence[name].status.value for name in FIVE} == {
        "success_rate": "warning",
        "p95_latency_ms": "warning",
        "cost_per_successful_task_usd": "healthy",
        "user_confirmed_correctness_percent": "warning",
        "policy_violation_rate_percent": "critical",
    }
    assert result.status is SignalStatus.CRITICAL
    assert (result.evidence["success_rate"].numerator, result.evidence["success_rate"].denominator) == (90, 100)
    assert result.evidence["p95_latency_ms"].denominator == 107
    assert result.evidence["policy_violation_rate_percent"].interval is None
    assert (result.runs.counted, result.runs.total) == (100, 107)
    assert result.notes == ("the cost covers 95.0% of LLM calls; the others have no price, or an incomplete one",)
    assert list(result.workflows) == ["handle"]


def test_runs_without_a_success_have_no_cost_per_success() -> None:
    """Where no run succeeded the success rate is a real 0, and the cost per success None; a note explains it."""
    result = signals(ran(error=3, cost=1.5), OverallEvidence(BilledCalls(3)))
    assert result.success_rate == 0.0
    assert result.cost_per_successful_task_usd is None
    assert result.cost_usd == 1.5
    assert result.notes == ("no run succeeded, so a cost per successful task does not exist (1.5 USD were spent)",)


def test_only_cancelled_runs_have_latency_and_no_success_rate() -> None:
    """Cancelled runs prove nothing about success, but their latency was real, so the overall status is not empty."""
    result = signals(ran(cancelled=2, abandoned=1, interrupted=1, p95_s=9.0))
    assert result.success_rate is None
    assert result.p95_latency_ms == 9000.0
    assert result.status is SignalStatus.CRITICAL
    assert result.notes == ("every run was cancelled, abandoned or interrupted, which says nothing about success",)


def test_feedback_without_a_run() -> None:
    """Feedback alone gives correctness its figure and status, while the whole stays insufficient_data."""
    result = signals(overall=OverallEvidence(correct=1, incorrect=3))
    assert result.user_confirmed_correctness_percent == 25.0
    assert result.evidence["user_confirmed_correctness_percent"].status is SignalStatus.CRITICAL
    assert result.status is SignalStatus.INSUFFICIENT_DATA


def test_violations_without_a_run() -> None:
    """Violations with no run to relate them to have no rate, and a note names their number."""
    result = signals(overall=OverallEvidence(violations=2))
    assert result.policy_violation_rate_percent is None
    assert result.evidence["policy_violation_rate_percent"].numerator == 2
    assert "2 policy violations, but no counted run to relate them to" in result.notes


@pytest.mark.parametrize(
    ("overall", "cost"),
    [
        (OverallEvidence(), None),
        (OverallEvidence(BilledCalls(5, 5)), None),
        (OverallEvidence(BilledCalls(5, 1)), None),
        (OverallEvidence(BilledCalls(5)), 0.0),
    ],
)
def test_a_cost_of_zero_is_claimed_only_where_every_call_has_a_price(
    overall: OverallEvidence, cost: float | None
) -> None:
    """A cost of 0 is told only where there were calls and each has a known price; otherwise it is unknown."""
    assert signals(ran(success=10), overall).cost_per_successful_task_usd == cost


def test_one_workflow_alone() -> None:
    """Asked for one workflow, the figures are its own, and what is known overall only is None."""
    evidence = Evidence(
        ran(success=30, error=10, cost=5),
        OverallEvidence(BilledCalls(9), violations=3, correct=1),
        {"handle": ran(success=10, cost=2, p95_s=0.5, violated=1), "report": ran(success=20, error=10)},
    )
    result = assess(evidence, scope="process", workflow="handle")
    assert result.workflow == "handle"
    assert list(result.workflows) == ["handle"]
    assert (result.success_rate, result.p95_latency_ms, result.cost_per_successful_task_usd) == (100.0, 500.0, 0.2)
    assert result.user_confirmed_correctness_percent is None
    assert result.policy_violation_rate_percent is None
    assert result.cost_coverage is None
    assert result.runs_with_violations_percent == 10.0
    assert result.status is SignalStatus.WARNING
    unknown = assess(evidence, scope="process", workflow="nobody")
    assert unknown.status is SignalStatus.INSUFFICIENT_DATA
    assert "no run of workflow 'nobody'" in unknown.notes


def test_the_result_is_frozen_and_survives_json() -> None:
    """A result cannot be changed, and is the same after a trip through JSON."""
    result = signals(ran(success=3, error=1, cost=0.3), OverallEvidence(BilledCalls(4), correct=1))
    with pytest.raises(ValidationError):
        result.success_rate = 100.0  # type: ignore[misc]
    dumped = json.loads(result.model_dump_json())
    assert dumped["runs"]["counted"] == 4
    assert GoldenSignals.model_validate(dumped) == result


@pytest.mark.parametrize(
    ("success", "status"), [(95.0, "healthy"), (94.9, "warning"), (90.0, "warning"), (89.9, "critical")]
)
def test_bounds_are_inclusive(success: float, status: str) -> None:
    """Exactly on a bound counts as the better side."""
    assert signals(ran(success=success, error=100 - success)).evidence["success_rate"].status == status


def test_thresholds_are_configuration() -> None:
    """Other thresholds give another status; those not named keep their defaults."""
    strict = Thresholds.model_validate({"success_rate": (99.9, 99)})
    assert strict.p95_latency_ms == Limits(2000, 5000)
    result = assess(Evidence(ran(success=98, error=2), OverallEvidence(), {}), scope="process", thresholds=strict)
    assert result.status is SignalStatus.CRITICAL


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"success_rate": (90, 95)}, "success_rate: given healthy=90, warning=95; the healthy bound must be at least"),
        ({"p95_latency_ms": (5000, 2000)}, "must be at most the warning bound"),
        ({"success_rate": (101, 95)}, "a percentage is at most 100"),
        ({"p95_latency_ms": (-1, 2)}, "greater than or equal to 0"),
        ({"p95_latency_ms": (1, inf)}, "finite"),
        ({"succes_rate": (99, 95)}, "Extra inputs are not permitted"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(given: dict[str, tuple[float, float]], reason: str) -> None:
    """Thresholds in the wrong order, out of range or misspelt fail when they are made, and say why."""
    with pytest.raises(ValidationError, match=reason):
        Thresholds.model_validate(given)


def test_the_interval_is_wilsons() -> None:
    """The interval agrees with published values, and 3 of 3 successes do not prove certainty."""
    assert tuple(wilson(3, 3)) == pytest.approx((43.85, 100.0), abs=0.01)
    assert tuple(wilson(0, 10)) == pytest.approx((0.0, 27.75), abs=0.01)
    assert tuple(wilson(81, 263)) == pytest.approx((25.53, 36.62), abs=0.01)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_every_interval_holds_its_figure(counts: tuple[int, int]) -> None:
    """An interval lies within 0 to 100 and holds the observed share."""
    part, whole = counts
    low, high = wilson(part, whole)
    assert 0 <= low <= part / whole * 100 + 1e-9
    assert part / whole * 100 - 1e-9 <= high <= 100


@given(
    st.dictionaries(st.sampled_from(list(Status)), st.floats(0, 1e9)),
    st.builds(OverallEvidence, st.builds(BilledCalls, *[st.floats(0, 1e9)] * 3), *[st.floats(0, 1e9)] * 3),
    st.floats(0, 1e9),
    st.none() | st.floats(0, 1e6),
)
def test_no_evidence_of_any_shape_gives_nonsense(
    runs: dict[Status, float], overall: OverallEvidence, cost: float, p95_s: float | None
) -> None:
    """Whatever the counts: percentages lie within 0 to 100, nothing is NaN, and None stands exactly for no evidence."""
    tasks = TaskEvidence(runs, p95_s, sum(runs.values()), cost)
    result = signals(tasks, overall)
    assert (result.success_rate is None) == (sum(runs.get(status, 0) for status in COUNTED) <= 0)
    for figure in (result.success_rate, result.user_confirmed_correctness_percent):
        assert figure is None or 0 <= figure <= 100.0000001
    assert "NaN" not in result.model_dump_json()
    assert (result.status is SignalStatus.INSUFFICIENT_DATA) == (
        tasks.total <= 0 or all(getattr(result, name) is None for name in FIVE)
    )


def test_the_latest_verdict_counts() -> None:
    """A revision moves a rating to its new side; one whose first verdict lies before the window counts no rating."""
    assert (VerdictCounts(10, 5, 1, 3).correct, VerdictCounts(10, 5, 1, 3).incorrect) == (8, 7)
    assert (VerdictCounts(0, 0, 2, 0).correct, VerdictCounts(0, 0, 2, 0).incorrect) == (0, 0)
    assert (VerdictCounts(1, 1, 2, 0).correct, VerdictCounts(1, 1, 0, 2).correct) == (2, 0)


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ([], None),
        ([(1.0, 0.0), (inf, 0.0)], None),
        ([(1.0, 100.0), (2.0, 100.0), (inf, 100.0)], 0.95),
        ([(1.0, 90.0), (2.0, 100.0), (inf, 100.0)], 1.5),
        ([(1.0, 0.0), (2.0, 0.0), (inf, 10.0)], 2.0),
        ([(1.0, 50.0), (2.0, 49.9), (inf, 100.0)], 2.0),
        ([(inf, 10.0)], 0.0),
    ],
)
def test_histogram_quantile_interpolates(buckets: list[tuple[float, float]], expected: float | None) -> None:
    """The quantile is interpolated within its bucket; above the last finite bound it is that bound."""
    assert histogram_quantile(0.95, buckets) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("15m", 900), ("1h30m", 5400), ("3d", 259_200), ("1w", 604_800)]
)
def test_windows_are_read_as_people_write_them(text: str, seconds: int) -> None:
    """A window may be written as a number with a unit, or several."""
    assert isclose(parse_window(text).total_seconds(), seconds)


@pytest.mark.parametrize("bad", ["", "15", "m", "-5m", "1.5h", "15 m", "0s", "\u0661\u0665m", "15m\n"])
def test_other_windows_are_refused(bad: str) -> None:
    """What cannot be read as a window is refused with what was given and what is allowed."""
    with pytest.raises(ConfigurationError, match="window: given"):
        parse_window(bad)
