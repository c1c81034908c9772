"""Where a bound of the library sets in, read from the bounds themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from taskpilot_obs import semconv
from taskpilot_obs._recording.callsite import _MAX_CALLSITES
from taskpilot_obs._recording.point_events import MAX_RATED
from taskpilot_obs._telemetry.window import MAX_CALLS
from taskpilot_obs.exporters.prometheus.worker_files import LOCK_TIMEOUT_S
from taskpilot_obs.semconv import Label
from taskpilot_obs.settings import Settings


class Knee(NamedTuple):
    """A bound, and what happens beyond it."""

    at: str
    what: str
    beyond: str


def bounds() -> Iterator[Knee]:
    """The bounds that curves run into, in the order of the page."""
    bound = semconv.LABEL_BOUNDS
    yield Knee(
        f"{bound[Label.AGENT]} agents, {bound[Label.TOOL]} tools, {bound[Label.WORKFLOW]} workflows, "
        f"{bound[Label.MODEL]} models of a process",
        "names of a label",
        "further names fold into `__other__`; sums stay exact. Scrape, rules and memory of metrics stop rising. "
        "Folded names share one set of series and cost a look-up more each, however many there are",
    )
    yield Knee(f"{semconv.MAX_CHILDREN:,} children of a family", "combinations of labels", "further ones fold likewise")
    callsites = f"{_MAX_CALLSITES:,} names of agents, tools or workflows started by name"
    yield Knee(callsites, "names that are remembered", "the cache is emptied and fills again")
    yield Knee(f"{MAX_CALLS:,} calls", "calls held for statistics without a store", "the oldest go; memory stays")
    yield Knee(f"{MAX_RATED:,} requests", "requests whose feedback can be revised", "the oldest go; memory stays")
    capacity = Settings.model_fields["queue_capacity"].default
    dropped = "callers help, and wait for half a millisecond; past twice that records are dropped and counted"
    yield Knee(f"{capacity:,} records that wait", "`queue_capacity`", dropped)
    lock = "the lock of `PROMETHEUS_MULTIPROC_DIR`, and Prometheus' own timeout"
    yield Knee(f"{LOCK_TIMEOUT_S:g} s for a scrape", lock, "scrapes fail: give the workers several directories")
