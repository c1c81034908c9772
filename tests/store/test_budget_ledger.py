"""Budgets in a store: one ledger for all processes, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from _budget_machine import STEPS, Step, run
from _postgres import Server, postgres_server
from _stored import new_database, sqlite_url
from hypothesis import HealthCheck, given, settings
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from taskpilot_obs import record_llm_call, request_context, track_llm
from taskpilot_obs._recording.recorder import Recorder
from taskpilot_obs.budgets import Budget, BudgetAlert, budget_status
from taskpilot_obs.budgets.ledger import BudgetAccount, Charge, ReservationLine, reservation_key
from taskpilot_obs.budgets.model import Period
from taskpilot_obs.config import build_recorder
from taskpilot_obs.exceptions import BudgetExceededError, BudgetUnavailableError, StoreError
from taskpilot_obs.records import CheckResult, Decision
from taskpilot_obs.store import Store, StoreExporter, upgrade
from taskpilot_obs.store.budget_ledger import StoreLedger
from taskpilot_obs.testing import capture_records, fresh_recorder

CALL: dict[str, Any] = {"model": "gpt-4o", "input_tokens": 40_000, "max_output_tokens": 2_000}
"""0.12 USD."""
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LIFE = timedelta(seconds=100)
PICO = 10**12


def budget(limit: str = "0.45", **options: Any) -> Budget:
    return Budget("team", **{"limit_usd": limit, "action": "enforce", **options})


def line(of: Budget, usd: str) -> ReservationLine:
    window = of.window(NOW)
    return ReservationLine(of, BudgetAccount(of.name, "", window.start), window, int(Decimal(usd) * PICO))


def line_of(of: Budget, at: datetime) -> ReservationLine:
    window = of.window(at)
    return ReservationLine(of, BudgetAccount(of.name, "", window.start), window, PICO)


def balance(store: Store, of: Budget, at: datetime = NOW) -> tuple[int, ...]:
    (found,) = StoreLedger(store).read([of], [of.window(at).start]).values()
    return tuple(found)


@pytest.fixture
def url(url: str) -> str:
    """A store with its tables."""
    with_tables = Store(url, create=True)
    upgrade(with_tables)
    with_tables.close()
    return url


def recorder_on(url: str, *budgets: Budget) -> Recorder:
    return build_recorder(budget_store=url, budgets=list(budgets), registry=CollectorRegistry())


# --- the ledger -----------------------------------------------------------------------------------------------------


def test_threads_that_reserve_leave_a_connection_to_the_worker(server: Server) -> None:
    """While sixteen calls of a process wait for their budget's row, what ended can be settled and read."""
    store = Store(new_database(server), create=True)
    upgrade(store)
    ledger, team = StoreLedger(store), budget("1")
    assert ledger.reserve("first", [line(team, "0.1")], NOW, NOW + LIFE) is None
    started = threading.Barrier(17)

    def reserve(number: int) -> None:
        started.wait()
        ledger.reserve(f"r{number}", [line(team, "0.01")], NOW, NOW + LIFE)

    threads = [threading.Thread(target=reserve, args=(number,)) for number in range(16)]
    with store.writing() as connection:
        connection.execute(text("SELECT 1 FROM budget_ledger FOR UPDATE"))
        for thread in threads:
            thread.start()
        started.wait()
        while len(in_use := waiting(store)) < 2:  # those that may reserve wait for the row by now
            time.sleep(0.01)
        assert ledger.read([team], [team.window(NOW).start])
        assert len(in_use) == 2
    for thread in threads:
        thread.join()
    assert balance(store, team)[1] == int(Decimal("0.26") * PICO)
    store.close()


def waiting(store: Store) -> list[int]:
    """The server's sessions that wait for a lock."""
    with store.reading() as connection:
        asked = text("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        return list(connection.execute(asked).scalars())


def test_reserve_settle_and_refuse(store: Store) -> None:
    """Amounts are exact to 1e-12 USD, and the refusal tells where the line stands."""
    ledger, team = StoreLedger(store), budget("1.000000000001")
    assert ledger.reserve("a", [line(team, "0.999999999999")], NOW, NOW + LIFE) is None
    assert ledger.reserve("b", [line(team, "0.000000000002")], NOW, NOW + LIFE) is None
    refusal = ledger.reserve("c", [line(team, "0.000000000001")], NOW, NOW + LIFE)
    assert refusal is not None
    assert (refusal.balance.reserved, refusal.is_final) == (PICO + 1, False)
    ledger.settle([Charge(line(team, "0.5000000000005"), "a"), Charge(line(team, "0.25"), "b")], NOW)
    assert balance(store, team)[:2] == (750_000_000_000, 0)
    refusal = ledger.reserve("d", [line(team, "0.26")], NOW, NOW + LIFE)
    assert refusal is not None
    assert refusal.is_final
    ledger.count_refusal(refusal.line.account)
    assert balance(store, team)[3] == 1


def test_several_budgets_are_taken_together_or_not_at_all(store: Store) -> None:
    """Whichever has no room, no other keeps the amount."""
    ledger, wide, small = StoreLedger(store), Budget("a", limit_usd=9), Budget("z", limit_usd=1)
    assert ledger.reserve("x", [line(small, "1"), line(wide, "1")], NOW, NOW + LIFE) is None
    refusal = ledger.reserve("y", [line(small, "1"), line(wide, "1")], NOW, NOW + LIFE)
    assert refusal is not None
    assert refusal.line.budget is small
    assert (balance(store, wide)[1], balance(store, small)[1]) == (PICO, PICO)


def test_what_expired_is_given_back_once(store: Store) -> None:
    """A reservation that is settled after it expired books what was spent and gives back nothing twice."""
    ledger, team = StoreLedger(store), budget()
    for reservation_id in ("a", "b", "c"):
        assert ledger.reserve(reservation_id, [line(team, "0.12")], NOW, NOW + LIFE) is None
    later = NOW + 2 * LIFE
    assert ledger.reserve("d", [line(team, "0.45")], later, later + LIFE) is None
    assert ledger.release_expired(later) == 0
    ledger.settle([Charge(line(team, "0.12"), "a")], later)
    assert balance(store, team)[:2] == (120_000_000_000, 450_000_000_000)


def test_old_minutes_and_hours_are_forgotten(store: Store) -> None:
    """Lines of rate budgets go once nothing is booked on them any more; days stay, and so does what is reserved."""
    ledger = StoreLedger(store)
    periods: tuple[Period, ...] = ("minute", "hour", "day")
    days = len({(NOW - timedelta(hours=13 * age)).date() for age in range(3)})
    for period in periods:
        rate = Budget(period, limit_usd=9, period=period)
        for age in range(3):
            ledger.settle([Charge(line_of(rate, NOW - timedelta(hours=13 * age)))], NOW)
    held = line_of(Budget("held", limit_usd=9, period="minute"), NOW - timedelta(days=3))
    assert ledger.reserve("x", [held], NOW, NOW + LIFE) is None
    assert [ledger.forget_rates(NOW), ledger.forget_rates(NOW)] == [2 + 1, 0]
    with store.reading() as connection:
        left = connection.execute(text("SELECT budget, count(*) FROM budget_ledger GROUP BY budget")).all()
    assert sorted(map(tuple, left)) == [("day", days), ("held", 1), ("hour", 2), ("minute", 1)]


def test_a_running_calls_reservation_lasts_and_a_dead_ones_expires(store: Store) -> None:
    """What a process renews is not given back when its first time is up; what it does not renew is."""
    ledger, team = StoreLedger(store), budget()
    for reservation_id in ("runs", "dead"):
        assert ledger.reserve(reservation_id, [line(team, "0.2")], NOW, NOW + LIFE) is None
    ledger.renew([reservation_key("runs", team.name), reservation_key("ended", team.name)], NOW + 3 * LIFE)
    assert [ledger.release_expired(NOW + 2 * LIFE) for _ in range(2)] == [1, 0]
    assert balance(store, team)[:2] == (0, 200_000_000_000)
    refusal = ledger.reserve("other", [line(team, "0.3")], NOW + 2 * LIFE, NOW + 4 * LIFE)
    assert refusal is not None
    assert ledger.release_expired(NOW + 3 * LIFE) == 1


def test_a_booking_of_another_line_gives_the_reservation_back_where_it_was(store: Store) -> None:
    """The reservation knows its own line, whatever the booking is for."""
    ledger, team = StoreLedger(store), budget()
    held = line(team, "0.12")
    assert ledger.reserve("a", [held], NOW, NOW + LIFE) is None
    elsewhere = held._replace(account=held.account._replace(scope_key="other"))
    ledger.settle([Charge(elsewhere, "a")], NOW)
    balances = StoreLedger(store).read([team], [held.account.period_start])
    assert (balances[held.account].reserved, balances[elsewhere.account].spent) == (0, held.amount)
    assert ledger.settle([], NOW) == []


def test_thresholds_are_crossed_once(store: Store) -> None:
    """The process that books them first alerts; a booking that jumps over several gets them all."""
    first, second, team = StoreLedger(store), StoreLedger(store), budget("1")
    assert [each.crossed for each in first.settle([Charge(line(team, "0.4"))], NOW)] == [()]
    assert [each.crossed for each in second.settle([Charge(line(team, "0.4"))], NOW)] == [(500, 750)]
    assert [each.crossed for each in first.settle([Charge(line(team, "0.0"))], NOW)] == [()]
    assert [each.crossed for each in first.settle([Charge(line(team, "0.4"))], NOW)] == [(900, 1_000)]


def test_a_name_cannot_count_tokens_after_money(store: Store) -> None:
    """A line in another unit is refused with what to do, not added to."""
    ledger, tokens = StoreLedger(store), Budget("team", limit_tokens=5, action="enforce")
    ledger.settle([Charge(line(budget(), "0.1"))], NOW)
    with pytest.raises(StoreError, match="give it another name"):
        ledger.reserve("a", [line(tokens, "0")], NOW, NOW + LIFE)
    with pytest.raises(StoreError, match="give it another name"):
        ledger.settle([Charge(line(tokens, "0"))], NOW)


def test_a_budget_that_the_store_refuses_keeps_no_other_from_being_booked(store: Store, url: str) -> None:
    """What is refused for good is lost and counted; the calls of the other budgets are booked, then and later."""
    StoreLedger(store).settle([Charge(line(budget(), "0.1"))], datetime.now(UTC))
    other, tokens = Budget("other", limit_usd=9), Budget("team", limit_tokens=5, period="total")
    StoreLedger(store).settle(
        [Charge(ReservationLine(tokens, BudgetAccount("team", "", tokens.window(NOW).start), tokens.window(NOW), 1))],
        NOW,
    )
    usd = budget(period="total", action="alert")
    recorder = recorder_on(url, usd, other)
    for _ in range(2):
        recorder.record_llm_call(model="gpt-4o", cost="0.25")
        assert recorder.flush(20)
    (status,) = budget_status([other], store=store)
    assert status.spent == Decimal("0.50")
    recorder.shutdown()


def test_a_shadow_that_the_store_refuses_keeps_nothing_from_the_call(store: Store, url: str) -> None:
    """Nor from the budgets beside it: the one that is refused is logged, and the rest is reserved and booked."""
    at = datetime.now(UTC)
    tokens = Budget("shade", limit_tokens=5)
    begin = tokens.window(at)
    StoreLedger(store).settle([Charge(ReservationLine(tokens, BudgetAccount("shade", "", begin.start), begin, 1))], at)
    shades = [Budget("shade", limit_usd=1, action="shadow"), Budget("second", limit_usd=1, action="shadow")]
    recorder = recorder_on(url, budget(), *shades)
    with track_llm(recorder=recorder, **CALL) as run_:
        run_.set_cost("0.05")
    assert recorder.flush(20)
    recorder.shutdown()
    found = budget_status([budget(), shades[1]], store=store)
    assert [(float(each.spent), float(each.reserved)) for each in found] == [(0.05, 0), (0.05, 0)]


def test_a_process_without_budgets_asks_the_store_nothing(store: Store, url: str) -> None:
    """Where only the store is named: what others hold is theirs to end, until there is a budget here."""
    at = datetime.now(UTC)
    begin = budget().window(at)
    held = ReservationLine(budget(), BudgetAccount("team", "", begin.start), begin, PICO // 4)
    assert StoreLedger(store).reserve("a", [held], at - 2 * LIFE, at - LIFE) is None
    recorder = recorder_on(url)
    assert recorder.parts is not None
    assert recorder.parts.budgets is not None
    settler = recorder.parts.settler
    assert settler is not None
    settler.refresh()
    assert balance(store, budget(), at)[1] == PICO // 4
    recorder.wiring.watch(budget())
    settler.refresh()
    assert balance(store, budget(), at)[1] == 0
    recorder.shutdown()


def test_an_absurd_amount_fills_its_line_and_blocks_nothing(store: Store, url: str) -> None:
    """More than a column holds is booked as much as it holds; what comes later is booked too, and has no room."""
    team, other = budget(period="total"), Budget("other", limit_usd=1, scope={"model": "gpt-4o-mini"})
    recorder = recorder_on(url, team, other)
    for cost in ("1e15", "6e9", "6e9", "0.01"):
        recorder.record_llm_call(model="gpt-4o", cost=cost)
        recorder.record_llm_call(model="gpt-4o-mini", cost="0.01")
        assert recorder.flush(20)
    recorder.shutdown()
    full, fine = budget_status([team, other], store=store)
    assert full.spent >= 9_000_000_000
    assert fine.spent == Decimal("0.04")
    refusal = StoreLedger(store).reserve("a", [line(team, "0.1")], NOW, NOW + LIFE)
    assert refusal is not None
    assert refusal.is_final


@pytest.mark.parametrize(
    "tenant", ["\ud800", "a\x00b", "".join(map(chr, range(0x4E00, 0x6E00)))], ids=["half", "nul", "long"]
)
def test_a_tenant_of_any_name_is_booked_and_holds_up_nobody(store: Store, url: str, tenant: str) -> None:
    """Half a character, NUL or thousands of letters: its line is kept, and those of the budgets beside it."""
    each, whole = Budget("each", limit_usd=1, scope={"tenant": "*"}), Budget("x" * 200, limit_usd=1)
    recorder = recorder_on(url, each, whole)
    for name in (tenant, "acme"):
        with request_context(tenant_id=name):
            recorder.record_llm_call(model="gpt-4o", cost="0.1")
    assert recorder.flush(20)
    recorder.shutdown()
    found = budget_status([each, whole], store=store)
    assert [float(balance.spent) for balance in found] == [0.1, 0.1, 0.2]


def test_tokens_beyond_any_column_fill_their_line(store: Store) -> None:
    """Invalid values from a provider cause no error of the database."""
    ledger, tokens = StoreLedger(store), Budget("tokens", limit_tokens=10**18)
    absurd = ReservationLine(tokens, BudgetAccount("tokens", "", tokens.window(NOW).start), tokens.window(NOW), 10**30)
    for _ in range(2):
        ledger.settle([Charge(absurd)], NOW)
    assert balance(store, tokens)[0] > 10**18


def test_the_largest_limit_is_kept(store: Store) -> None:
    """Nothing overflows where limit, spent and reserved are as large as they may be."""
    ledger, most = StoreLedger(store), budget("9000000000")
    ledger.settle([Charge(line(most, "4500000000"))], NOW)
    assert ledger.reserve("a", [line(most, "4500000000")], NOW, NOW + LIFE) is None
    refusal = ledger.reserve("b", [line(most, "9000000000")], NOW, NOW + LIFE)
    assert refusal is not None
    assert (refusal.balance.spent, refusal.balance.reserved) == (4_500_000_000 * PICO, 4_500_000_000 * PICO)


@pytest.mark.promise("budget-limit")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_no_interleaving_passes_the_limit(store: Store, steps: list[Step]) -> None:
    """Three ledgers on one store, any order of reserve, settle, crash and expiry: only estimation errors pass it."""
    run([StoreLedger(store) for _ in range(3)], steps)


# --- several processes ----------------------------------------------------------------------------------------------

WORKER = """
import sys, threading
from taskpilot_obs import configure, track_llm, flush
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import BudgetExceededError

url, calls, cost = sys.argv[1], int(sys.argv[2]), sys.argv[3]
recorder = configure(budget_store=url, budgets=[Budget("team", limit_usd="0.45", action="enforce")])
admitted = []
def one():
    manager = track_llm(model="gpt-4o", input_tokens=40_000, max_output_tokens=2_000)
    try:
        admitted.append((manager, manager.__enter__()))
    except BudgetExceededError as error:
        assert error.limit.as_integer_ratio() == (9, 20), error
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=one) for _ in range(calls)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(admitted), flush=True)
sys.stdin.readline()
for manager, run in admitted:
    run.set_cost(cost)
    manager.__exit__(None, None, None)
flush()
print("settled", flush=True)
"""


def start(url: str, calls: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, url, str(calls), "0.05"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_processes_admit_three_of_five_calls(url: str) -> None:
    """0.45 USD a day, five reservations of 0.12 at once: exactly three; settled at 0.05 they leave room again."""
    processes = [start(url, 3), start(url, 2)]
    assert [told(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        say(process)
    assert sum(int(told(process)) for process in processes) == 3
    (status,) = budget_status([budget()], store=url)
    assert (float(status.spent), float(status.reserved)) == (0, 0.36)
    for process in processes:
        say(process)
    assert [told(process) for process in processes] == ["settled", "settled"]
    assert [process.wait(30) for process in processes] == [0, 0]
    for process in processes:
        process.communicate()
    (status,) = budget_status([budget()], store=url)
    assert (float(status.spent), float(status.reserved), float(status.left)) == (0.15, 0, 0.30)
    recorder = build_recorder(budget_store=url, budgets=[budget()], registry=CollectorRegistry())
    for _ in range(2):
        with track_llm(recorder=recorder, **CALL) as run_:
            run_.set_cost("0.12")
    with pytest.raises(BudgetExceededError), track_llm(recorder=recorder, **CALL):
        pass
    recorder.shutdown()


def test_a_killed_process_gives_back_what_it_held(url: str) -> None:
    """Its reservations expire; what it had not spent is room again."""
    process = start(url, 3)
    assert told(process) == "ready"
    say(process)
    assert told(process) == "3"
    process.kill()
    process.communicate()
    store = Store(url)
    now = datetime.now(UTC)
    assert StoreLedger(store).release_expired(now) == 0
    assert StoreLedger(store).release_expired(now + timedelta(hours=1)) == 3
    store.close()
    (status,) = budget_status([budget()], store=url)
    assert (float(status.spent), float(status.reserved)) == (0, 0)


# --- a recorder with a store ----------------------------------------------------------------------------------------


def test_what_was_spent_survives_a_restart_and_is_alerted_once(url: str) -> None:
    """A second process goes on where the first one stopped; the threshold was told already."""
    alerts: list[BudgetAlert] = []
    for _ in range(3):
        recorder = build_recorder(
            budget_store=url,
            budgets=[budget("1", action="alert")],
            on_budget_alert=alerts.append,
            registry=CollectorRegistry(),
        )
        recorder.record_llm_call(model="gpt-4o", cost="0.26")
        recorder.shutdown()
    assert [alert.threshold for alert in alerts] == [0.5, 0.75]
    (status,) = budget_status([budget("1")], store=url)
    assert status.spent == Decimal("0.78")


def test_the_store_of_an_exporter_keeps_the_budgets_too(url: str) -> None:
    """Named once: rows and ledger go into the same store; the metrics show what other processes spent."""
    exporter = StoreExporter(url)
    with fresh_recorder(exporters=[exporter], budgets=[budget("1")]) as recorder:
        ledger = StoreLedger(exporter.store)
        team = budget("1")
        at = datetime.now(UTC)
        account = BudgetAccount("team", "", team.window(at).start)
        ledger.settle([Charge(ReservationLine(team, account, team.window(at), PICO // 2))], at)
        settler = recorder.parts.settler  # type: ignore[union-attr]
        assert settler is not None
        settler.refresh()
        value = recorder.registry.get_sample_value  # type: ignore[union-attr]
        assert value("llm_budget_used_ratio", {"budget": "team", "period": "day"}) == 0.5


def test_a_decorators_budget_is_kept_in_the_store_of_an_exporter(url: str) -> None:
    """Though it came after the configuration that names the store."""
    with fresh_recorder(exporters=[StoreExporter(url)]) as recorder:
        try:
            recorder.wiring.watch(budget())
            with track_llm(recorder=recorder, **CALL) as run_:
                run_.set_cost("0.12")
            assert recorder.flush()
            (status,) = budget_status([budget()], store=url)
            assert float(status.spent) == 0.12
        finally:
            recorder.wiring.own_budgets = ()


def test_an_event_loop_goes_on_while_the_store_is_asked(tmp_path: Path) -> None:
    """Another process holds the file's lock: the loop turns, and the call waits in a thread."""
    url = sqlite_url(tmp_path)
    with fresh_recorder(budget_store=url, budgets=[budget()]) as recorder:
        blocker, free = Store(url), threading.Event()

        def block() -> None:
            with blocker.writing():
                free.set()
                time.sleep(0.4)

        async def ask() -> int:
            turns = 0
            asked = asyncio.create_task(one())
            while not asked.done():
                await asyncio.sleep(0.01)
                turns += 1
            await asked
            return turns

        async def one() -> None:
            async with track_llm(recorder=recorder, **CALL) as run_:
                run_.set_cost("0.01")

        thread = threading.Thread(target=block)
        thread.start()
        free.wait()
        assert asyncio.run(ask()) > 5
        thread.join()
        blocker.close()


def _down(server: Server, when: str) -> tuple[Recorder, str]:
    url = new_database(server)
    store = Store(url)
    upgrade(store)
    store.close()
    options: dict[str, Any] = {"budget_store": url, "budgets": [budget(when_store_down=when)]}
    return build_recorder(**options, registry=CollectorRegistry()), url


def test_while_the_server_is_away_calls_pass_or_not_as_was_chosen_and_nothing_is_lost() -> None:
    """`open` lets them pass and books them when it is back; `closed` refuses them."""
    with postgres_server() as server:
        (opened, url), (closed, _) = _down(server, "open"), _down(server, "closed")
        for recorder in (opened, closed):
            with track_llm(recorder=recorder, **CALL) as run_:
                run_.set_cost("0.05")
            assert recorder.flush()
        server.kill()
        with capture_records(Decision, opened) as decisions, track_llm(recorder=opened, **CALL) as run_:
            run_.set_cost("0.05")
            assert [each.result for each in decisions] == [CheckResult.BYPASSED]
        with pytest.raises(BudgetUnavailableError), track_llm(recorder=closed, **CALL):
            pass
        assert not opened.flush(1)
        server.start()
        assert opened.flush(20)
        (status,) = budget_status([budget()], store=url)
        assert status.spent == Decimal("0.10")
        for recorder in (opened, closed):
            recorder.shutdown()


def test_a_server_that_is_away_at_the_start_keeps_nobody_from_starting() -> None:
    """Calls pass, in shadow too; what they took is booked once the server is there."""
    with postgres_server() as server:
        first, url = _down(server, "open")
        first.shutdown()
        server.kill()
        budgets = [budget(), Budget("shade", limit_usd=1, action="shadow")]
        recorder = build_recorder(budget_store=url, budgets=budgets, registry=CollectorRegistry())
        with track_llm(recorder=recorder, **CALL) as run_:
            run_.set_cost("0.05")
        server.start()
        assert recorder.flush(20)
        assert [float(each.spent) for each in budget_status(budgets, store=url)] == [0.05, 0.05]
        recorder.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_books_into_the_same_store(url: str) -> None:
    """With connections of its own."""
    recorder = build_recorder(budget_store=url, budgets=[budget()], registry=CollectorRegistry())
    recorder.record_llm_call(model="gpt-4o", cost="0.01")
    assert recorder.flush(20)
    child = os.fork()
    if child == 0:
        with track_llm(recorder=recorder, **CALL) as run_:
            run_.set_cost("0.02")
        os._exit(0 if recorder.flush(20) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (status,) = budget_status([budget()], store=url)
    assert (float(status.spent), float(status.reserved)) == (0.03, 0)
    recorder.shutdown()


def test_what_a_store_that_stays_away_loses_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums are kept while there are too many bookings; what is unwritten at the end is logged."""
    monkeypatch.setattr("taskpilot_obs.budgets.outbox._MAX_WAITING", 2)
    url = sqlite_url(tmp_path)
    recorder = build_recorder(budget_store=url, budgets=[budget()], registry=CollectorRegistry())
    damaged = Store(url)
    with damaged.writing() as connection:
        connection.exec_driver_sql("DROP TABLE budget_ledger")
    damaged.close()
    with track_llm(recorder=recorder, **CALL) as run_:
        run_.set_cost("0.05")
    for _ in range(4):
        recorder.record_llm_call(model="gpt-4o", cost="0.1")
    recorder.flush(2)
    recorder.shutdown()
    assert "lost 1 budget charges" in caplog.text


def test_calls_after_the_fact_are_booked_in_a_store(url: str) -> None:
    """Each once, off the caller's thread."""
    with fresh_recorder(budget_store=url, budgets=[budget()]) as recorder:
        for _ in range(10):
            record_llm_call(model="gpt-4o", cost="0.01")
        assert recorder.flush()
        (status,) = budget_status([budget()], store=url)
        assert status.spent == Decimal("0.10")
