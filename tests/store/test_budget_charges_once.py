"""Bookings of budgets whose answer was lost come again, and are booked once: on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from _postgres import Server
from _press import Press
from _stored import new_database, store_at
from prometheus_client import CollectorRegistry
from sqlalchemy import func, make_url, select

from taskpilot_obs.budgets import Budget, BudgetAlert, budget_status
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, IdempotencyKey, ReservationLine, Settled
from taskpilot_obs.budgets.outbox import Outbox
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import StoreUnavailableError
from taskpilot_obs.store import Store, upgrade
from taskpilot_obs.store.budget_ledger import StoreLedger
from taskpilot_obs.store.budget_writers import KEPT, begun
from taskpilot_obs.store.ledger_tables import BUDGET_WRITERS

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
TEAM = Budget("team", limit_usd=1)
PICO = 10**12
MARK = IdempotencyKey("one", 1)


def line(usd: str) -> ReservationLine:
    window = TEAM.window(NOW)
    return ReservationLine(TEAM, BudgetAccount(TEAM.name, "", window.start), window, int(Decimal(usd) * PICO))


def balance(store: Store) -> tuple[str, str]:
    """Spent and reserved, in USD."""
    (balance,) = StoreLedger(store).read([TEAM], [TEAM.window(NOW).start]).values()
    return str(TEAM.amount(balance.spent)), str(TEAM.amount(balance.reserved))


def writers(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(BUDGET_WRITERS)).scalar_one()


@pytest.fixture
def url(url: str) -> str:
    """A store with its tables."""
    with_tables = Store(url, create=True)
    upgrade(with_tables)
    with_tables.close()
    return url


def test_bookings_that_come_again_are_booked_once(store: Store) -> None:
    """The repeated call changes nothing and returns an equal result, with the threshold that was not reported."""
    ledger, other = StoreLedger(store), StoreLedger(store)
    assert ledger.reserve("a", [line("0.3")], NOW, NOW + timedelta(hours=1)) is None
    charges = [Charge(line("0.3"), "a"), Charge(line("0.25"))]
    first = ledger.settle(charges, NOW, MARK)
    assert [each.crossed for each in first] == [(500,)]
    assert ledger.settle(charges, NOW, MARK) == first
    assert other.settle(charges, NOW, MARK) == first
    assert balance(store) == ("0.55", "0")
    for _ in range(2):
        assert [each.crossed for each in ledger.settle([Charge(line("0.1"))], NOW, IdempotencyKey("one", 2))] == [()]
        assert [each.crossed for each in other.settle([Charge(line("0.1"))], NOW, IdempotencyKey("two", 1))] == [(750,)]
    assert balance(store) == ("0.75", "0")
    assert writers(store) == 2


def test_bookings_that_were_refused_are_not_taken_for_booked(store: Store) -> None:
    """What is rolled back takes its mark along."""
    ledger, tokens = StoreLedger(store), Budget("team", limit_tokens=5)
    ledger.settle([Charge(line("0.1"))], NOW, MARK)
    with pytest.raises(Exception, match="give it another name"):
        ledger.settle([Charge(line("0.1")._replace(budget=tokens))], NOW, IdempotencyKey("one", 2))
    ledger.settle([Charge(line("0.1"))], NOW, IdempotencyKey("one", 2))
    assert balance(store) == ("0.2", "0")


def test_a_second_try_waits_for_the_first(store: Store) -> None:
    """Where the client is gone and the server still at it, the bookings are not made beside it, but after."""
    answers: list[int] = []
    ledger = StoreLedger(store)
    again = threading.Thread(target=lambda: answers.append(len(ledger.settle([Charge(line("0.1"))], NOW, MARK))))
    ledger.settle([Charge(line("0.4"))], NOW)
    with store.writing() as connection:
        assert begun(connection, MARK, NOW)
        again.start()
        again.join(0.3)
        assert answers == []
    again.join(30)
    assert answers == [1]
    assert balance(store) == ("0.4", "0")


def test_who_books_no_more_is_forgotten(store: Store) -> None:
    """The table does not grow with the processes that ever were; one that goes on is kept."""
    ledger = StoreLedger(store)
    for number in range(20):
        ledger.settle([Charge(line("0.01"))], NOW + number * timedelta(minutes=1), IdempotencyKey(f"{number:02}", 1))
    assert writers(store) == 20
    later = NOW + KEPT + timedelta(minutes=15)
    ledger.settle([Charge(line("0.01"))], later, IdempotencyKey("05", 2))
    ledger.settle([Charge(line("0.01"))], later, IdempotencyKey("new", 1))
    assert writers(store) == 5 + 2
    ledger.settle([Charge(line("0.01"))], later, IdempotencyKey("04", 2))
    assert balance(store) == ("0.23", "0")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_not_taken_for_its_parent(url: str) -> None:
    """Both go on booking after the fork, each under a name of its own."""
    recorder = build_recorder(budget_store=url, budgets=[TEAM], registry=CollectorRegistry())
    recorder.record_llm_call(model="gpt-4o", cost="0.01")
    assert recorder.flush(20)
    child = os.fork()
    recorder.record_llm_call(model="gpt-4o", cost="0.02")
    flushed = recorder.flush(20)
    if child == 0:
        os._exit(0 if flushed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (status,) = budget_status([TEAM], store=url)
    assert status.spent == Decimal("0.05")
    recorder.shutdown()


Look = Callable[[bytes, threading.Event], bool]


@pytest.mark.promise("budget-once")
def test_a_booking_that_is_interrupted_is_made_once(url: str) -> None:
    """Ctrl-C at any line, before its commit or behind: the next try books it where it was not, and only there."""
    recorder = build_recorder(budget_store=url, budgets=[TEAM], registry=CollectorRegistry())
    assert recorder.parts is not None
    assert recorder.parts.budgets is not None
    told: list[Settled] = []
    outbox = Outbox(recorder.parts.budgets, told.append)
    press = Press(StoreLedger.settle, StoreLedger._charged, begun, Outbox.send, Outbox._begun, Outbox._hand_over)
    line_number = 0
    while line_number == 0 or press.pressed:
        line_number += 1
        outbox.put([Charge(line("0.001"))])
        with suppress(KeyboardInterrupt), press.at(line_number):
            outbox.send()
        outbox.send()
        assert len(outbox) == 0
    recorder.shutdown()
    assert line_number > 5
    with store_at(url) as store:
        spent, reserved = balance(store)
    assert (Decimal(spent), reserved) == (line_number * Decimal("0.001"), "0")


class Line:
    """The way to a server, on which the next answer to the COMMIT of a booking is lost where `loses` is set."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.loses = threading.Event()
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                booked = threading.Event()
                for way in ((client, server, booked, self._note), (server, client, booked, self._lose)):
                    threading.Thread(target=self._carry, args=way, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, booked: threading.Event, look: Look) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(65_536):
                if look(data, booked):
                    source.shutdown(socket.SHUT_RDWR)
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)

    def _note(self, data: bytes, booked: threading.Event) -> bool:
        if b"INSERT INTO budget_ledger" in data:
            booked.set()
        return False

    def _lose(self, data: bytes, booked: threading.Event) -> bool:
        """The server's confirmation of the commit is lost."""
        if b"COMMIT\x00" not in data or not booked.is_set():
            return False
        booked.clear()
        if not self.loses.is_set():
            return False
        self.loses.clear()
        self.lost += 1
        return True


@contextmanager
def line_to(server: Server) -> Iterator[Line]:
    balance = Line(server.port)
    try:
        yield balance
    finally:
        balance.close()


@pytest.mark.promise("budget-once")
def test_an_answer_that_is_lost_books_nothing_twice(server: Server) -> None:
    """Five times the server commits and the connection breaks: the sum is exact, each alert comes once."""
    direct = new_database(server)
    with_tables = Store(direct)
    upgrade(with_tables)
    with_tables.close()
    alerts: list[BudgetAlert] = []
    with line_to(server) as balance:
        recorder = build_recorder(
            budget_store=make_url(direct).set(port=balance.port).render_as_string(),
            budgets=[TEAM],
            on_budget_alert=alerts.append,
            registry=CollectorRegistry(),
        )
        for number in range(5):
            balance.loses.set()
            for cost in ("0.10", "0.000000000001"):
                recorder.record_llm_call(model="gpt-4o", cost=cost)
            while balance.lost == number or not recorder.flush(1):
                recorder.flush(1)
        for _ in range(3):
            recorder.record_llm_call(model="gpt-4o", cost="0.05")
            assert recorder.flush(20)
        recorder.shutdown()
    assert balance.lost == 5
    (status,) = budget_status([TEAM], store=direct)
    assert status.spent == Decimal("0.650000000005")
    assert [alert.threshold for alert in alerts] == [0.5]


def test_a_threshold_whose_answer_is_lost_is_alerted(server: Server) -> None:
    """The alert comes with the second try, once."""
    direct = new_database(server)
    with_tables = Store(direct)
    upgrade(with_tables)
    with_tables.close()
    with line_to(server) as balance:
        through = Store(make_url(direct).set(port=balance.port).render_as_string())
        balance.loses.set()
        with pytest.raises(StoreUnavailableError):
            StoreLedger(through).settle([Charge(line("0.6"))], NOW, MARK)
        answers = [StoreLedger(through).settle([Charge(line("0.6"))], NOW, MARK) for _ in range(2)]
        through.close()
    assert [[each.crossed for each in answer] for answer in answers] == [[(500,)]] * 2
