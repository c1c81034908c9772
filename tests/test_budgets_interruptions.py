"""Ctrl-C while budgets are booked: wherever it comes, each call is booked once, and nothing stays reserved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from _press import Press

from taskpilot_obs import record_llm_call, track_llm
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget, BudgetAlert
from taskpilot_obs.budgets.admission import AdmissionController
from taskpilot_obs.budgets.admitted import Admitted
from taskpilot_obs.budgets.ledger import MemoryLedger
from taskpilot_obs.budgets.outbox import Outbox
from taskpilot_obs.budgets.reservation import Reservation
from taskpilot_obs.budgets.settlement import Settler
from taskpilot_obs.budgets.status import statuses
from taskpilot_obs.testing import fresh_recorder

CALL: dict[str, Any] = {"model": "gpt-4o", "input_tokens": 40_000, "max_output_tokens": 2_000}
"""0.12 USD."""
BUDGETS = (
    Budget("team", limit_usd=1, action="enforce"),
    Budget("tokens", limit_tokens=1_000_000, action="shadow", scope={"tenant": "*"}),
)


def control_of(recorder: Recorder) -> AdmissionController:
    assert recorder.parts is not None
    assert recorder.parts.budgets is not None
    return recorder.parts.budgets


def amounts(recorder: Recorder) -> dict[str, tuple[float, float]]:
    """What is spent and reserved of each budget."""
    control = control_of(recorder)
    found = statuses(control.budgets, control.ledger, control.utc_now())
    return {each.budget: (float(each.spent), float(each.reserved)) for each in found}


def calls(recorder: Recorder) -> None:
    """Three that reserve, of which one is not recorded; and two that are recorded after the fact: 0.57 USD."""
    with track_llm(recorder=recorder, **CALL) as running:
        running.record_usage(input_tokens=40_000, output_tokens=2_000)
    with Reservation(recorder, model="gpt-4o", kwargs={"input_tokens": 40_000, "max_tokens": 2_000}):
        record_llm_call(model="gpt-4o", usage={"input_tokens": 10, "output_tokens": 0}, cost="0.13")
    with Reservation(recorder, model="gpt-4o", kwargs={"input_tokens": 40_000, "max_tokens": 2_000}):
        pass
    for _ in range(2):
        record_llm_call(model="gpt-4o", usage={"input_tokens": 10, "output_tokens": 0}, cost="0.10")


@pytest.mark.parametrize(
    "functions",
    [
        (Settler._settle, Settler._charges_of, Settler._charges, Settler._charge, Settler._end_of),
        (Outbox.put, Outbox.send, Outbox._begun, Outbox._batch_of, Outbox._hand_over, Outbox._ended),
        (Settler._tell, Settler._show_if_top, Settler._show),
        (
            MemoryLedger._settle,
            MemoryLedger._expire,
            MemoryLedger._give_back,
            MemoryLedger._change,
            MemoryLedger._balance,
        ),
    ],
    ids=lambda functions: functions[0].__qualname__,
)
def test_a_batch_that_is_interrupted_is_booked_to_its_end(functions: tuple[Callable[..., Any], ...]) -> None:
    """Ctrl-C at any line is raised to the reader; the sums are exact, and each threshold is reported."""
    press, balance = Press(*functions), 0
    while balance == 0 or press.pressed:
        balance += 1
        alerts: list[BudgetAlert] = []
        with fresh_recorder(budgets=BUDGETS, on_budget_alert=alerts.append) as recorder:
            recorder.pipeline.high_water = 1_000
            with recorder.pipeline._lock:  # the drainer has to wait
                calls(recorder)
                with suppress(KeyboardInterrupt), press.at(balance):
                    recorder.pipeline._process(1_000)
            recorder.flush()
            assert amounts(recorder) == {"team": (0.57, 0.0), "tokens": (84_030.0, 0.0)}, balance
            assert {each.threshold for each in alerts if each.budget == "team"} == {0.5}, balance
            assert control_of(recorder).held == {}
    assert balance > 5


class PressedOnce(dict[str, Admitted]):
    """Takes a reservation out, and is interrupted by Ctrl-C once."""

    pressed = False

    def pop(self, *given: Any) -> Any:
        found = super().pop(*given)
        if not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt
        return found


def test_a_reservation_that_was_taken_out_is_not_missed() -> None:
    """A Ctrl-C right behind the end of a reservation keeps none of the others from ending."""
    with fresh_recorder(budgets=BUDGETS) as recorder:
        control_of(recorder).held = PressedOnce()
        recorder.pipeline.high_water = 1_000
        with recorder.pipeline._lock:  # the drainer has to wait
            calls(recorder)
            with pytest.raises(KeyboardInterrupt):
                recorder.pipeline._process(1_000)
        recorder.flush()
        assert amounts(recorder) == {"team": (0.57, 0.0), "tokens": (84_030.0, 0.0)}
        assert control_of(recorder).held == {}
