"""Which store is meant, and opening it for the length of a question."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from taskpilot_obs._telemetry.stores import STORE_VARIABLE, store_of_this_process
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store.engine import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def opened(store: str | Store | None, *, create: bool = False, any_version: bool = False) -> Iterator[Store]:
    """The store that is named, else the one that this process fills, else `TASKPILOT_OBS_STORE`.

    One that is given as a URL is closed afterwards.

    Args:
        store: its URL, or one that is open.
        create: make the file of a SQLite store that is missing.
        any_version: also one whose tables are missing, older or newer than this code.

    Raises:
        ConfigurationError: none is named anywhere.
        StoreError: it is missing, or cannot be used; `StoreVersionError` where its tables are of another version.
    """
    if store is None:
        store = store_of_this_process()
    if not store:
        raise ConfigurationError(
            f"store: none given, none configured in this process and {STORE_VARIABLE} is not set; "
            "name one, as in sqlite:///telemetry.db"
        )
    if isinstance(store, Store):
        _check(store, any_version=any_version)
        yield store
        return
    mine = Store(store, create=create)
    try:
        _check(mine, any_version=any_version)
        yield mine
    finally:
        mine.close()


def _check(store: Store, *, any_version: bool) -> None:
    if not (store.is_usable or any_version):
        store.require_usable()
