"""The outbox of budget charges: what a ledger refuses or does not answer is neither lost nor booked twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from _ledgers import SteeredLedger

from taskpilot_obs.budgets import Budget
from taskpilot_obs.budgets import outbox as outbox_module
from taskpilot_obs.budgets.admission import AdmissionController
from taskpilot_obs.budgets.ledger import (
    UNUSED,
    BudgetAccount,
    Charge,
    IdempotencyKey,
    ReservationLine,
    Settled,
    crossed_by,
)
from taskpilot_obs.budgets.outbox import Outbox
from taskpilot_obs.semconv import INTERNAL_ERRORS
from taskpilot_obs.testing import fresh_recorder

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BUDGETS = {name: Budget(name, limit_tokens=1_000_000) for name in ("good", "other", "refused")}


def charge(name: str, amount: int = 10, **more: bool) -> Charge:
    budget = BUDGETS[name]
    window = budget.window(NOW)
    return Charge(ReservationLine(budget, BudgetAccount(name, "", window.start), window, amount), **more)  # type: ignore[arg-type]


@pytest.fixture
def ledger() -> SteeredLedger:
    """The ledger of `admission`."""
    return SteeredLedger()


@pytest.fixture
def admission(ledger: SteeredLedger) -> Iterator[AdmissionController]:
    """The budgets of a recorder, with a ledger that the test steers."""
    with fresh_recorder(budgets=list(BUDGETS.values())) as recorder:
        assert recorder.parts is not None
        control = recorder.parts.budgets
        assert control is not None
        control.ledger = ledger
        yield control


def spent(ledger: SteeredLedger) -> dict[str, int]:
    start = BUDGETS["good"].window(NOW).start
    return {account.budget: each.spent for account, each in ledger.read(list(BUDGETS.values()), [start]).items()}


def lost(admission: AdmissionController) -> int:
    admission.counters.take()
    return admission.counters.totals[INTERNAL_ERRORS, ("budgets",)]


def test_one_refused_budget_does_not_keep_the_others_from_being_booked(
    ledger: SteeredLedger, admission: AdmissionController, caplog: pytest.LogCaptureFixture
) -> None:
    """Charges that are refused together are sent budget by budget; what is refused alone is lost, and reported."""
    ledger.refuses = {"refused"}
    told: list[Settled] = []
    outbox = Outbox(admission, told.append)
    outbox.put([charge("good"), charge("refused"), charge("other"), charge("good"), charge("refused")])
    outbox.send()
    assert spent(ledger) == {"good": 20, "other": 10}
    assert lost(admission) == 2
    assert len(outbox) == 0
    assert [each.line.budget.name for each in told] == ["good", "good", "other"]
    assert "taskpilot_obs: budgets failed with StoreError" in caplog.text


def test_where_everything_is_refused_all_of_it_waits(ledger: SteeredLedger, admission: AdmissionController) -> None:
    """A store that refuses every budget is broken: the charges wait, and are booked once it works again."""
    ledger.refuses = {"good", "refused"}
    outbox = Outbox(admission, lambda _settled: None)
    outbox.put([charge("refused", 1), charge("good", 2), charge("good", 3)])
    outbox.send()
    assert (len(outbox), spent(ledger), lost(admission)) == (3, {}, 0)
    ledger.refuses = set()
    outbox.put([charge("good", 4)])
    outbox.send()
    assert (len(outbox), spent(ledger), lost(admission)) == (0, {"refused": 1, "good": 9}, 0)


def test_charges_whose_answer_was_lost_are_repeated_under_their_key(
    ledger: SteeredLedger, admission: AdmissionController
) -> None:
    """The next send repeats them unchanged, so that the ledger books them once; the answer is passed on then."""
    told: list[Settled] = []
    outbox = Outbox(admission, told.append)
    ledger.loses_answers = True
    outbox.put([charge("good")])
    outbox.send()
    outbox.put([charge("good", 5)])
    assert (len(outbox), spent(ledger), told) == (2, {"good": 10}, [])
    ledger.loses_answers = False
    outbox.send()
    assert (len(outbox), spent(ledger)) == (0, {"good": 15})
    assert [each.balance.spent for each in told] == [10, 15]
    first, again, second = ledger.keys
    assert first == again
    assert first is not None
    assert second == IdempotencyKey(first.writer, first.number + 1)


def test_a_failing_listener_costs_no_charge(ledger: SteeredLedger, admission: AdmissionController) -> None:
    """What the answer is passed on to may raise: it is counted, and the other answers are passed on."""
    told: list[int] = []

    def fail_once(settled: Settled) -> None:
        told.append(settled.line.amount)
        if len(told) == 1:
            raise RuntimeError

    outbox = Outbox(admission, fail_once)
    outbox.put([charge("good", 1), charge("good", 2)])
    outbox.send()
    assert (told, spent(ledger), lost(admission)) == ([1, 2], {"good": 3}, 1)


def test_what_waits_for_long_is_summed_by_account(
    ledger: SteeredLedger, admission: AdmissionController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is away, waiting charges beyond a limit are summed: the amounts stay, known and estimated."""
    monkeypatch.setattr(outbox_module, "_MAX_WAITING", 4)
    ledger.is_away = True
    outbox = Outbox(admission, lambda _settled: None)
    outbox.put([charge("good")])
    outbox.send()
    outbox.put([charge("good", 1), charge("other", 2), charge("good", 3), charge("good", 4, is_assumed=True)])
    outbox.send()
    assert len(outbox) == 5  # one is being sent, and four wait, which is the limit
    outbox.put([charge("other", 5)])
    outbox.send()
    assert len(outbox) == 4
    ledger.is_away = False
    outbox.send()
    assert (len(outbox), spent(ledger)) == (0, {"good": 18, "other": 7})
    balances = ledger.read([BUDGETS["good"]], [BUDGETS["good"].window(NOW).start])
    assert [each.assumed for each in balances.values()] == [4]


def test_a_forked_child_leaves_what_waits_to_its_parent(ledger: SteeredLedger, admission: AdmissionController) -> None:
    """A renewed outbox is empty, and its charges have another writer."""
    outbox = Outbox(admission, lambda _settled: None)
    outbox.put([charge("good")])
    outbox.renew()
    assert len(outbox) == 0
    outbox.put([charge("good", 1)])
    outbox.send()
    outbox.renew()
    outbox.put([charge("good", 1)])
    outbox.send()
    one, two = (each for each in ledger.keys if each is not None)
    assert (one.number, two.number, spent(ledger)) == (1, 1, {"good": 2})
    assert one.writer != two.writer


def test_a_reservation_ends_once(ledger: SteeredLedger) -> None:
    """Two charges in one group that end one reservation give back its amount once."""
    budget = BUDGETS["good"]
    line = charge("good", 100).line
    ledger.reserve("r", [line], NOW, NOW.replace(hour=13))
    ledger.reserve("s", [line], NOW, NOW.replace(hour=13))
    settled = ledger.settle([Charge(line._replace(amount=1), "r"), Charge(line._replace(amount=2), "r")], NOW)
    assert [(each.balance.spent, each.balance.reserved) for each in settled] == [(1, 100), (3, 100)]
    assert ledger.settle([Charge(line._replace(amount=4), "r")], NOW)[0].balance == UNUSED._replace(
        spent=7, reserved=100
    )
    assert budget.limit == 1_000_000


def test_an_expired_reservation_makes_room(ledger: SteeredLedger) -> None:
    """A call that finds no room gets that of reservations that have expired, and of no others."""
    line = charge("good", 600_000).line
    ends = NOW.replace(minute=5)
    assert ledger.reserve("r", [line], NOW, ends) is None
    refusal = ledger.reserve("s", [line], NOW.replace(minute=4), ends)
    assert refusal is not None
    assert (refusal.balance.reserved, refusal.is_final, refusal.could_fit) == (600_000, False, True)
    assert ledger.reserve("s", [line], ends, NOW.replace(minute=10)) is None
    (balance,) = ledger.read(list(BUDGETS.values()), [line.window.start]).values()
    assert balance.reserved == 600_000


def test_a_threshold_is_crossed_when_it_is_reached() -> None:
    """One token below the threshold crosses nothing; an alert is given once for each."""
    budget = Budget("b", limit_tokens=1_000_000, thresholds=(0.5, 0.9, 1.0))
    cases = {499_999: (), 500_000: (500,), 899_999: (500,), 999_999: (500, 900), 1_000_000: (500, 900, 1_000)}
    assert {spent: crossed_by(budget, UNUSED._replace(spent=spent)) for spent in cases} == cases
    assert crossed_by(budget, UNUSED._replace(spent=999_999, alerted=500)) == (900,)
    assert crossed_by(budget, UNUSED._replace(spent=999_999, alerted=900)) == ()


def test_a_ledger_in_memory_forgets_rates_with_the_other_periods(ledger: SteeredLedger) -> None:
    """`forget_rates` reports none, because `release_expired` forgets a rate's line an hour after its minute."""
    budget = Budget("rate", limit_requests=2, period="minute")
    window = budget.window(NOW)
    line = ReservationLine(budget, BudgetAccount("rate", "", window.start), window, 1)
    ledger.settle([Charge(line)], NOW)
    assert ledger.forget_rates(NOW + timedelta(days=2)) == 0
    assert ledger.read([budget], [window.start])[line.account].spent == 1
    ledger.release_expired(NOW + timedelta(hours=2))
    assert ledger.read([budget], [window.start]) == {}
