"""Budgets whose store is away: calls pass or not as was chosen, and nothing that was spent is forgotten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _ledgers import SteeredLedger

from taskpilot_obs import record_llm_call, track_llm
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets.reservation import Reservation
from taskpilot_obs.budgets.status import statuses
from taskpilot_obs.exceptions import BudgetUnavailableError
from taskpilot_obs.records import CheckResult, Decision
from taskpilot_obs.semconv import INTERNAL_ERRORS, WarningCode
from taskpilot_obs.testing import capture_records, fresh_recorder

MODEL = "gpt-4o"
STATED = {"input_tokens": 40_000, "max_tokens": 2_000}
"""0.12 USD at most."""


def call() -> None:
    with track_llm(model=MODEL, input_tokens=40_000, max_output_tokens=2_000) as running:
        running.record_usage(40_000, 2_000)


def parts(recorder: Recorder) -> Any:
    """The recorder's parts, which exist while budgets do."""
    return recorder.parts


def figures(recorder: Recorder) -> tuple[float, float]:
    """USD spent and reserved, once what waits is sent."""
    recorder.drain()
    parts(recorder).settler.refresh()
    control = parts(recorder).budgets
    found = statuses(control.budgets, control.ledger, control.utc_now())
    return float(sum(each.spent for each in found)), float(sum(each.reserved for each in found))


@pytest.fixture
def ledger() -> SteeredLedger:
    """The ledger of `budgeted`."""
    return SteeredLedger()


@contextmanager
def budgeted(ledger: SteeredLedger, **options: Any) -> Iterator[Recorder]:
    """A recorder with one budget of 1 USD a day, in this ledger."""
    with fresh_recorder(budgets=[Budget("team", limit_usd=1, **options)]) as recorder:
        parts(recorder).budgets.ledger = ledger
        yield recorder


@pytest.mark.parametrize("when", ["open", "closed"])
def test_a_call_passes_or_not_as_was_chosen(ledger: SteeredLedger, when: str) -> None:
    """`open` notes that the call was not judged and charges it later; `closed` refuses it, and it costs nothing."""
    with (
        budgeted(ledger, action="enforce", when_store_down=when) as recorder,
        capture_records(Decision, recorder) as decisions,
    ):
        ledger.is_away = True
        if when == "open":
            call()
        else:
            with pytest.raises(BudgetUnavailableError, match="the store of the budgets cannot be asked"):
                call()
        recorder.drain()
        ledger.is_away = False
        assert figures(recorder) == (0.12 if when == "open" else 0, 0)
        expected = CheckResult.BYPASSED if when == "open" else CheckResult.BLOCKED
        assert [(each.result, each.reason) for each in decisions] == [
            (expected, "the store of the budgets cannot be asked")
        ]


def test_a_shadow_asks_for_nothing_while_the_store_is_away(ledger: SteeredLedger) -> None:
    """A budget that refuses no call lets it pass without a decision, and charges it later."""
    with budgeted(ledger, action="shadow") as recorder, capture_records(Decision, recorder) as decisions:
        ledger.is_away = True
        call()
        recorder.drain()
        ledger.is_away = False
        assert figures(recorder) == (0.12, 0)
        assert list(decisions) == []


def test_the_figures_stay_while_the_store_is_away(ledger: SteeredLedger) -> None:
    """Metrics keep their last values while the ledger cannot be read, and go on when it can."""
    with budgeted(ledger, action="enforce", when_store_down="open") as recorder:
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        labels = {"budget": "team", "period": "day"}
        call()
        assert figures(recorder) == (0.12, 0)
        assert value("llm_budget_spent_usd", labels) == 0.12
        ledger.is_away = True
        call()
        recorder.drain()
        parts(recorder).settler.refresh()
        assert value("llm_budget_spent_usd", labels) == 0.12
        ledger.is_away = False
        assert figures(recorder) == (0.24, 0)
        assert value("llm_budget_spent_usd", labels) == 0.24


def test_the_drainer_reads_figures_in_memory_once_a_second(ledger: SteeredLedger) -> None:
    """Between batches it reads the balances again after a second, and never those of a store: it would wait there."""
    with budgeted(ledger) as recorder:
        settler = parts(recorder).settler
        for seconds, blocking, reads in ((0.0, False, 0), (2.0, False, 1), (0.0, False, 1), (2.0, True, 1)):
            settler._refreshed -= seconds
            ledger.blocking = blocking
            settler.tick()
            assert ledger.reads == reads
        ledger.blocking = False


def test_only_a_store_needs_a_thread_that_reads_figures(ledger: SteeredLedger) -> None:
    """A ledger in memory is read by the drainer; one with a store by one thread, however many batches are settled."""
    with budgeted(ledger) as recorder:
        settler = parts(recorder).settler
        settler.export(())
        assert settler._thread is None
        ledger.blocking = True
        settler.export(())
        thread = settler._thread
        settler.export(())
        assert settler._thread is thread is not None
        assert thread.name.startswith("taskpilot_obs-")  # such threads do not wait for room in a queue
        settler.stop(10)
        assert not thread.is_alive()
        ledger.blocking = False


def test_a_store_that_hangs_keeps_no_shutdown(ledger: SteeredLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads the figures is waited for as long as stated, and not until its store answers."""
    asked, go = threading.Event(), threading.Event()

    def hang(_now: object) -> int:
        asked.set()
        go.wait(30)
        return 0

    with budgeted(ledger) as recorder:
        settler = parts(recorder).settler
        monkeypatch.setattr(ledger, "release_expired", hang)
        settler._start()
        assert asked.wait(10)
        stopping = threading.Thread(target=settler.stop, args=(0.0,))
        stopping.start()
        stopping.join(10)
        has_stopped = not stopping.is_alive()
        go.set()
        assert has_stopped
        settler.stop(10)
        assert not settler._thread.is_alive()


def test_what_cannot_be_charged_until_the_end_is_lost_and_counted(
    ledger: SteeredLedger, caplog: pytest.LogCaptureFixture
) -> None:
    """A shutdown while the store is away counts each charge that waits, and states how many."""
    with budgeted(ledger) as recorder:
        ledger.is_away = True
        for _ in range(3):
            record_llm_call(model=MODEL, cost="0.01")
        recorder.drain()
        counters = recorder.counters
        with caplog.at_level(logging.ERROR, "taskpilot_obs"):
            parts(recorder).settler.shutdown()
        counters.take()
        assert counters.totals[INTERNAL_ERRORS, ("budgets",)] == 3
        assert "lost 3 budget charges: store unreachable" in caplog.text


def test_other_limits_under_one_name_are_told_once(ledger: SteeredLedger, caplog: pytest.LogCaptureFixture) -> None:
    """A store in which other processes keep another limit under the name is a metric, and a warning for each change."""
    with budgeted(ledger) as recorder:
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        settler, labels = parts(recorder).settler, {"budget": "team", "period": "day"}
        ledger.limits_of_others = {"team": ("2 usd", "3 usd")}
        for _ in range(2):
            settler.refresh()
        assert value("llm_budget_other_limits", labels) == 2
        assert caplog.text.count("'team' with other limits too: 2 usd, 3 usd;") == 1
        assert f"[{WarningCode.BUDGET_OTHER_LIMITS}]" in caplog.text
        ledger.limits_of_others = {}
        settler.refresh()
        assert value("llm_budget_other_limits", labels) == 0
        ledger.limits_of_others = {"team": ("2 usd",)}
        settler.refresh()
        assert caplog.text.count("with other limits too") == 2


def test_a_forked_child_settles_nothing_of_its_parents(ledger: SteeredLedger) -> None:
    """Charges that wait, ends of blocks and reservations are the parent's; the child begins with none."""
    with budgeted(ledger, action="enforce") as recorder:
        held = Reservation(recorder, model=MODEL, kwargs=STATED)
        held.reserve()
        ledger.is_away = True
        record_llm_call(model=MODEL, cost="0.01")
        recorder.drain()
        settler = parts(recorder).settler
        assert (len(settler.outbox), len(parts(recorder).budgets.held)) == (1, 1)
        settler.after_fork()
        assert (len(settler.outbox), len(parts(recorder).budgets.held)) == (0, 0)
        ledger.is_away = False
        held.end()
        assert figures(recorder) == (0, 0.12)  # the parent's to end


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recorder with one budget of 1 USD a day."""
    with fresh_recorder(budgets=[Budget("team", limit_usd=1, action="enforce")]) as made:
        yield made


def test_a_block_with_several_calls_is_estimated_once(recorder: Recorder) -> None:
    """Of calls of a block whose cost is unknown, the first one counts as what was reserved, the others as nothing."""

    def broken() -> None:
        with track_llm(model=MODEL) as running:
            running.first_token()
            raise RuntimeError

    with Reservation(recorder, model=MODEL, kwargs=STATED):
        for _ in range(2):
            with pytest.raises(RuntimeError):
                broken()
    assert figures(recorder) == (0.12, 0)


@pytest.mark.parametrize(("kind", "spent"), [(TimeoutError, 0.12), (RuntimeError, 0.0), (BudgetUnavailableError, 0.0)])
def test_a_block_that_fails_is_billed_where_its_call_may_have_been(
    recorder: Recorder, kind: type[Exception], spent: float
) -> None:
    """A call that timed out may be billed, so that its estimate counts; one that failed or was refused is not."""
    with pytest.raises(kind), Reservation(recorder, model=MODEL, kwargs=STATED):
        raise kind("no", "no")
    assert figures(recorder) == (spent, 0)


def test_a_block_within_a_block_reserves_nothing(recorder: Recorder) -> None:
    """The reservation around it is made for the call already."""
    with Reservation(recorder, model=MODEL, kwargs=STATED):
        with Reservation(recorder, model=MODEL, kwargs=STATED):
            assert figures(recorder) == (0, 0.12)
        assert figures(recorder) == (0, 0.12)
    assert figures(recorder) == (0.12, 0)
