"""What users are promised for testing their own instrumented code."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from taskpilot_obs import get_recorder, observe_agent, record_policy_violation, track_agent, track_tool, track_workflow
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Decision, Started, Status
from taskpilot_obs.testing import FixedClock, capture_invocations, capture_records, fresh_recorder


def runs_of(recorder: Recorder, agent: str) -> float | None:
    recorder.drain()
    assert recorder.registry is not None
    return recorder.registry.get_sample_value("agent_runs_total", {"agent": agent, "status": "success"})


def test_captured_invocations_are_there_at_once_in_the_order_of_their_ends() -> None:
    """Reading drains first: what has just ended is there, innermost first, by index, slice, length and iteration."""
    with capture_invocations() as seen:
        with track_workflow("handle"), track_agent("PlannerAgent"), track_tool("create_task"):
            pass
        assert [run.name for run in seen] == ["create_task", "PlannerAgent", "handle"]
        assert (len(seen), seen[-1].name, [run.name for run in seen[:2]]) == (
            3,
            "handle",
            ["create_task", "PlannerAgent"],
        )
        assert seen[0].status is Status.SUCCESS


def test_capturing_ends_with_the_block() -> None:
    """What was recorded before the block or after it is not captured; what was inside stays readable."""
    with track_agent("before"):
        pass
    with capture_invocations() as seen, track_agent("inside"):
        pass
    with track_agent("after"):
        pass
    assert [run.name for run in seen] == ["inside"]


def test_captures_of_each_kind_stand_side_by_side() -> None:
    """Each capture holds records of its kind alone, and none takes anything from another."""
    with (
        capture_records(Started) as begun,
        capture_records(Decision) as decisions,
        capture_invocations() as first,
        capture_invocations() as second,
        track_agent("a"),
    ):
        record_policy_violation("p")
    assert [start.name for start in begun] == ["a"]
    assert [decision.name for decision in decisions] == ["p"]
    assert list(first) == list(second)
    assert len(first) == 1


def test_an_exception_of_the_block_ends_the_capture() -> None:
    """A block that raises is captured up to there, its exception goes on, and nothing stays behind."""
    with pytest.raises(KeyError), capture_invocations() as seen, track_agent("a"):
        raise KeyError
    with track_agent("after"):
        pass
    assert [(run.name, run.status) for run in seen] == [("a", Status.ERROR)]


def test_capturing_from_a_recorder_of_its_own() -> None:
    """A capture may be of a recorder other than the default one, and sees that one alone."""
    mine = build_recorder(registry=CollectorRegistry())
    with capture_invocations(mine) as seen:
        with track_agent("elsewhere"):
            pass
        with track_agent("here", recorder=mine):
            pass
        assert [run.name for run in seen] == ["here"]
    mine.shutdown()


@observe_agent("decorated")
def decorated() -> None:
    """Was decorated before any test ran."""


def test_a_fresh_recorder_has_counted_nothing_and_puts_back_what_was_there() -> None:
    """In the block the default recorder counts from zero, also for functions decorated before; afterwards as before."""
    decorated()
    outside = get_recorder()
    parts = outside.parts
    with fresh_recorder() as recorder:
        assert recorder is outside
        assert not runs_of(recorder, "decorated")
        decorated()
        decorated()
        assert runs_of(recorder, "decorated") == 2
    assert get_recorder().parts is parts
    assert runs_of(outside, "decorated") == 1


def test_a_fresh_recorder_takes_the_options_of_configure() -> None:
    """Options are those of `configure()`: service, own exporters, a registry; a wrong one is a clear error."""
    registry, exported = CollectorRegistry(), list[str]()
    with fresh_recorder(
        service="mine", registry=registry, exporters=[lambda run: exported.append(run.name)]
    ) as recorder:
        decorated()
        assert recorder.settings.service == "mine"
        assert recorder.registry is registry
        assert runs_of(recorder, "decorated") == 1
    assert exported == ["decorated"]
    with pytest.raises(ConfigurationError, match="servce"), fresh_recorder(servce="x"):  # type: ignore[call-arg]  # what is tested
        pass


def test_a_block_that_raises_puts_back_what_was_there() -> None:
    """An exception of the block goes on, and the parts before are back."""
    parts = get_recorder().parts
    with pytest.raises(KeyError), fresh_recorder():
        raise KeyError
    assert get_recorder().parts is parts


def test_a_fixed_clock_goes_on_when_it_is_told_to() -> None:
    """It stands still between two readings, and `advance` moves durations and times by exactly so much."""
    clock = FixedClock(5_000_000_000)
    assert clock.now() == clock.now()
    with fresh_recorder(clock=clock) as recorder, capture_invocations(recorder) as seen:
        decorated()
        clock.advance(0.25)
        clock.refresh()
        with track_agent("slow"):
            clock.advance(90)
        assert [(run.start_unix_ns, run.duration_s) for run in seen] == [(5_000_000_000, 0), (5_250_000_000, 90)]
        assert clock.unix_ns(clock.now()) == 95_250_000_000
