"""What the library counts about itself, from any thread, without a lock."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskpilot_obs.semconv import Metric


class InternalCounters:
    """Counters that any thread adds to and the drainer takes.

    `add` only appends to a deque, so that a finalizer or a signal handler may call it at any moment. `take` and
    `totals` belong to the drainer, under the pipeline's lock.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Metric, tuple[str, ...], int]] = deque()
        self.totals: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
        """Sums of all counts ever taken, to be read after a drain."""

    def add(self, metric: Metric, labels: tuple[str, ...], amount: int = 1) -> None:
        """Count `amount` more of `metric` with these label values."""
        self._pending.append((metric, labels, amount))

    @property
    def pending(self) -> int:
        """How many counts wait to be taken."""
        return len(self._pending)

    def take(self) -> Counter[tuple[Metric, tuple[str, ...]]]:
        """Return the counts added since the last call, and not those of threads that go on counting meanwhile."""
        taken: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
        pending = self._pending
        for _ in range(len(pending)):
            metric, labels, amount = pending.popleft()
            taken[metric, labels] += amount
        self.totals.update(taken)
        return taken
