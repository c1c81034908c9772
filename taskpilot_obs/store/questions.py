"""A question about a stretch of time: one store, one snapshot, and how it is answered."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs._telemetry.answers import WHOLE, Answers, Bins, By, Key
from taskpilot_obs._telemetry.filters import EVERYTHING, Filters
from taskpilot_obs.exceptions import StoreVersionError
from taskpilot_obs.store import on_clickhouse, queries
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.clickhouse_tables import has_sums
from taskpilot_obs.store.filters import rollup_of
from taskpilot_obs.store.marks import MERGEABLE, merged_before
from taskpilot_obs.store.segments import QueryPlan, plan
from taskpilot_obs.store.tables import columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, timedelta
    from decimal import Decimal

    from sqlalchemy import Connection, Table

    from taskpilot_obs._telemetry.counts import Counts
    from taskpilot_obs.store.engine import Store
    from taskpilot_obs.store.rollups import Grain

_FEW: Final = 100
"""So many keys are looked up one by one; more are read in one pass."""


class Question(NamedTuple):
    """A question about calls, in one snapshot of a store."""

    connection: Connection
    version: str
    start: datetime
    end: datetime
    filters: Filters

    def plan(self, dimensions: Iterable[str] = (), step: timedelta | None = None) -> QueryPlan:
        """How it is answered, grouped by these dimensions and divided into these steps.

        Raises:
            StoreVersionError: the tables have no column for a filter.
        """
        rollup = rollup_of(self.filters, dimensions, self.version)
        if rollup is not None and on_clickhouse.is_on(self.connection) and not has_sums(self.connection):
            rollup = None
        planned = plan(self.connection, self.start, self.end, rollup, self.version, step=step)
        merged = merged_before(self.connection, {*self.filters, *dimensions})
        if merged is None or merged <= self.start:
            return planned
        told_apart = min(merged, self.end)
        return planned._replace(incomplete_before=max(told_apart, planned.incomplete_before or told_apart))

    def needs(self, table: Table, column: str) -> None:
        """Check that the store's tables have a column.

        Raises:
            StoreVersionError: they are of a version without it.
        """
        if column not in columns_of(table, self.version):
            raise StoreVersionError(
                f"the telemetry store has version {self.version!r}, whose {table.name} has no {column}: "
                "run `taskpilot-obs db upgrade --store URL` once"
            )

    def since(self, start: datetime) -> Question:
        """The same question about what came from this moment on."""
        return self._replace(start=start)


class StoreAnswers:
    """The answers of a store to one question: `Answers`."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._plans: dict[tuple[Grain | None, timedelta | None, frozenset[str]], QueryPlan] = {}

    def totals(self, by: By = WHOLE, /, keys: Sequence[Key] | None = None) -> dict[Key, Counts]:
        """What the calls add up to."""
        connection, filters = self._question.connection, self._question.filters
        planned = self._plan(by)
        if keys is None or len(keys) > _FEW:
            return queries.totals(connection, planned, filters, by)
        one_by_one = ((key, queries.totals(connection, planned, _only(filters, by, key)).get(())) for key in keys)
        return {key: found for key, found in one_by_one if found is not None}

    def costs(self, by: By = WHOLE, /) -> dict[Key, Decimal]:
        """What the calls cost, in USD."""
        return queries.costs(self._question.connection, self._plan(by), self._question.filters, by)

    def bins(self, by: By = WHOLE, /, keys: Sequence[Key] | None = None) -> Bins:
        """How the durations of the calls are distributed."""
        connection, filters = self._question.connection, self._question.filters
        planned = self._plan(by)
        if keys is None or len(keys) > _FEW:
            return queries.bins(connection, planned, filters, by)
        found = Bins({}, {})
        for key in keys:
            for into, held in zip(found, queries.bins(connection, planned, _only(filters, by, key)), strict=True):
                into[key] = held.get((), Counter())
        return found

    def errors(self, by: By = WHOLE, /) -> dict[Key, Counter[str]]:
        """How many calls failed, by type of error."""
        return queries.errors(self._question.connection, self._plan(by), self._question.filters, by)

    def incomplete_before(self, by: By = WHOLE, /) -> datetime | None:
        """The moment before which calls were deleted by age, and no summary tells them."""
        return self._plan(by).incomplete_before

    def _plan(self, by: By) -> QueryPlan:
        """One plan for all groupings that the same roll-up answers, and that a downgrade merged alike."""
        asked = self._question
        rollup = rollup_of(asked.filters, by.dimensions, asked.version)
        kind = (rollup, by.step, MERGEABLE.intersection(by.dimensions))
        if kind not in self._plans:
            self._plans[kind] = asked.plan(by.dimensions, by.step)
        return self._plans[kind]


def _only(filters: Filters, by: By, key: Key) -> Filters:
    """The filters, and the values of one key."""
    return {**filters, **dict(zip(by.dimensions, key, strict=True))}


class StoreSource:
    """A store that is open for a few questions: a `CallSource`."""

    held: Final = None

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def about(self, start: datetime, end: datetime, filters: Filters, /) -> Iterator[Answers]:
        """Answers about the calls that ended in [start, end) and pass the filters, from one snapshot."""
        with asked_of(self._store, start, end, filters) as question:
            yield StoreAnswers(question)


@contextmanager
def asked_of(
    store: str | Store | None, start: datetime, end: datetime, filters: Filters = EVERYTHING
) -> Iterator[Question]:
    """Open a store for a question about [start, end).

    Raises:
        ConfigurationError: no store is named.
        StoreError: the store is missing or cannot be used.
    """
    with opened(store) as opened_store:
        version = opened_store.known_version
        with opened_store.reading() as connection:
            yield Question(connection, version, start, end, filters)
