"""Exporters that keep records for later: what waits is neither written nor lost until it is settled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._pipeline.exporter import Account, PartialExportError
from taskpilot_obs._support.counters import InternalCounters
from taskpilot_obs.records import AuditEvent, Origin, Record
from taskpilot_obs.semconv import RECORDS, RECORDS_DROPPED

BATCH = [AuditEvent("x", Origin(), 0)] * 5


class Keeping:
    """Keeps the first records of each batch for later, and writes the others."""

    def __init__(self) -> None:
        self.kept = 5
        self.written = 5
        self.account: Account | None = None

    def set_account(self, account: Account) -> None:
        self.account = account

    def export(self, batch: Sequence[Record], /) -> None:
        assert self.account is not None
        self.account.waits(self.kept)
        if self.written < len(batch):
            raise PartialExportError(self.written)


@pytest.fixture
def keeping() -> Keeping:
    """The exporter behind `batched`."""
    return Keeping()


@pytest.fixture
def counters() -> InternalCounters:
    """What `batched` counts."""
    return InternalCounters()


@pytest.fixture
def batched(keeping: Keeping, counters: InternalCounters) -> Iterator[Batched]:
    """A worker that has exported one batch when the test asks for it."""
    made = Batched(keeping, name="kept", counters=counters)
    yield made
    made.shutdown(5)


def export(batched: Batched) -> None:
    batched.export(BATCH)
    assert batched.flush(5)


def counted(counters: InternalCounters) -> tuple[int, int]:
    """Records written, and records lost because their export failed."""
    counters.take()
    return counters.totals[RECORDS, ("kept",)], counters.totals[RECORDS_DROPPED, ("kept", "export_failed")]


def test_what_waits_counts_when_it_is_settled(keeping: Keeping, counters: InternalCounters, batched: Batched) -> None:
    """Records that wait are counted as written or as lost once the exporter knows, each once."""
    export(batched)
    assert counted(counters) == (0, 0)
    batched.settles(2, is_written=True)
    assert counted(counters) == (2, 0)
    batched.settles(1, is_written=False)
    assert counted(counters) == (2, 1)
    batched.settles(9, is_written=True)  # two are left
    batched.settles(9, is_written=False)
    assert counted(counters) == (4, 1)


def test_the_rest_of_a_batch_is_written_at_once(keeping: Keeping, counters: InternalCounters, batched: Batched) -> None:
    """Of a batch some records may wait, some be written and some be lost."""
    keeping.kept = 2
    export(batched)
    assert counted(counters) == (3, 0)
    keeping.written = 4
    export(batched)
    assert counted(counters) == (5, 1)
    batched.settles(4, is_written=True)
    assert counted(counters) == (9, 1)


def test_what_an_earlier_process_left_may_be_lost(counters: InternalCounters, batched: Batched) -> None:
    """Records that this process never took may be refused for good: they are lost, and nothing else changes."""
    export(batched)
    batched.loses(3)
    assert counted(counters) == (0, 3)
    batched.settles(5, is_written=True)
    assert counted(counters) == (5, 3)


def test_what_waits_at_a_shutdown_is_safe(counters: InternalCounters, batched: Batched) -> None:
    """What still waits at the shutdown counts as written; what is settled after it is not counted again."""
    export(batched)
    batched.settles(2, is_written=False)
    assert batched.shutdown(5)
    assert counted(counters) == (3, 2)
    batched.settles(3, is_written=False)
    assert counted(counters) == (3, 2)
