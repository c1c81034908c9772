"""`Delivery`: LLM calls only, and failed exports that are tried again; what is lost is counted."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _audit import finished

from taskpilot_obs import observe_agent, record_llm_call
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters import Delivery, PartialExportError
from taskpilot_obs.exporters import delivery as delivery_module
from taskpilot_obs.records import Invocation, Record, Started
from taskpilot_obs.semconv import EXPORT_ERRORS, RECORDS, RECORDS_DROPPED
from taskpilot_obs.store import StoreExporter
from taskpilot_obs.store.budget_ledger import StoreLedger
from taskpilot_obs.testing import fresh_recorder

CALLS = 20


@observe_agent("Planner")
def work() -> None:
    record_llm_call(model="gpt-4o", usage={"input_tokens": 3, "output_tokens": 2})


def run(exporter: Delivery) -> InternalCounters:
    """Run agents with one LLM call each until the exporter is done; return what it counted."""
    with fresh_recorder(exporters=[exporter]) as recorder:
        for _ in range(CALLS):
            work()
        assert recorder.flush(30)
        return recorder.counters


def lost(counters: InternalCounters) -> int:
    return counters.totals[RECORDS_DROPPED, ("exporter_1", "export_failed")]


class Batches:
    """An exporter that fails at first, and then writes two records of each batch until the batch is done."""

    def __init__(self, failures: int, at_once: int = 10_000) -> None:
        self.left = failures
        self.at_once = at_once
        self.got: list[Record] = []
        self.calls: list[str] = []

    async def export(self, batch: Sequence[Record], /) -> None:
        if self.left:
            self.left -= 1
            raise ConnectionError("on purpose")
        self.got.extend(batch[: self.at_once])
        if len(batch) > self.at_once:
            raise PartialExportError(self.at_once)

    def flush(self, timeout_s: float) -> bool:
        self.calls.append("flush")
        return True

    def shutdown(self, timeout_s: float) -> None:
        self.calls.append("shutdown")


def test_llm_calls_only() -> None:
    """With `llm_only`, functions and exporters get the finished LLM calls, in order, and nothing else."""
    seen: list[Invocation] = []
    batches = Batches(0)
    run(Delivery(seen.append, llm_only=True))
    run(Delivery(batches, llm_only=True))
    for got in (seen, batches.got):
        assert len(got) == CALLS
        assert all(isinstance(each, Invocation) and each.usage is not None for each in got)


def test_an_exporter_gets_every_record_without_llm_only() -> None:
    """Without `llm_only`, an exporter gets the records that it would get by itself, and a function all that ended."""
    batches, seen = Batches(0), list[Invocation]()
    run(Delivery(batches))
    run(Delivery(seen.append))
    assert sum(isinstance(each, Started) for each in batches.got) == 2 * CALLS
    assert sum(isinstance(each, Invocation) for each in batches.got) == len(seen) == 2 * CALLS
    assert batches.calls == ["flush", "shutdown"]


@pytest.mark.parametrize("at_once", [3, 10_000])
def test_an_exporter_that_failed_gets_the_rest_again(at_once: int) -> None:
    """What failed is exported again until it is written, each record once and in order; nothing counts as lost."""
    batches, expected = Batches(3, at_once), Batches(0)
    with fresh_recorder(
        exporters=[Delivery(batches, retry_for_s=60, first_pause_s=0.001), Delivery(expected)]
    ) as recorder:
        for _ in range(CALLS):
            work()
        assert recorder.flush(30)
        counters = recorder.counters
    assert batches.got == expected.got
    assert lost(counters) == 0
    assert counters.totals[RECORDS, ("exporter_1",)] == len(expected.got)


def test_a_function_that_failed_is_called_again() -> None:
    """A function that fails now and then gets each record until it succeeds, and each success once."""
    seen: list[str] = []
    attempts = 0

    def flaky(call: Invocation) -> None:
        nonlocal attempts
        attempts += 1
        if attempts % 3:
            raise TimeoutError("on purpose")
        seen.append(call.invocation_id)

    counters = run(Delivery(flaky, llm_only=True, retry_for_s=60, first_pause_s=0.001))
    assert attempts == 3 * CALLS
    assert len(set(seen)) == len(seen) == CALLS
    assert lost(counters) == 0


def test_what_is_given_up_is_counted() -> None:
    """A record that cannot be delivered in time is lost alone and counted, and so is a batch."""

    def picky(call: Invocation) -> None:
        if call.model == "bad":
            raise ValueError("on purpose")
        seen.append(call.model)

    seen: list[str | None] = []
    with fresh_recorder(exporters=[Delivery(picky, llm_only=True, retry_for_s=0.05, first_pause_s=0.01)]) as recorder:
        for model in ("good", "bad", "good"):
            record_llm_call(model=model)
        assert recorder.flush(30)
        counters = recorder.counters
    assert (seen, lost(counters)) == (["good", "good"], 1)
    assert counters.totals[EXPORT_ERRORS, ("exporter_1",)] == 1
    dead = run(Delivery(Batches(10**6), llm_only=True, retry_for_s=0))
    assert lost(dead) == CALLS


class Clock:
    """In place of the module `time`: sleeping takes no time, and the clock goes on by what was asked for."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_each_outage_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for attempts starts again after a success and after progress: a second outage gets it in full."""
    clock = Clock()
    monkeypatch.setattr(delivery_module, "time", clock)
    records: list[Any] = [finished(), finished(), finished()]
    got, down_until = list[Record](), [clock.now + 8, clock.now + 16, clock.now + 24]

    def send(call: Invocation) -> None:
        if clock.now < down_until[len(got)]:
            raise ConnectionError("on purpose")
        got.append(call)

    Delivery(send, retry_for_s=10, first_pause_s=0.5).export(records)
    assert len(got) == 3
    clock.now, got[:] = 1_000.0, []

    class OneByOne:
        def export(self, batch: Sequence[Record], /) -> None:
            if clock.now < down_until[len(got)]:
                raise ConnectionError("on purpose")
            got.append(batch[0])
            if len(batch) > 1:
                raise PartialExportError(1)

    Delivery(OneByOne(), retry_for_s=10, first_pause_s=0.5).export(records)
    assert len(got) == 3


def test_the_last_attempt_is_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause ends at the deadline, where the last attempt is made: nothing is tried for longer than asked for."""
    clock, attempts = Clock(), list[float]()
    monkeypatch.setattr(delivery_module, "time", clock)

    def send(_call: Invocation) -> None:
        attempts.append(clock.now)
        raise ConnectionError("on purpose")

    with pytest.raises(PartialExportError):
        Delivery(send, retry_for_s=10, first_pause_s=8).export([finished()])
    assert len(attempts) >= 3
    assert attempts[-1] == pytest.approx(attempts[0] + 10)


def test_a_store_within_a_delivery_is_a_store(tmp_path: Path) -> None:
    """An exporter that keeps records for later gets its account, and budgets are booked in the store that it fills."""
    store = StoreExporter(f"sqlite:///{tmp_path / 'telemetry.db'}")
    limit = Budget("team", limit_usd=5)
    with fresh_recorder(exporters=[Delivery(Delivery(store), llm_only=True)], budgets=[limit]) as recorder:
        assert recorder.parts is not None
        assert recorder.parts.budgets is not None
        ledger = recorder.parts.budgets.ledger
        assert ledger.blocking
        assert ledger.is_same(StoreLedger(store.store))
        work()
        assert recorder.flush(30)
        assert recorder.counters.totals[RECORDS, ("exporter_1",)] == 4

    class Keeps:
        """An exporter that writes nothing at once."""

        def set_account(self, account: Any) -> None:
            self.account = account

        def export(self, batch: Sequence[Record], /) -> None:
            self.account.waits(len(batch))

    with fresh_recorder(exporters=[Delivery(Keeps())]) as recorder:
        work()
        assert recorder.flush(30)
        assert recorder.counters.totals[RECORDS, ("exporter_1",)] == 0


def test_records_wait_in_the_queue_and_the_rest_is_counted() -> None:
    """During an outage the queue fills up to its limit; later records are dropped and counted, the others arrive."""
    back, seen = threading.Event(), list[Invocation]()

    def send(call: Invocation) -> None:
        if not back.is_set():
            raise ConnectionError("on purpose")
        seen.append(call)

    delivery = Delivery(send, retry_for_s=600, first_pause_s=0.001)
    with fresh_recorder(exporters=[delivery], queue_capacity=64) as recorder:
        for _ in range(2_000):
            record_llm_call(model="m")
            recorder.drain()
        assert recorder.flush(0.05) is False
        back.set()
        assert recorder.flush(60)
        totals = recorder.counters.totals
        dropped = totals[RECORDS_DROPPED, ("exporter_1", "queue_full")]
        assert 0 < len(seen) < 2_000
        assert totals[RECORDS, ("exporter_1",)] + dropped == 2 * 2_000


def test_what_is_left_at_the_end_is_counted() -> None:
    """A shutdown in an outage waits for its time only, and what was not delivered counts as dropped."""
    batches = Batches(10**6)
    delivery = Delivery(batches, retry_for_s=600, first_pause_s=0.01)
    with fresh_recorder(exporters=[delivery], exit_timeout_s=0.1) as recorder:
        work()
        recorder.drain()
        totals = recorder.counters.totals
    batches.left = 0
    assert totals[RECORDS_DROPPED, ("exporter_1", "shutdown")] == 4
    assert totals[RECORDS, ("exporter_1",)] == 0


def _generator(call: Any) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        (None, {}, "NoneType"),
        (_generator, {}, "generator"),
        (print, {"retry_for_s": -1}, "retry_for_s"),
        (print, {"retry_for_s": math.nan}, "retry_for_s"),
        (print, {"retry_for_s": True}, "retry_for_s"),
        (print, {"first_pause_s": "1"}, "first_pause_s"),
    ],
)
def test_what_cannot_work_is_refused(to: Any, options: dict[str, Any], message: str) -> None:
    """Objects that are not exporters, and invalid times, are refused where the delivery is made."""
    with pytest.raises(ConfigurationError, match=message):
        Delivery(to, **options)


def test_the_record_is_documented() -> None:
    """The page names every field and every property of an `Invocation`, and no others."""
    page = Path("docs/extending.md").read_text()
    table = page.partition("| field of `Invocation` |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if row else "")}
    properties = {name for name, value in vars(Invocation).items() if isinstance(value, property) and name[0] != "_"}
    assert named == {*Invocation._fields, *properties}
