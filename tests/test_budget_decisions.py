"""What a budget's decisions state: whose call it was, why, and every figure."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from taskpilot_obs import request_context, track_agent, track_llm
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget, BudgetAlert
from taskpilot_obs.exceptions import BudgetExceededError, BudgetUnavailableError
from taskpilot_obs.integration import check_input
from taskpilot_obs.records import CheckResult, Decision, Invocation, Origin, Stage, Verdict
from taskpilot_obs.testing import FixedClock, capture_records, fresh_recorder

MODEL = "gpt-4o"
"""2.50 USD for a million tokens in, 10.00 USD out: 40,000 in and 2,000 out are 0.12 USD."""
NOW = 1_767_225_600_000_000_000
"""Where a `FixedClock` stands: 2026-01-01."""
FIGURES = {
    "period": "day",
    "unit": "usd",
    "limit": "0.2",
    "spent": "0.12",
    "reserved": "0",
    "period_start": "2026-01-01T00:00:00+00:00",
    "resets_at": "2026-01-02T00:00:00+00:00",
    "scope_key": '{"tenant": "acme"}',
    "scope.tenant": "acme",
}


def called(recorder: Recorder, model: str = MODEL) -> None:
    """One LLM call of an agent, for a user of the tenant acme."""
    with (
        request_context("req-1", tenant_id="acme", user_id="u-1", session_id="s-1"),
        track_agent("writer", recorder=recorder),
        track_llm(
            recorder=recorder, provider="openai", model=model, input_tokens=40_000, max_output_tokens=2_000
        ) as run,
    ):
        run.record_usage(input_tokens=40_000, output_tokens=2_000)


def origin_of(run: Invocation) -> Origin:
    """Where the decisions about a call come from."""
    return Origin(
        "req-1",
        run.invocation_id,
        workflow="writer",
        agent="writer",
        trace_id=run.trace_id,
        span_id=run.span_id,
        tenant="acme",
        user="u-1",
        session="s-1",
    )


def budget(**options: object) -> Budget:
    """A limit of each tenant, with room for one call."""
    return Budget("team", limit_usd="0.2", scope={"tenant": "*"}, thresholds=(1,), **options)  # type: ignore[arg-type]


def last_call(calls: list[Invocation]) -> Invocation:
    return [each for each in calls if each.request_model][-1]


def test_a_refusal_states_whose_call_it_was_and_every_figure() -> None:
    """The decision names request, call, agent, tenant, user and session, the reason and all amounts as text."""
    with (
        fresh_recorder(budgets=[budget(action="enforce")], clock=FixedClock()) as recorder,
        capture_records(Decision, recorder) as decisions,
        capture_records(Invocation, recorder) as calls,
    ):
        called(recorder)
        recorder.drain()
        with pytest.raises(BudgetExceededError) as caught:
            called(recorder)
        recorder.drain()
        (decision,) = [each for each in decisions if each.stage]
        assert decision.origin == origin_of(last_call(list(calls)))
    assert (decision.name, decision.verdict, decision.result) == ("team", Verdict.DENY, CheckResult.BLOCKED)
    assert (decision.stage, decision.reason) == (Stage.INPUT, "no room for the call")
    assert dict(decision.attributes) == {**FIGURES, "needed": "0.12"}
    assert decision.time_unix_ns == NOW
    assert (caught.value.tenant, caught.value.retry_after_s) == ("acme", None)


def test_a_shadow_states_what_a_refusal_would() -> None:
    """The decision of a budget in shadow has the origin, the time and the figures of a refusal."""
    with (
        fresh_recorder(budgets=[budget(action="shadow")], clock=FixedClock()) as recorder,
        capture_records(Decision, recorder) as decisions,
        capture_records(Invocation, recorder) as calls,
    ):
        called(recorder)
        recorder.drain()
        called(recorder)
        recorder.drain()
        (decision,) = [each for each in decisions if each.stage]
        assert decision.origin == origin_of(last_call(list(calls)))
    assert (decision.verdict, decision.result) == (Verdict.DENY, CheckResult.WOULD_BLOCK)
    assert dict(decision.attributes) == {**FIGURES, "needed": "0.12"}
    assert decision.time_unix_ns == NOW


@pytest.mark.parametrize(
    ("when", "verdict", "result"),
    [("open", Verdict.ALLOW, CheckResult.BYPASSED), ("closed", Verdict.DENY, CheckResult.BLOCKED)],
)
def test_a_call_that_cannot_be_judged_states_why(when: str, verdict: Verdict, result: CheckResult) -> None:
    """The decision about a model without a price names the call, the reason and the scope, and no amounts."""
    with (
        fresh_recorder(budgets=[budget(action="enforce", when_unpriced=when)], clock=FixedClock()) as recorder,
        capture_records(Decision, recorder) as decisions,
        capture_records(Invocation, recorder) as calls,
    ):
        try:
            called(recorder, "own-model")
        except BudgetUnavailableError:
            assert when == "closed"
        recorder.drain()
        (decision,) = [each for each in decisions if each.stage]
        assert decision.origin == origin_of(last_call(list(calls)))
    assert (decision.verdict, decision.result, decision.stage) == (verdict, result, Stage.INPUT)
    assert "no price" in str(decision.reason)
    assert dict(decision.attributes) == {"period": "day", "scope.tenant": "acme"}
    assert decision.time_unix_ns == NOW


def test_a_call_that_an_event_loop_lets_through_states_why(tmp_path: Path) -> None:
    """The decision `bypassed` names the call and the reason: the store would have kept the event loop waiting."""

    async def called_by_a_callback() -> str:
        run = recorder.start_llm(model=MODEL)
        check_input(run, "hello")
        run.stop()
        return run.invocation_id

    store = f"sqlite:///{tmp_path / 'budgets.db'}"
    limit = Budget("team", limit_usd="0.2", action="enforce")
    with (
        fresh_recorder(budgets=[limit], budget_store=store, clock=FixedClock()) as recorder,
        capture_records(Decision, recorder) as decisions,
    ):
        call = asyncio.run(called_by_a_callback())
        (decision,) = [each for each in decisions if each.stage]
    assert (decision.verdict, decision.result) == (Verdict.ALLOW, CheckResult.BYPASSED)
    assert decision.reason == "the store of the budgets cannot be asked in an event loop that must go on"
    assert (decision.name, decision.origin.invocation_id, decision.time_unix_ns) == ("team", call, NOW)


def test_an_exhausted_budget_states_that_calls_are_refused() -> None:
    """The alert at less than the whole limit says that calls are refused, and its decision belongs to the tenant."""
    alerts: list[BudgetAlert] = []
    with (
        fresh_recorder(
            budgets=[budget(action="enforce")], clock=FixedClock(), on_budget_alert=alerts.append
        ) as recorder,
        capture_records(Decision, recorder) as decisions,
    ):
        called(recorder)
        recorder.drain()
        with pytest.raises(BudgetExceededError):
            called(recorder)
        recorder.flush()
        (decision,) = [each for each in decisions if not each.stage]
    assert (decision.verdict, decision.result) == (Verdict.ALLOW, CheckResult.PASSED)
    assert decision.reason == "calls are refused for lack of room"
    assert decision.origin == Origin(tenant="acme")
    assert decision.time_unix_ns == NOW
    assert dict(decision.attributes) == {**FIGURES, "threshold": 1.0, "refused": True}
    (alert,) = alerts
    assert (str(alert.limit), str(alert.spent), alert.unit, alert.refused) == ("0.2", "0.12", "usd", True)
