"""Assembles a recorder's budgets: admission before calls, settlement after them, and their common ledger."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._support.guarded import log_failure
from taskpilot_obs._support.hooks import refuse_generator
from taskpilot_obs.budgets.admission import AdmissionController, BudgetDeps
from taskpilot_obs.budgets.alerts import AlertExporter
from taskpilot_obs.budgets.files import as_budgets
from taskpilot_obs.budgets.ledger import Ledger, MemoryLedger
from taskpilot_obs.budgets.ledger_worker import LedgerWorker
from taskpilot_obs.budgets.settlement import ReservationEnd, Settler
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreUnavailableError
from taskpilot_obs.exporters.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskpilot_obs._pipeline.exporter import Exporter
    from taskpilot_obs._pipeline.pipeline import Pipeline
    from taskpilot_obs._recording.components import Components
    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.budgets.settlement import Gauges
    from taskpilot_obs.records import Record
    from taskpilot_obs.settings import Settings
    from taskpilot_obs.store.engine import Store

BUDGETS = "budgets"
"""Name of the settler among the exporters."""
LEDGER = "budget_ledger"
"""Name of the worker that writes to a ledger with a store."""
ALERTS = "budget_alerts"


class Assembly(NamedTuple):
    """Budgets, ready for a pipeline."""

    admission: AdmissionController
    settler: Settler
    in_memory: dict[str, Exporter]
    batched: list[Batched]

    def connect(self, pipeline: Pipeline) -> None:
        """Make refusals wait for ended calls that are still queued."""

        def catch_up() -> None:
            pipeline.drain()
            for batched in self.batched:
                if isinstance(batched, LedgerWorker):
                    batched.flush(1.0)

        def end_later(reservation_id: str, billed: bool) -> None:  # noqa: FBT001  one place calls it
            pipeline.put(ReservationEnd(self.settler, reservation_id, billed=billed))

        self.admission.catch_up, self.admission.end_later = catch_up, end_later


def assemble(
    settings: Settings,
    deps: BudgetDeps,
    gauges: Gauges | None,
    own: Sequence[Budget],
    before: AdmissionController | None,
) -> Assembly | None:
    """Assemble the budgets of a configuration and of decorated functions; None if there are none.

    Raises:
        ConfigurationError: an object that is not a budget, two budgets of one name, a wrong file, or an alert hook that
            cannot be called.
        StoreError: their store cannot be used, for another reason than being unreachable now.
    """
    if settings.on_budget_alert is not None and not callable(settings.on_budget_alert):
        kind = type(settings.on_budget_alert).__name__
        raise ConfigurationError(f"on_budget_alert: given an object of type {kind}; allowed is a function")
    refuse_generator("on_budget_alert", settings.on_budget_alert)
    budgets = [*(budget for given in settings.budgets for budget in as_budgets(given)), *own]
    if not settings.enabled:  # budgets in enforce mode stay in force
        budgets = [budget for budget in budgets if budget.action == "enforce" and settings.enforcement]
    if not (budgets or (settings.enabled and settings.budget_store)):
        return None
    admission = AdmissionController(
        deps,
        _ledger(settings, before),
        reservation_s=settings.budget_reservation_s,
        enforcing=settings.enforcement,
    )
    try:
        for budget in budgets:
            admission.add(budget)
    except ConfigurationError:
        admission.ledger.close()
        raise
    if before is not None and before.ledger.is_same(admission.ledger):
        admission.held = before.held
    settler = Settler(admission, gauges)
    batched = _alerts(settings, deps)
    if admission.ledger.blocking:
        batched = [LedgerWorker(settler, name=LEDGER, counters=deps.counters), *batched]
    return Assembly(admission, settler, {BUDGETS: settler}, batched)


def _alerts(settings: Settings, deps: BudgetDeps) -> list[Batched]:
    if settings.on_budget_alert is None:
        return []
    return [Batched(AlertExporter(settings.on_budget_alert), name=ALERTS, counters=deps.counters)]


def _ledger(settings: Settings, before: AdmissionController | None) -> Ledger:
    store = _store(settings)
    if store is not None:
        from taskpilot_obs.store.budget_ledger import StoreLedger

        return StoreLedger(store, owned=(settings.budget_store or settings.store) is not None)
    if before is not None and not before.ledger.blocking:
        return before.ledger
    return MemoryLedger()


def _unwrapped(exporter: Any) -> Any:
    """The exporter within a `Delivery`, or within several."""
    while isinstance(exporter, Delivery):
        exporter = exporter.wrapped
    return exporter


def _store(settings: Settings) -> Store | None:
    """The configured store, or the one that an exporter fills."""
    url = settings.budget_store or settings.store
    if url is None:
        module: Any = sys.modules.get("taskpilot_obs.store.exporter")
        given = [_unwrapped(each) for each in settings.exporters]
        found = [each.store for each in given if module and isinstance(each, module.StoreExporter)]
        return _transactional(found[0]) if found else None
    from taskpilot_obs.store.engine import Store

    store = _transactional(Store(url, create=True))
    if not store.is_sqlite:
        try:
            store.require_usable()
        except StoreUnavailableError as error:
            log_failure(BUDGETS, error)
        except StoreError:
            store.close()
            raise
    return store


def _transactional(store: Store) -> Store:
    """The store, if it can keep budgets.

    Raises:
        ConfigurationError: it is in ClickHouse.
    """
    if store.is_clickhouse:
        raise ConfigurationError(
            f"budget_store: {store} has no transactions, which budgets need; name a store that has them, as in "
            'budget_store="postgresql+psycopg://…" or budget_store="sqlite:///budgets.db"'
        )
    return store


def attached(parts: Components, budget: Budget, emit: Callable[[Record], None]) -> Components:
    """Add a budget to running components, and return them.

    Args:
        parts: the components of a recorder.
        budget: the budget.
        emit: called with the decisions of budgets.

    Raises:
        ConfigurationError: another budget has its name.
    """
    admission = parts.budgets
    if admission is None:
        deps = BudgetDeps(parts.clock, parts.prices, parts.counters, emit, parts.settings.source)
        made = assemble(parts.settings, deps, parts.declares, (budget,), None)
        if made is None:
            return parts
        for name, exporter in made.in_memory.items():
            parts.pipeline.add(name, exporter)
        parts.pipeline.add_batched(*made.batched)
        made.connect(parts.pipeline)
        return parts._replace(budgets=made.admission, settler=made.settler)
    admission.add(budget)
    if parts.settler is not None:
        parts.settler.introduce()
    return parts
