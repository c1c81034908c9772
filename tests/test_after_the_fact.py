"""Calls and runs that are over already: booked as richly as live ones, without a run around them."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from taskpilot_obs import (
    Usage,
    current_run,
    golden_signals,
    record_llm_call,
    record_run,
    request_context,
    track_llm,
    track_workflow,
)
from taskpilot_obs.integration import Recorder
from taskpilot_obs.records import Feedback, Invocation, Operation, Status
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.testing import Captured, capture_invocations, capture_records, fresh_recorder


def failures(recorder: Recorder, where: str) -> int:
    recorder.drain()
    return sum(
        n for (metric, labels), n in recorder.counters.totals.items() if metric is INTERNAL_ERRORS and where in labels
    )


def test_everything_that_a_call_can_state_is_booked(seen: Captured[Invocation]) -> None:
    """Agent, identity, end, error, first token, stream, retries and tier of a call need no run around it."""
    ended = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
    record_llm_call(
        model="gpt-4o", agent="Planner", workflow="triage", tenant_id="acme", user_id="u1", session_id="s1",
        request_id="req-1", ended_at=ended, duration_seconds=2.5, usage=Usage(150, 50),
        error_type="openai.RateLimitError",
        time_to_first_token=0.5, retries=2, response_id="r1", attributes={"step": "plan"},
    )  # fmt: skip
    (run,) = seen
    assert (run.agent, run.workflow, run.tenant, run.user, run.session) == ("Planner", "triage", "acme", "u1", "s1")
    assert (run.request_id, run.status, run.error_type) == ("req-1", Status.ERROR, "openai.RateLimitError")
    assert (run.error_category, run.retries, run.streaming) == ("rate_limit", 2, True)
    assert run.duration_s == pytest.approx(2.5)
    assert run.ttft_s == pytest.approx(0.5)
    assert run.start_unix_ns / 1e9 == pytest.approx((ended - timedelta(seconds=2.5)).timestamp(), abs=0.001)
    assert run.attributes == {"step": "plan"}


def test_a_call_returns_what_was_booked(seen: Captured[Invocation]) -> None:
    """Usage, cost, its source and the request of a call are at hand at once, and are those of the record."""
    priced = record_llm_call(model="gpt-4o", usage=Usage(150, 50))
    unknown = record_llm_call(model="our-own-model", usage=Usage(150, 50))
    stated = record_llm_call(model="our-own-model", cost="0.5")
    hit = record_llm_call(model="gpt-4o", usage=Usage(150, 50), cached=True)
    assert (priced.usage, priced.cost, priced.cost_source) == (Usage(150, 50), Decimal("0.000875"), "price_table")
    assert (unknown.cost, unknown.cost_source) == (None, None)
    assert (stated.cost, stated.cost_source) == (Decimal("0.5"), "caller")
    assert (hit.usage, hit.cost, hit.cost_source) == (None, None, None)
    booked = [(run.usage, run.cost, run.cost_source, run.request_id, run.invocation_id) for run in seen]
    returned = [
        (one.usage, one.cost, one.cost_source, one.request_id, one.invocation_id)
        for one in (priced, unknown, stated, hit)
    ]
    assert returned == booked


def test_a_call_with_an_agent_is_not_a_task() -> None:
    """100 calls of 2.5 s, half of them failed, do not count as tasks of a microsecond that succeed."""
    with fresh_recorder():
        for number in range(100):
            record_llm_call(
                model="gpt-4o", agent="Planner", duration_seconds=2.5, error_type="ValueError" if number % 2 else None
            )
        none = golden_signals()
        assert none.success_rate is None
        for number in range(100):
            record_run("agent", "Planner", "error" if number % 2 else "success", 2.5)
        signals = golden_signals()
        assert signals.success_rate == 50
        assert signals.p95_latency_ms is not None
        assert signals.p95_latency_ms >= 2_500


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("workflow", Operation.WORKFLOW),
        ("agent", Operation.AGENT),
        ("tool", "execute_tool"),
        ("invoke_agent", "invoke_agent"),
    ],
)
def test_each_kind_of_run_is_booked(seen: Captured[Invocation], kind: str, operation: str) -> None:
    """A workflow, an agent or a tool call that is over has its status, duration and identity."""
    booked = record_run(kind, "it", "timeout", 3, tenant_id="acme", user_id="u", session_id="s", request_id="r")
    (run,) = seen
    assert (run.operation, run.name, run.status) == (operation, "it", Status.TIMEOUT)
    assert (run.tenant, run.user, run.session, run.request_id) == ("acme", "u", "s", "r")
    assert run.duration_s == pytest.approx(3)
    assert (booked.request_id, booked.status, booked.invocation_id) == ("r", Status.TIMEOUT, run.invocation_id)


def test_only_the_outermost_run_is_a_task(seen: Captured[Invocation]) -> None:
    """An agent for which a workflow is stated is not a task of its own; a workflow always is."""
    record_run("agent", "Planner")
    record_run("agent", "Planner", workflow="triage")
    record_run("agent", "Helper", agent="Planner")
    record_run("workflow", "triage")
    record_run("tool", "search", agent="Planner", workflow="triage")
    assert [run.is_task for run in seen] == [True, False, False, True, False]
    assert [(run.workflow, run.agent) for run in seen] == [
        ("Planner", "Planner"), ("triage", "Planner"), ("Helper", "Helper"), ("triage", None), ("triage", "Planner"),
    ]  # fmt: skip


def test_what_a_call_does_not_state_is_not_made_up(seen: Captured[Invocation]) -> None:
    """A call or a run of which only the name is stated took no time, and has no usage, retries, stream or answer."""
    record_llm_call(model="gpt-4o")
    record_run("tool", "search")
    for run in seen:
        assert (run.duration_s, run.ttft_s, run.retries, run.streaming) == (0, None, 0, False)
        assert (run.usage, run.cost, run.cached, run.status) == (None, None, None, Status.SUCCESS)


def test_an_exception_tells_how_it_ended(seen: Captured[Invocation]) -> None:
    """Status, class and category of an error follow from the exception, or from the name of its class."""
    record_llm_call(model="gpt-4o", error=TimeoutError())
    record_llm_call(model="gpt-4o", error_type="openai.APITimeoutError")
    record_llm_call(model="gpt-4o", error=ValueError("x"), status="cancelled")
    record_run("tool", "search", error=ValueError("x"))
    assert [run.status for run in seen] == ["timeout", "timeout", "cancelled", "error"]
    assert [run.error_type for run in seen] == ["TimeoutError", "openai.APITimeoutError", None, "ValueError"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("KeyboardInterrupt", Status.CANCELLED),
        ("asyncio.exceptions.CancelledError", Status.CANCELLED),
        ("langgraph.errors.GraphRecursionError", Status.BLOCKED),
        ("requests.exceptions.ReadTimeout", Status.TIMEOUT),
        ("acme.TimeoutOfOurs", Status.ERROR),
    ],
)
def test_the_name_of_an_exception_stands_for_its_status(seen: Captured[Invocation], name: str, status: Status) -> None:
    """A class that is known by its name only, builtins bare, ends a run as the exception itself would."""
    record_run("tool", "search", error_type=name)
    assert seen[0].status is status


def test_a_call_within_a_run_belongs_to_it(seen: Captured[Invocation]) -> None:
    """Inside a block a call after the fact is part of its roll-up, also where it states an agent or a tenant."""
    with request_context("req-1", tenant_id="acme"), track_workflow("triage"):
        record_llm_call(model="gpt-4o", usage=Usage(150, 50))
        record_llm_call(model="gpt-4o", usage=Usage(150, 50), agent="Planner", user_id="u")
        assert current_run() is not None
    first, second, workflow = seen
    assert [(run.workflow, run.agent, run.tenant, run.user) for run in (first, second)] == [
        ("triage", None, "acme", None), ("triage", "Planner", "acme", "u"),
    ]  # fmt: skip
    assert {run.parent_id for run in (first, second)} == {workflow.invocation_id}
    assert workflow.rollup is not None
    assert workflow.rollup.llm_calls == 2


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"ended_at": "yesterday"}, "ended_at"),
        ({"ended_at": math.nan}, "ended_at"),
        ({"duration_seconds": "long"}, "duration_seconds"),
        ({"time_to_first_token": -1}, "first_token_after"),
        ({"time_to_first_token": "soon"}, "first_token_after"),
        ({"retries": "many"}, "retries"),
        ({"finish_reasons": 7}, "record_llm_call"),
    ],
)
def test_a_fact_that_cannot_be_read_is_counted(recorder: Recorder, options: Any, where: str) -> None:
    """A time, a duration or a count of no use raises nothing and is counted."""
    record_llm_call(model="gpt-4o", usage=Usage(150, 50), **options)
    assert failures(recorder, where) == 1


def test_nothing_is_booked_where_nothing_is_recorded() -> None:
    """With `enabled=False` a call returns that nothing was booked."""
    with fresh_recorder(enabled=False):
        call, run = record_llm_call(model="gpt-4o", usage=Usage(1, 1)), record_run("agent", "Planner")
        assert (call.usage, call.cost, call.cost_source, call.request_id, run.status) == (None,) * 5


def test_an_unknown_kind_or_status_is_refused() -> None:
    """A kind or status that does not exist, and an LLM call as a run, are refused where they are stated."""
    with pytest.raises(ValueError, match="robot"):
        record_run("robot", "r")
    with pytest.raises(ValueError, match="LLM call"):
        record_run("chat", "gpt-4o")
    with pytest.raises(ValueError, match="great"):
        record_run("agent", "a", "great")


# --- what a running call may state ------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["request_id", "tenant_id", "user_id", "session_id"])
def test_a_call_states_any_part_of_its_identity(seen: Captured[Invocation], part: str) -> None:
    """One part alone is kept, and the others are unknown; a request without an ID gets one."""
    stated: dict[str, Any] = {part: "stated-1"}
    record_llm_call(model="gpt-4o", **stated)
    (run,) = seen
    names = {"request_id": run.request_id, "tenant_id": run.tenant, "user_id": run.user, "session_id": run.session}
    assert names.pop(part) == "stated-1"
    assert set(names.values()) <= {None, run.request_id}


def test_a_block_states_its_tenant_and_user(seen: Captured[Invocation]) -> None:
    """`track_llm(tenant_id=, user_id=)` is booked under them; the context around stays as it is."""
    with request_context("req-1", session_id="s1"):
        with track_llm(model="gpt-4o", tenant_id="acme", user_id="u1"):
            pass
        with track_llm(model="gpt-4o"):
            pass
    identities = [(run.request_id, run.tenant, run.user, run.session) for run in seen]
    assert identities == [("req-1", "acme", "u1", "s1"), ("req-1", None, None, "s1")]


@pytest.mark.parametrize(
    ("args", "counts", "usage"),
    [
        ((150, 50), {}, Usage(150, 50)),
        ((150,), {}, Usage(150)),
        ((None, 50), {}, Usage(None, 50)),
        ((150, 50), {"cache_read_tokens": 100}, Usage(150, 50, cache_read_tokens=100)),
        ((Usage(150, 50),), {}, Usage(150, 50)),
    ],
)
def test_tokens_by_position(seen: Captured[Invocation], args: Any, counts: Any, usage: Usage) -> None:
    """`record_usage(150, 50)` is input and output."""
    with track_llm(model="gpt-4o") as call:
        call.record_usage(*args, **counts)
    assert (seen[0].usage, seen[0].usage_inconsistent) == (usage, False)


def test_a_usage_and_a_number_beside_it_are_counted(recorder: Recorder, seen: Captured[Invocation]) -> None:
    """A whole usage with a number beside it contradicts itself: it is counted, and the usage stands."""
    with track_llm(model="gpt-4o") as call:
        call.record_usage({"prompt_tokens": 1}, 50)
    assert (failures(recorder, "record_usage"), seen[0].usage) == (1, Usage(1))


def test_a_measured_time_to_the_first_token(seen: Captured[Invocation]) -> None:
    """A time to first token that the application measured is that of the call, which is a stream."""
    with track_llm(model="gpt-4o") as call:
        call.first_token()
        call.first_token_after(0.25)
    assert (seen[0].ttft_s, seen[0].streaming) == (0.25, True)


def test_a_running_call_tells_its_cost(seen: Captured[Invocation]) -> None:
    """`call.usage` and `call.cost_usd` are at hand as soon as the usage is, and do not fix the cost before it."""
    with track_llm(model="gpt-4o") as call:
        costs = [call.cost_usd]
        call.record_usage(150, 50)
        costs.append(call.cost_usd)
        assert call.usage == Usage(150, 50)
    assert costs == [None, Decimal("0.000875")]
    assert seen[0].cost == Decimal("0.000875")


def test_what_ended_yesterday_is_booked_then(seen: Captured[Invocation]) -> None:
    """A moment may be seconds since the epoch, too."""
    then = time.time() - 86_400
    record_run("workflow", "triage", ended_at=then, duration_seconds=60)
    with capture_invocations():
        assert seen[0].start_unix_ns / 1e9 == pytest.approx(then - 60, abs=0.01)


def test_feedback_has_the_attributes_of_its_request_only(recorder: Recorder) -> None:
    """The variant that a request ran under stands on its feedback, and not on that of an earlier request."""
    with capture_records(Feedback, recorder) as rated, request_context("req-1", variant="b"):
        recorder.record_feedback(correct=True, attributes={"by": "ann"})
        recorder.record_feedback("req-0", correct=True)
        assert [(each.request_id, dict(each.attributes)) for each in rated] == [
            ("req-1", {"variant": "b", "by": "ann"}),
            ("req-0", {}),
        ]
