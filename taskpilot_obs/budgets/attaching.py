"""Puts budgets into a recorder: control before calls, the book behind them, and the ledger that both use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from taskpilot_obs.budgets.alerts import AlertExporter
from taskpilot_obs.budgets.booking import Book
from taskpilot_obs.budgets.control import Control, Means
from taskpilot_obs.budgets.files import as_budgets
from taskpilot_obs.budgets.ledger import Ledger, MemoryLedger
from taskpilot_obs.exceptions import ConfigurationError, StoreError, StoreUnavailableError
from taskpilot_obs.exporters.base import Batched
from taskpilot_obs.guarded import log_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskpilot_obs.budgets.booking import Gauges
    from taskpilot_obs.budgets.model import Budget
    from taskpilot_obs.exporters.base import Exporter
    from taskpilot_obs.pipeline import Pipeline
    from taskpilot_obs.recorder import Parts, Recorder
    from taskpilot_obs.settings import Settings
    from taskpilot_obs.store.engine import Store

BUDGETS = "budgets"
"""Name of the book among the exporters."""
ALERTS = "budget_alerts"


class Assembly(NamedTuple):
    """Budgets, ready for a pipeline."""

    control: Control
    book: Book
    in_memory: dict[str, Exporter]
    batched: list[Batched]

    def connect(self, pipeline: Pipeline) -> None:
        """Let a refusal look at what has ended and waits in the pipeline first."""

        def catch_up() -> None:
            pipeline.drain()
            for batched in self.batched:
                if batched.exporter is self.book:
                    batched.flush(1.0)

        self.control.catch_up = catch_up


def assemble(
    settings: Settings, means: Means, gauges: Gauges | None, own: Sequence[Budget], before: Control | None
) -> Assembly | None:
    """The budgets of a configuration and of decorated functions; None where there are none.

    Raises:
        ConfigurationError: what is no budget, two of one name, a file that is wrong, or an alert hook that is none.
        StoreError: the store that is to keep them cannot be used, and it is not merely away.
    """
    if settings.on_budget_alert is not None and not callable(settings.on_budget_alert):
        kind = type(settings.on_budget_alert).__name__
        raise ConfigurationError(f"on_budget_alert: given an object of type {kind}; allowed is a function")
    budgets = [budget for given in settings.budgets for budget in as_budgets(given)]
    if not settings.enabled or not (budgets or own or settings.budget_store):
        return None
    control = Control(means, _ledger(settings, before), reservation_s=settings.budget_reservation_s)
    try:
        for budget in (*budgets, *own):
            control.add(budget)
    except ConfigurationError:
        control.ledger.close()
        raise
    if before is not None and before.ledger is control.ledger:
        control.held = before.held
    book = control.book = Book(control, gauges)
    batched = _alerts(settings, means)
    if not control.ledger.blocking:
        return Assembly(control, book, {BUDGETS: book}, batched)
    behind = Batched(book, name=BUDGETS, tally=means.tally, capacity=settings.queue_capacity)
    return Assembly(control, book, {}, [behind, *batched])


def _alerts(settings: Settings, means: Means) -> list[Batched]:
    if settings.on_budget_alert is None:
        return []
    return [Batched(AlertExporter(settings.on_budget_alert), name=ALERTS, tally=means.tally)]


def _ledger(settings: Settings, before: Control | None) -> Ledger:
    store = _store(settings)
    if store is not None:
        from taskpilot_obs.store.budget_ledger import StoreLedger

        return StoreLedger(store, owned=(settings.budget_store or settings.store) is not None)
    if before is not None and not before.ledger.blocking:
        return before.ledger
    return MemoryLedger()


def _store(settings: Settings) -> Store | None:
    """The store that is named, or that an exporter fills."""
    url = settings.budget_store or settings.store
    if url is None:
        module: Any = sys.modules.get("taskpilot_obs.store.exporter")
        found = [each.store for each in settings.exporters if module and isinstance(each, module.StoreExporter)]
        return found[0] if found else None
    from taskpilot_obs.store.engine import Store

    store = Store(url, create=True)
    if not store.is_sqlite:
        try:
            store.require_usable()
        except StoreUnavailableError as error:
            log_failure(BUDGETS, error)
        except StoreError:
            store.close()
            raise
    return store


def attached(recorder: Recorder, parts: Parts, budget: Budget) -> Control | None:
    """Watch one more budget in running parts; None where nothing is recorded."""
    control = parts.budgets
    if control is None:
        means = Means(parts.clock, parts.prices, parts.tally, recorder.report)
        made = assemble(parts.settings, means, parts.declares, (budget,), None)
        if made is None:
            return None
        for name, exporter in made.in_memory.items():
            parts.pipeline.add(name, exporter)
        parts.pipeline.add_batched(*made.batched)
        made.connect(parts.pipeline)
        return made.control
    control.add(budget)
    if control.book is not None:
        control.book.introduce()
    return control
