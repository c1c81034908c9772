"""Which calls a budget with a scope counts, on each way by which a call reaches it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from taskpilot_obs import record_llm_call, request_context, track_agent, track_llm, track_workflow
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.reservation import Reservation
from taskpilot_obs.budgets.status import statuses
from taskpilot_obs.exceptions import BudgetExceededError
from taskpilot_obs.testing import fresh_recorder

MODEL = "gpt-4o"
STATED = {"input_tokens": 40_000, "max_tokens": 2_000}
"""0.12 USD at most."""
CALL = {
    "tenant": "acme",
    "user": "ann",
    "agent": "planner",
    "workflow": "triage",
    "model": "gpt-4o",
    "provider": "openai",
    "service": "billing",
    "environment": "production",
}


def by_block(recorder: Recorder) -> None:
    """A reservation for a call that is made elsewhere."""
    with Reservation(recorder, model=MODEL, kwargs=STATED):
        pass


def by_call(recorder: Recorder) -> None:
    """A call that is refused before it is made."""
    with track_llm(model=MODEL, input_tokens=40_000, max_output_tokens=2_000) as call:
        call.record_usage(40_000, 2_000)


def after_the_fact(recorder: Recorder) -> None:
    """A call that is over, and can only be counted."""
    record_llm_call(model=MODEL, usage={"input_tokens": 40_000, "output_tokens": 2_000})


def figures(recorder: Recorder) -> tuple[float, float]:
    """USD that the budgets count as spent and as reserved."""
    recorder.drain()
    assert recorder.parts is not None
    control: Any = recorder.parts.budgets
    found = statuses(control.budgets, control.ledger, control.utc_now())
    return float(sum(each.spent for each in found)), float(sum(each.reserved for each in found))


def spent_by(way: Callable[[Recorder], None], limit: str, scope: dict[str, str]) -> float:
    """USD that the budget counts after one call."""
    budget = Budget("scoped", limit_usd=limit, action="enforce", scope=scope)
    configured = {"service": CALL["service"], "environment": CALL["environment"]}
    with fresh_recorder(budgets=[budget], **configured) as recorder:  # type: ignore[arg-type]  # TypedDict
        with request_context(tenant_id="acme", user_id="ann"), track_workflow("triage"), track_agent("planner"):
            way(recorder)
        return figures(recorder)[0]


WAYS = [by_block, by_call, after_the_fact]


@pytest.mark.parametrize("part", CALL)
@pytest.mark.parametrize("way", WAYS)
def test_a_budget_counts_the_calls_of_its_scope(way: Callable[[Recorder], None], part: str) -> None:
    """Each part of the scope is compared with the call's own; a call outside of it costs the budget nothing."""
    assert spent_by(way, "1", {part: CALL[part]}) == 0.12
    assert spent_by(way, "1", {part: "other"}) == 0


@pytest.mark.parametrize("part", CALL)
@pytest.mark.parametrize("way", [by_block, by_call])
def test_a_budget_refuses_the_calls_of_its_scope_only(way: Callable[[Recorder], None], part: str) -> None:
    """A call that has no room is refused if it is within the scope, and goes on otherwise."""
    with pytest.raises(BudgetExceededError):
        spent_by(way, "0.1", {part: CALL[part]})
    assert spent_by(way, "0.1", {part: "other"}) == 0


def test_a_block_that_is_lost_reserves_nothing_for_good() -> None:
    """A reservation that is dropped without an end counts as spent when it is collected, and stays reserved no more."""
    with fresh_recorder(budgets=[Budget("lost", limit_usd="0.2", action="enforce")]) as recorder:
        held = Reservation(recorder, model=MODEL, kwargs=STATED)
        held.reserve()
        assert figures(recorder) == (0, 0.12)
        del held
        gc.collect()
        assert figures(recorder) == (0.12, 0)
        Reservation(recorder, model=MODEL)  # reserves nothing, and ends nothing
        assert figures(recorder) == (0.12, 0)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-2024-08-06"])
def test_a_record_counts_for_its_request_model_and_for_the_one_that_answered(model: str) -> None:
    """A gateway may answer with another model than it was asked for: budgets of either count the call."""

    def answered(_recorder: Recorder) -> None:
        usage = {"input_tokens": 40_000, "output_tokens": 2_000}
        record_llm_call(model="gpt-4o", response_model="gpt-4o-2024-08-06", usage=usage)

    assert spent_by(answered, "1", {"model": model}) == 0.12
    assert spent_by(answered, "1", {"model": "gpt-4o-mini"}) == 0
