"""What the modules beneath the engine use of an open store."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from taskpilot_obs.store.urls import StoreUrl


class OpenStore(Protocol):
    """An open store: the `Store` of `engine.py`."""

    target: StoreUrl
    is_sqlite: bool
    is_clickhouse: bool
    engine: Engine

    def mapped(self) -> AbstractContextManager[None]:
        """Turn the database's errors into the library's."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection that sees one snapshot."""

    def writing(self) -> AbstractContextManager[Connection]:
        """A connection that commits at its end."""

    def forget_version(self) -> None:
        """Look again which version the tables have."""

    def require_current(self) -> None:
        """Raise `StoreError` unless the tables have the newest version."""
