"""A question about a stretch of time: one store, one snapshot, and how it is answered."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs.store.access import opened
from taskpilot_obs.store.filters import Filters
from taskpilot_obs.store.marks import services_merged_before
from taskpilot_obs.store.segments import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from taskpilot_obs.store.engine import Store

_ALL: Filters = Filters()
_SOURCE: Final = frozenset({"service", "environment"})


class Question(NamedTuple):
    """A question about calls, in one snapshot of a store."""

    connection: Connection
    version: str
    start: datetime
    end: datetime
    filters: Filters

    def plan(self, dimensions: Iterable[str] = (), step: timedelta | None = None) -> Plan:
        """How it is answered, grouped by these dimensions and divided into these steps.

        Raises:
            StoreVersionError: the tables have no column for a filter.
        """
        rollup = self.filters.rollup(dimensions, self.version)
        planned = plan(self.connection, self.start, self.end, rollup, self.version, step=step)
        if _SOURCE.isdisjoint({*self.filters.asked, *dimensions}):
            return planned
        merged = services_merged_before(self.connection)
        if merged is None or merged <= self.start:
            return planned
        return planned._replace(incomplete_before=max(min(merged, self.end), planned.incomplete_before or merged))

    def since(self, start: datetime) -> Question:
        """The same question about what came from this moment on."""
        return self._replace(start=start)


@contextmanager
def asked_of(store: str | Store | None, start: datetime, end: datetime, filters: Filters = _ALL) -> Iterator[Question]:
    """Open a store for a question about [start, end).

    Raises:
        ConfigurationError: no store is named.
        StoreError: the store is missing or cannot be used.
    """
    with opened(store) as opened_store:
        version = opened_store.known_version
        with opened_store.reading() as connection:
            yield Question(connection, version, start, end, filters)
