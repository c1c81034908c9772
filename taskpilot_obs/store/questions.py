"""A question about a stretch of time: one store, one snapshot, and how it is answered."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from taskpilot_obs.exceptions import StoreVersionError
from taskpilot_obs.store.access import opened
from taskpilot_obs.store.filters import Filters
from taskpilot_obs.store.marks import services_merged_before
from taskpilot_obs.store.segments import Plan, plan
from taskpilot_obs.store.tables import columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Table

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
