"""The counts from which golden signals are computed, from any source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isnan
from types import MappingProxyType
from typing import NamedTuple

from taskpilot_obs.records import BAD, COUNTED, GOOD, Status

QUANTILE = 0.95
"""The quantile of the latency signal."""


class TaskEvidence(NamedTuple):
    """Finished tasks: all of them, or those of one workflow. Counts may be fractions where a server extrapolates."""

    runs: Mapping[Status, float] = MappingProxyType({})
    p95_s: float | None = None
    """None without a run."""
    durations: float = 0
    """How many durations `p95_s` rests on."""
    cost_usd: float = 0.0
    runs_with_violations: float = 0
    paid_successes: float | None = None
    """Successes in the time that `cost_usd` covers, where that is shorter; None: all of them."""
    p95_is_interpolated: bool = False
    """Whether `p95_s` lies somewhere in the histogram bucket of the exact one, which is not known."""

    @property
    def total(self) -> float:
        """Every finished run."""
        return sum(self.runs.values())

    @property
    def succeeded(self) -> float:
        """Runs that ended well."""
        return sum(self.runs.get(status, 0) for status in GOOD)

    @property
    def failed(self) -> float:
        """Runs that ended badly."""
        return sum(self.runs.get(status, 0) for status in BAD)

    @property
    def counted(self) -> float:
        """Runs with a status that counts in the success rate."""
        return sum(self.runs.get(status, 0) for status in COUNTED)


class BilledCalls(NamedTuple):
    """LLM calls that may cost something: neither answered by the application's cache nor refused."""

    total: float = 0
    unpriced: float = 0
    """Those whose cost is unknown."""
    partly_priced: float = 0
    """Those whose cost is known to be incomplete."""

    @property
    def coverage(self) -> float | None:
        """The share whose cost is known in full: the one definition, which every surface uses; None without a call."""
        return None if self.total <= 0 else max(0.0, 1 - (self.unpriced + self.partly_priced) / self.total)


class OverallEvidence(NamedTuple):
    """Counts that cannot be attributed to one workflow."""

    calls: BilledCalls = BilledCalls()
    violations: float = 0
    correct: float = 0
    incorrect: float = 0
    checked_runs: float | None = None
    """Counted runs in the time that `violations` covers, where that is shorter; None: all of them."""


class Evidence(NamedTuple):
    """The counts of one source for a stretch of time."""

    tasks: TaskEvidence
    """All tasks; its cost is that of every LLM call, inside a task or not."""
    overall: OverallEvidence
    workflows: Mapping[str, TaskEvidence]


class VerdictCounts(NamedTuple):
    """Counted feedback: first verdicts and revisions, each under the verdict that was given."""

    first_correct: float = 0
    first_incorrect: float = 0
    revised_to_correct: float = 0
    revised_to_incorrect: float = 0

    @property
    def judged(self) -> float:
        """Number of rated requests; a revision does not count again."""
        return self.first_correct + self.first_incorrect

    @property
    def correct(self) -> float:
        """Requests whose latest verdict is correct; never outside of those judged.

        A window may hold a revision without the first verdict that it revises.
        """
        return min(self.judged, max(0.0, self.first_correct + self.revised_to_correct - self.revised_to_incorrect))

    @property
    def incorrect(self) -> float:
        """Requests whose latest verdict is incorrect."""
        return self.judged - self.correct


def histogram_quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """The quantile of a histogram, interpolated within its bucket just as PromQL's `histogram_quantile` does.

    Args:
        q: the quantile, from 0 to 1.
        buckets: (upper bound, observations at most that large), the last bound being infinite.

    Returns:
        None without observations; the highest finite bound where the quantile lies above it.
    """
    lower_bound, below = 0.0, 0.0
    ordered = sorted(buckets)
    total = ordered[-1][1] if ordered else 0.0
    if isnan(total) or total <= 0:
        return None
    rank = q * total
    lower_bound = below = 0.0
    for bound, count in ordered:
        # Extrapolated counts may fall from one bucket to the next by a rounding error; they are monotonic by nature.
        upto = max(count, below)
        if upto >= rank and upto > below:
            break
        lower_bound, below = bound, upto
    return lower_bound if bound == inf else lower_bound + (bound - lower_bound) * (rank - below) / (upto - below)
