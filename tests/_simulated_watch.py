"""What must hold at each moment of a simulation, while processes work and fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from _simulated_books import Books
from _simulated_service import AUDIT, STORE, Service
from _simulated_threads import Violation

if TYPE_CHECKING:
    from _simulator_of_faults import Simulation

COUNTING_STEPS: Final = 16
"""So many steps apart the records of each process are counted."""
READING_STEPS: Final = 128
"""So many steps apart the audit log, the ledger and the store are read as well."""


class Watch:
    """Looks at a simulation between its steps."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.looks = 0
        """How often all of it was looked at."""

    def step(self, number: int) -> None:
        """Look, at some steps.

        Args:
            number: of the step.

        Raises:
            Violation: something that must hold at each moment does not.
        """
        if number % COUNTING_STEPS == 0:
            for service in self._simulation.services:
                if service.is_ready and not service.process.is_dead:
                    _check_records(service)
        if number % READING_STEPS == 0:
            self.looks += 1
            books = Books(self._simulation)
            books.check_audit_log()
            books.check_ledger()
            books.check_stored()


def _check_records(service: Service) -> None:
    """Each accepted record is queued, at work, written or dropped; those that a thread hands on now may be unseen."""
    pipeline: Any = service.pipeline
    service.counters.take()
    for batched in pipeline.batched:
        if batched.name not in (AUDIT, STORE) or batched._taking.locked():
            continue
        there = batched.backlog + batched._in_flight - batched._batch_waits + batched._waiting
        known = len(pipeline.queue) + there + service.written(batched.name) + service.dropped(batched.name)
        is_moving = pipeline._lock.locked()
        least = 0 if is_moving else service.handed_over - service.entering
        if not least <= known <= service.handed_over:
            raise Violation(
                f"process {service.process.pid}: {service.handed_over} records were accepted, and {batched.name} knows "
                f"of {known}: {there} queued, {service.written(batched.name)} written, "
                f"{service.dropped(batched.name)} dropped"
            )
