"""Sends the charges that wait in the outbox to a ledger with a store, on a thread of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._pipeline.batched import Batched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskpilot_obs._support.counters import InternalCounters
    from taskpilot_obs.budgets.settlement import Settler
    from taskpilot_obs.records import Record


class _Sender:
    """Writes the charges that wait, on the worker's thread."""

    reports = True
    """Booking makes records of its own: alerts."""

    def __init__(self, settler: Settler) -> None:
        self._settler = settler

    def export(self, _batch: Sequence[Record], /) -> None:
        """Write what waits."""
        self._settler.send()

    def flush(self, timeout_s: float) -> bool:
        """Write what waits; False where the store is unreachable."""
        del timeout_s
        return self._settler.send()

    def shutdown(self, timeout_s: float) -> None:
        """Stop the thread that reads the figures; the settler closes the ledger."""
        self._settler.stop(timeout_s)


class LedgerWorker(Batched):
    """The worker that sends charges to a ledger with a store.

    Charges wait in the outbox, which the settler fills, and are never dropped; what is queued here only wakes the
    worker.
    """

    def __init__(self, settler: Settler, *, name: str, counters: InternalCounters) -> None:
        super().__init__(_Sender(settler), name=name, counters=counters)
        self.settler = settler

    def export(self, batch: Sequence[Record], /) -> None:
        """Wake the worker where charges wait; the settler has seen the batch by then."""
        if self.settler.outbox and not self.backlog:
            super().export(batch[:1])
