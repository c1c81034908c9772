"""Experiments: sticky assignment, and what travels with it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from taskpilot_obs import (
    observe_agent,
    observe_workflow,
    record_feedback,
    record_llm_call,
    request_context,
    track_workflow,
)
from taskpilot_obs.compare.experiment import Experiment
from taskpilot_obs.compare.sequences import sample_ratio_p_value
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.prometheus.reading import samples
from taskpilot_obs.testing import capture_invocations, fresh_recorder

PROMPTS = Experiment("planner-prompt", {"v1": 0.5, "v2": 0.5})
UNITS = 20_000


@pytest.mark.promise("same-variant")
def test_assignment_is_the_same_in_every_process() -> None:
    """The variants of these users are those that any process, of any version of Python, gives them."""
    assert [PROMPTS.variant_of(f"user-{number}") for number in range(8)] == KNOWN
    program = (
        "from taskpilot_obs.compare.experiment import Experiment\n"
        "experiment = Experiment('planner-prompt', {'v1': 0.5, 'v2': 0.5})\n"
        "print(*(experiment.variant_of(f'user-{number}') for number in range(8)))\n"
    )
    environment = {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == KNOWN


KNOWN = ["v1", "v1", "v2", "v2", "v1", "v2", "v2", "v1"]


@pytest.mark.promise("same-variant")
@given(st.text(min_size=1, max_size=30))
def test_a_unit_keeps_its_variant(unit: str) -> None:
    """Whatever the ID, asking again gives the same variant, which is one of the experiment's."""
    assert PROMPTS.variant_of(unit) == PROMPTS.variant_of(unit)
    assert PROMPTS.variant_of(unit) in PROMPTS.variants


def test_shares_are_kept_and_experiments_are_independent() -> None:
    """Units fall as the shares say, and another experiment's name shuffles them again."""
    weighted = Experiment("weighted", {"a": 0.2, "b": 0.3, "c": 0.5})
    found = Counter(weighted.variant_of(str(number)) for number in range(UNITS))
    assert sample_ratio_p_value([found[name] for name in weighted.variants], [0.2, 0.3, 0.5]) > 0.001
    other = Experiment("other", {"v1": 0.5, "v2": 0.5})
    both = Counter((PROMPTS.variant_of(str(n)), other.variant_of(str(n))) for n in range(UNITS))
    assert sample_ratio_p_value(list(both.values()), [0.25] * 4) > 0.001


def test_growing_a_variant_moves_nobody_back() -> None:
    """A ramp from 10 to 30 percent of the second variant keeps everybody who had it."""
    small = Experiment("ramp", {"new": 0.1, "old": 0.9})
    large = Experiment("ramp", {"new": 0.3, "old": 0.7})
    users = [str(number) for number in range(2_000)]
    assert {u for u in users if small.variant_of(u) == "new"} <= {u for u in users if large.variant_of(u) == "new"}


@observe_agent("inner")
def inner() -> None:
    record_llm_call(model="gpt-4o-mini", cost="0.25", usage={"input_tokens": 1, "output_tokens": 1})


@observe_workflow("task")
def task() -> None:
    inner()


def test_the_variant_travels_with_every_run_beneath() -> None:
    """Runs carry experiment, variant and a hash of the unit, and the unit's own ID is the context's."""
    with capture_invocations() as seen:
        with PROMPTS.assign("user-1") as variant:
            task()
        task()
        inside, outside = seen[:3], seen[3:]
        assert variant == PROMPTS.variant_of("user-1")
        for run in inside:
            assert (run.attributes["experiment"], run.attributes["variant"]) == ("planner-prompt", variant)
            assert run.user == "user-1"
            assert "user-1" not in str(run.attributes["experiment_unit"])
        assert all("experiment" not in run.attributes for run in outside)


def test_metrics_count_by_variant() -> None:
    """Tasks, durations, cost and verdicts stand under the variant, each once."""
    registry = CollectorRegistry()
    with fresh_recorder(registry=registry), PROMPTS.assign("user-1", header="planner-prompt=v2"):
        observe_workflow("w")(lambda: record_llm_call(model="gpt-4o-mini", cost="0.25"))()
        with pytest.raises(RuntimeError):
            observe_workflow("w")(_fail)()
        with request_context(request_id="r"):
            record_feedback(correct=True)
        found = {
            (sample.name, sample.labels.get("status") or sample.labels.get("verdict")): sample.value
            for sample in samples(registry)
            if sample.name.startswith("experiment_") and sample.labels["variant"] == "v2" and sample.value
        }
    assert found["experiment_runs_total", "success"] == 1
    assert found["experiment_runs_total", "error"] == 1
    assert found["experiment_duration_seconds_count", None] == 2
    assert found["experiment_cost_usd_total", None] == 0.25
    assert found["experiment_feedback_total", "correct"] == 1


def _fail() -> None:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    ("header", "variant"),
    [
        ("planner-prompt=v2", "v2"),
        ("other=x, planner-prompt=v1", "v1"),
        ("planner-prompt=v9", None),
        ("", None),
        (None, None),
        ("planner-prompt", None),
    ],
)
def test_a_header_may_choose_the_variant(header: str | None, variant: str | None) -> None:
    """A variant of this experiment wins over the hash; anything else is ignored."""
    with PROMPTS.assign("user-1", header=header) as assigned:
        assert assigned == (variant or PROMPTS.variant_of("user-1"))


def test_somebody_unknown_gets_the_control_and_is_not_counted() -> None:
    """Without an ID there is no unit: the control is used, outside of the experiment."""
    with capture_invocations() as seen:
        with PROMPTS.assign(None) as variant:
            task()
        assert variant == PROMPTS.control == "v1"
        assert all("experiment" not in run.attributes for run in seen)


async def _coroutine() -> None:
    inner()


def _generator() -> Iterator[None]:
    inner()
    yield


async def _async_generator() -> AsyncIterator[None]:
    inner()
    yield


@pytest.mark.parametrize("function", [task, _coroutine, _generator, _async_generator])
def test_a_decorator_assigns_by_the_context(function: Any) -> None:
    """`experiment=` of a decorator assigns each call by the user of the request, whatever the kind of function."""
    import asyncio
    import inspect

    observed = observe_workflow("w", experiment=PROMPTS)(function)

    async def consume(value: Any) -> None:
        if inspect.isasyncgen(value):
            async for _ in value:
                pass
        elif inspect.iscoroutine(value):
            await value
        elif inspect.isgenerator(value):
            list(value)

    with capture_invocations() as seen:
        with request_context(user_id="user-3"):
            asyncio.run(consume(observed()))
        workflow = next(run for run in seen if run.name == "w")
        assert workflow.attributes["variant"] == PROMPTS.variant_of("user-3")
        assert {run.attributes.get("experiment") for run in seen} == {"planner-prompt"}


def test_an_assignment_within_itself_ends_with_the_outer_one() -> None:
    """Nothing is assigned behind it, which would count other requests for the variant."""
    assigned = Experiment("e", {"a": 0.5, "b": 0.5}).assign("user-1")
    with assigned:
        with assigned:
            pass
        assert _attribute_here("experiment") == "e"
    assert _attribute_here("experiment") is None


def test_tasks_may_share_an_assignment() -> None:
    """Each task has it within its own block, whichever ends first."""

    async def work(order: list[asyncio.Event]) -> list[object]:
        with assigned:
            await order[0].wait()
            inside = _attribute_here("experiment")
        order[1].set()
        return [inside, _attribute_here("experiment")]

    async def both() -> list[list[object]]:
        first, second, third = (asyncio.Event() for _ in range(3))
        first.set()
        return [*await asyncio.gather(work([second, third]), work([first, second]))]

    assigned = Experiment("e", {"a": 0.5, "b": 0.5}).assign("user-1")
    assert asyncio.run(both()) == [["e", None], ["e", None]]


def _attribute_here(name: str) -> object:
    with capture_invocations() as seen, track_workflow("w"):
        pass
    return seen[0].attributes.get(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": " "}, "name: given"),
        ({"variants": {"a": 1.0}}, "two or more"),
        ({"variants": {"a": 0.5, "b": 0.6}}, "add up to 1.1"),
        ({"variants": {"a": 1.5, "b": -0.5}}, "above 0"),
        ({"variants": {"a": float("nan"), "b": 0.5}}, "above 0"),
        ({"variants": {"": 0.5, "b": 0.5}}, "variant: given"),
        ({"unit": "team"}, "unit: given 'team'"),
        ({"primary": "happiness"}, "measure 'happiness'"),
        ({"secondary": ("cost", "luck")}, "measure 'luck'"),
    ],
)
def test_a_wrong_experiment_is_refused(options: dict[str, Any], message: str) -> None:
    """The error says what was given and what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        Experiment(**{"name": "e", "variants": {"a": 0.5, "b": 0.5}, **options})
