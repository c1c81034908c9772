"""Experiments in a real store: what differs is found, and what does not differ is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskpilot_obs import get_recorder, record_feedback, record_llm_call, request_context, track_workflow
from taskpilot_obs.compare import Experiment, VariantsReport, compare_variants
from taskpilot_obs.compare.intervals import CONFIDENCE
from taskpilot_obs.compare.sequences import Moments, mean_difference_sequence, proportion_sequence
from taskpilot_obs.compare.variants import _apart, _effect, _Evidence, _excludes_zero, _judged
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.model import Interval
from taskpilot_obs.testing import fresh_recorder

PROMPTS = Experiment("planner-prompt", {"v1": 0.5, "v2": 0.5}, secondary=("cost", "p95", "correctness"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with fresh_recorder(store=url):
        yield url


def run_users(users: int, failing: dict[str, float], cost: dict[str, str], seed: int = 1, header: str = "") -> None:
    """Let users run tasks, each variant with its own share of failures and its own cost."""
    random = Random(seed)
    for number in range(users):
        with PROMPTS.assign(f"user-{number}", header=header or None) as variant:
            for _ in range(random.randint(1, 3)):
                with request_context(request_id=f"r-{number}-{random.random()}"):
                    with track_workflow("plan") as run:
                        record_llm_call(model="gpt-4o-mini", cost=cost[variant])
                        if random.random() < failing[variant]:
                            run.end_as("error")
                    if random.random() < 0.3:
                        record_feedback(correct=random.random() > failing[variant])
    assert get_recorder().flush(30)


def effect_of(report: VariantsReport, measure: str) -> tuple[str, float | None]:
    (found,) = [each for each in report.effects if each.measure == measure]
    return found.verdict, found.difference


def test_a_difference_is_found_with_its_direction(store: str) -> None:
    """A variant that fails less and costs more is better by success, worse by cost, and the sentence states both."""
    run_users(600, {"v1": 0.5, "v2": 0.05}, {"v1": "0.01", "v2": "0.02"})
    report = compare_variants(PROMPTS, store=store)
    assert report.conclusion == "v2 is better than v1 by success"
    assert effect_of(report, "success")[0] == "better"
    verdict, difference = effect_of(report, "cost")
    assert verdict == "worse"
    assert difference == pytest.approx(0.01)
    assert {arm.variant: arm.units for arm in report.arms}["v1"] + report.arms[1].units == 600
    assert all(arm.cost_coverage == 1.0 for arm in report.arms)
    primary = report.primary
    assert primary is not None
    assert primary.low is not None
    assert primary.low > 0
    assert primary.relative == pytest.approx(primary.difference / report.arms[0].success)  # type: ignore[operator]
    assert effect_of(report, "correctness")[0] in ("better", "not enough evidence")


def test_no_difference_is_no_verdict(store: str) -> None:
    """Equal variants are not told apart, and the report says about how much more would decide."""
    run_users(200, {"v1": 0.2, "v2": 0.2}, {"v1": "0.01", "v2": "0.01"})
    report = compare_variants(PROMPTS, store=store)
    assert {each.verdict for each in report.effects} == {"not enough evidence"}
    assert report.conclusion.startswith("Not enough evidence that v2 differs from v1 by success")


@pytest.mark.parametrize("measure", ["cost", "tokens"])
@given(value=st.floats(1e-9, 1e9), sizes=st.tuples(st.integers(100, 2_000), st.integers(100, 2_000)))
def test_equal_constant_amounts_are_no_difference(measure: str, value: float, sizes: tuple[int, int]) -> None:
    """A price by the call costs every unit the same: the rounding of sums of different length tells no arms apart."""
    evidence = {(measure, name): _Evidence([value] * size) for name, size in zip("ab", sizes, strict=True)}
    (found,) = _judged([_effect(measure, "b", evidence, "a")], measure, blocked=False)
    assert (found.difference, found.p_value, found.verdict) == (0.0, 1.0, "not enough evidence")


def test_a_broken_assignment_blocks_the_verdict(store: str) -> None:
    """Where everybody got one variant, no difference is believed, however large."""
    run_users(150, {"v1": 0.5, "v2": 0.0}, {"v1": "0.01", "v2": "0.02"}, header="planner-prompt=v2")
    report = compare_variants(PROMPTS, store=store)
    assert report.sample_ratio_p_value < 0.001
    assert {each.verdict for each in report.effects} <= {"blocked"}
    assert "contradict the planned shares" in report.conclusion


def test_unknown_costs_are_no_free_ones(store: str) -> None:
    """Units with an unpriced call are left out of the mean cost, and the coverage says how many."""
    with PROMPTS.assign("user-1"), track_workflow("plan"):
        record_llm_call(model="unknown-model", usage={"input_tokens": 10, "output_tokens": 1})
    get_recorder().flush(30)
    report = compare_variants(PROMPTS, store=store)
    arm = next(each for each in report.arms if each.units)
    assert (arm.cost, arm.cost_coverage) == (None, 0.0)


def test_an_experiment_by_its_name_has_equal_shares(store: str) -> None:
    """A name alone is compared as it was seen; measures and shares can be given."""
    run_users(60, {"v1": 0.2, "v2": 0.2}, {"v1": "0.01", "v2": "0.01"})
    report = compare_variants("planner-prompt", store=store)
    assert [arm.share for arm in report.arms] == [0.5, 0.5]
    weighted = compare_variants(
        "planner-prompt", shares={"v2": 0.3, "v1": 0.7}, primary="p95", secondary=(), store=store
    )
    assert (weighted.control, {each.measure for each in weighted.effects}) == ("v2", {"p95"})


def test_nothing_recorded_is_no_verdict(store: str) -> None:
    """An unknown experiment has no arms and says that there was nothing."""
    with track_workflow("other"):
        pass
    get_recorder().flush(30)
    report = compare_variants("unknown", store=store)
    assert (report.arms, report.primary) == ((), None)
    assert "no task of the experiment" in report.conclusion


def test_the_period_is_kept(store: str) -> None:
    """Tasks before the period are not in it."""
    run_users(20, {"v1": 0.2, "v2": 0.2}, {"v1": "0.01", "v2": "0.01"})
    later = datetime.now(UTC) + timedelta(hours=2)
    assert compare_variants(PROMPTS, "1h", store=store, now=later).primary is not None
    assert sum(arm.units for arm in compare_variants(PROMPTS, "1h", store=store, now=later).arms) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"primary": "luck"}, "measure 'luck'"),
        ({"shares": {"v1": 0.5, "v2": 0.4}}, "shares: .* add up to 0.9"),
        ({"shares": {"v1": 1.5, "v2": -0.5}}, "above 0"),
        ({"shares": {"v1": 1.0, "v2": 0.0}}, "above 0"),
        ({"shares": {"v1": 1.0}}, "two or more"),
    ],
)
def test_a_wrong_question_is_refused(store: str, options: dict[str, object], message: str) -> None:
    """The error says what is allowed."""
    with track_workflow("other"):
        pass
    get_recorder().flush(30)
    with pytest.raises(ConfigurationError, match=message):
        compare_variants("planner-prompt", store=store, **options)  # type: ignore[arg-type]  # wrong on purpose


def test_a_split_of_60_to_40_is_found(store: str) -> None:
    """Where 60 of 100 users get the control of a 50/50 experiment, the verdict is blocked; as planned, it is not."""
    skewed = Experiment(PROMPTS.name, {"v1": 0.6, "v2": 0.4})
    for number in range(1_000):
        with skewed.assign(f"user-{number}"), track_workflow("plan"):
            pass
    assert get_recorder().flush(30)
    assert {each.verdict for each in compare_variants(PROMPTS, store=store).effects} == {"blocked"}
    assert compare_variants(skewed, store=store).blocked is None


@lru_cache(None)
def success_interval(successes: int, n: int) -> Interval | None:
    """The interval of one arm, of which two make the difference that decides."""
    return proportion_sequence(successes, n, confidence=(1 + CONFIDENCE) / 2)


def is_ever_found(chance: Random) -> bool:
    """Whether any look of one A/A test finds a difference: 1,000 runs of equal arms, looked at after every run."""
    successes, n = [0, 0], [0, 0]
    for _ in range(1_000):
        arm = chance.random() < 0.5
        n[arm] += 1
        successes[arm] += chance.random() < 0.9
        if _excludes_zero(_apart(*(success_interval(*each) for each in zip(successes, n, strict=True)))):
            return True
    return False


def share_of_false_findings(series: int) -> float:
    """The share of A/A tests in which any look finds a difference."""
    return sum(is_ever_found(Random(seed)) for seed in range(series)) / series


def test_peeking_at_equal_variants_finds_nothing_in_95_of_100_series() -> None:
    """A/A tests of 1,000 runs, looked at after every run, end in a false verdict in at most 5 % of the series."""
    assert share_of_false_findings(100) <= 0.05


@pytest.mark.full
def test_1000_experiments_of_equal_variants_find_nothing_in_95_of_100() -> None:
    """Over 1,000 series, each looked at after every one of its 1,000 runs, at most 5 % find a difference."""
    assert share_of_false_findings(1_000) <= 0.05


@pytest.mark.full
@pytest.mark.timeout(600)
def test_1000_experiments_of_equal_costs_find_nothing_in_95_of_100() -> None:
    """Costs of equal variants, skewed as costs are, differ at some of 1,000 looks in at most 5 % of 1,000 series."""
    assert sum(is_a_cost_ever_found(Random(seed)) for seed in range(1_000)) / 1_000 <= 0.05


def is_a_cost_ever_found(chance: Random) -> bool:
    """Whether any look of one A/A test finds a difference of mean costs."""
    sums = [Moments(), Moments()]
    for _ in range(1_000):
        arm, cost = chance.random() < 0.5, chance.lognormvariate(-4, 0.7)
        n, total, squares, cubes = sums[arm]
        sums[arm] = Moments(n + 1, total + cost, squares + cost**2, cubes + cost**3)
        if _excludes_zero(mean_difference_sequence(*sums)):
            return True
    return False


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))
def test_a_verdict_is_an_interval_without_zero(hits: int, base_hits: int, misses: int, base_misses: int) -> None:
    """The primary measure is decided exactly where the interval of the difference leaves out zero."""
    evidence = {
        ("success", "b"): _Evidence([1.0] * hits + [0.0] * misses),
        ("success", "a"): _Evidence([1.0] * base_hits + [0.0] * base_misses),
    }
    (effect,) = _judged([_effect("success", "b", evidence, "a")], "success", blocked=False)
    intervals = success_interval(hits, hits + misses), success_interval(base_hits, base_hits + base_misses)
    assert (effect.verdict != "not enough evidence") == _excludes_zero(_apart(*intervals))
