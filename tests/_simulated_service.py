"""A simulated process of an application: the library's pipeline, audit log, store, spool and budgets, and callers.

Everything in it is the library's own code; only `threading`, `time`, `os` and chance are the simulator's.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import pytest
from _simulated_database import Database
from _simulated_disk import Disk, OsModule, opener
from _simulated_threads import SECOND, Process, ThreadingModule, TimeModule, scheduler

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._pipeline.pipeline import Pipeline
from taskpilot_obs._support.clock import Clock
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.budgets import Budget, settlement
from taskpilot_obs.budgets.admission import AdmissionController, BudgetDeps
from taskpilot_obs.budgets.admitted import AdmissionRequest, Admitted
from taskpilot_obs.budgets.assembly import BUDGETS, LEDGER, Assembly
from taskpilot_obs.budgets.estimates import CallEstimate
from taskpilot_obs.budgets.ledger_worker import LedgerWorker
from taskpilot_obs.budgets.model import CallScope
from taskpilot_obs.budgets.settlement import Settler
from taskpilot_obs.exceptions import RefusedError, StoreError
from taskpilot_obs.exporters.audit_log import AuditLogExporter
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.records import Feedback, Invocation, Operation, Origin, Record, Source, Status, Usage
from taskpilot_obs.semconv import INTERNAL_ERRORS, RECORDS, RECORDS_DROPPED
from taskpilot_obs.store import StoreExporter
from taskpilot_obs.store.budget_ledger import StoreLedger

MODELS: Final = tuple(f"model-{number}" for number in range(12))
TENANTS: Final = ("acme", "globex")
RESERVATION_S: Final = 900.0
AUDIT, STORE = "audit", "store"


class Machine(NamedTuple):
    """What processes of one simulation share."""

    home: Path
    disk: Disk
    database: Database
    budgets: tuple[Budget, ...]
    audit: AuditOptions
    capacity: int
    on_full: Any
    spool_bytes: int
    aggregate_every_s: float | None


class SimulatedClock(Clock):
    """The library's clock, on simulated time."""

    now = staticmethod(lambda: scheduler().now)


class Spooled(StoreExporter):
    """The exporter, as for a server: what stands in for it here is a file, but it can be away."""

    _needs_spool = True


class Item:
    """A record in the pipeline's queue."""

    def __init__(self, record: Record, *, may_drop: bool) -> None:
        self._record = record
        self._may_drop = may_drop

    def freeze(self, records: list[Record], /) -> None:
        """Hand the record over."""
        records.append(self._record)

    def droppable(self) -> bool:
        """Whether it may be dropped: the end of a call may not."""
        return self._may_drop


class Call(NamedTuple):
    """A call that a simulated caller made."""

    call_id: str
    model: str
    tenant: str
    estimate: int
    actual: int
    was_judged: bool
    """Whether a ledger had admitted it."""


class Service:
    """One process, from its start to its end."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self.machine = machine
        self.process = process
        self.calls: list[Call] = []
        self.feedback = 0
        self.refused = 0
        self.entering = 0
        """How many records callers are handing over."""
        self.started = 0
        self.is_stopped = False
        self.is_ready = False
        self.stopped_well = False
        """Whether a shutdown has returned."""
        self.took_ns = 0
        self.counters = InternalCounters()

    def start(self) -> None:
        """Open everything; on a simulated thread."""
        machine = self.machine
        clock = SimulatedClock()
        self.exporter = Spooled(
            f"sqlite:///{machine.database.path}",
            spool_dir=machine.home / "spool",
            spool_max_bytes=machine.spool_bytes,
            aggregate_every_s=machine.aggregate_every_s,
        )
        audit = AuditLogExporter(machine.home / "audit" / "audit.jsonl", machine.audit, counters=self.counters)
        deps = BudgetDeps(clock, PriceTable(), self.counters, lambda _decision: None)
        self.admission = AdmissionController(deps, StoreLedger(self.exporter.store), reservation_s=RESERVATION_S)
        for budget in machine.budgets:
            self.admission.add(budget)
        settler = Settler(self.admission, None)
        batched = [
            LedgerWorker(settler, name=LEDGER, counters=self.counters),
            self._behind(audit, AUDIT),
            self._behind(self.exporter, STORE),
        ]
        self.pipeline = Pipeline(
            {BUDGETS: settler}, batched, counters=self.counters, capacity=machine.capacity, on_poll=clock.refresh
        )
        self.assembly = Assembly(self.admission, settler, {}, batched)
        self.assembly.connect(self.pipeline)
        self.is_ready = True

    def _behind(self, exporter: Any, name: str) -> Batched:
        machine = self.machine
        return Batched(exporter, name=name, counters=self.counters, capacity=machine.capacity, on_full=machine.on_full)

    # --- callers -----------------------------------------------------------------------------------------------------

    def calls_in_a_row(self, amount: int, *, honest: bool) -> None:
        """What one caller does."""
        run = scheduler()
        for _ in range(amount):
            if self.is_stopped:
                return
            self.one_call(honest=honest)
            if run.random.random() < 0.3:
                self.put(self._feedback(), may_drop=True)
            run.sleep(int(run.random.random() * 2 * SECOND))

    def one_call(self, *, honest: bool) -> None:
        """Ask, call, and record."""
        run, chance = scheduler(), scheduler().random
        self.started += 1
        call_id = f"{self.process.pid}-{self.started}"
        model, tenant, estimate = chance.choice(MODELS), chance.choice(TENANTS), chance.randint(1, 200)
        scope = CallScope(Origin(call_id, tenant=tenant), model, "openai", None, Source())
        now = self.admission.now()
        request = AdmissionRequest(call_id, scope, CallEstimate(0, estimate), now)
        admitted = Admitted(request)
        try:
            self.admission.admit(admitted)
        except RefusedError:
            self.refused += 1
            return
        run.sleep(int(chance.random() * 5 * SECOND))
        actual = chance.randint(0, estimate) if honest else chance.randint(0, 2 * estimate)
        call = Call(call_id, model, tenant, estimate, actual, bool(admitted.lines))
        self.calls.append(call)
        self.put(self._record(call, now), may_drop=False)

    def _record(self, call: Call, began: int) -> Invocation:
        return Invocation(
            operation=Operation.CHAT,
            name="chat",
            status=Status.SUCCESS,
            request_id=call.call_id,
            invocation_id=call.call_id,
            parent_id=None,
            workflow="triage",
            agent="planner",
            start_unix_ns=began,
            duration_s=0.5,
            usage=Usage(0, call.actual),
            cost=Decimal("0.0105"),
            cost_source="price_table",
            request_model=call.model,
            response_model=call.model,
            provider="openai",
            tenant=call.tenant,
            reservation_id=call.call_id if call.was_judged else None,
        )

    def _feedback(self) -> Feedback:
        self.feedback += 1
        origin = Origin(f"{self.process.pid}-f{self.feedback}")
        return Feedback(origin.request_id or "", True, False, origin, self.admission.now())

    def put(self, record: Record, *, may_drop: bool) -> None:
        """Hand a record to the pipeline."""
        self.entering += 1
        self.pipeline.put(Item(record, may_drop=may_drop))
        self.entering -= 1

    # --- its end -----------------------------------------------------------------------------------------------------

    def stop(self, timeout_s: float) -> None:
        """Shut down as an application does."""
        self.is_stopped = True
        began = scheduler().now
        self.pipeline.shutdown(timeout_s)
        self.took_ns = scheduler().now - began
        self.let_go()

    def die(self) -> None:
        """End at once, by `kill -9` or a loss of power."""
        self.is_stopped = True
        scheduler().kill(self.process)
        self.machine.disk.process_died(self.process)
        self.let_go()

    def let_go(self) -> None:
        """Leave no connection open."""
        self.counters.take()
        exporter = getattr(self, "exporter", None)
        if exporter is not None:
            exporter.store.engine.dispose()

    # --- what it says of itself --------------------------------------------------------------------------------------

    @property
    def handed_over(self) -> int:
        """How many records its callers recorded."""
        return len(self.calls) + self.feedback

    def written(self, exporter: str) -> int:
        """How many records it counted as written."""
        return self.counters.totals[RECORDS, (exporter,)]

    def dropped(self, exporter: str) -> int:
        """How many records it counted as lost."""
        totals = self.counters.totals
        return sum(
            amount for (metric, labels), amount in totals.items() if metric is RECORDS_DROPPED and labels[0] == exporter
        )

    @property
    def charged_all(self) -> bool:
        """Whether it reported no charges of budgets as lost."""
        return not self.internal_errors.get((BUDGETS,)) and not self.dropped(BUDGETS)

    @property
    def internal_errors(self) -> dict[tuple[str, ...], int]:
        """What it counted as failures of its own."""
        return {
            labels: amount for (metric, labels), amount in self.counters.totals.items() if metric is INTERNAL_ERRORS
        }


class _DatetimeType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _Datetime(datetime, metaclass=_DatetimeType):
    """`datetime`, whose present is that of the simulated process."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.fromtimestamp(TimeModule.time(), tz or UTC)


@contextmanager
def installed(disk: Disk, seed: int) -> Iterator[None]:
    """While the block runs, the library's modules use the simulated threads, time, disk and chance."""
    chance = Random(f"library {seed}")

    def token(size: int = 16) -> str:
        return f"{chance.getrandbits(8 * size):0{2 * size}x}"

    modules = {
        threading: ThreadingModule("threading"),
        time: TimeModule("time"),
        os: OsModule(disk),
        random: chance,
        secrets: SimpleNamespace(token_hex=token),
        datetime: _Datetime,
        secrets.token_hex: token,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settlement, "REFRESH_S", chance.choice((5.0, 60.0, 240.0)))
        for name, module in list(sys.modules.items()):
            if not name.startswith("taskpilot_obs."):
                continue
            for attribute in ("threading", "time", "os", "random", "secrets", "datetime", "token_hex"):
                found = vars(module).get(attribute)
                if found is not None and found in modules:
                    patch.setattr(module, attribute, modules[found])
        for name in ("store.spool", "audit.manifest"):
            patch.setattr(sys.modules[f"taskpilot_obs.{name}"], "open", opener(disk), raising=False)
        yield


STARTING: Final = (StoreError,)
