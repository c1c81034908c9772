"""Where an answer comes from: a telemetry store, or the calls that this process holds."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskpilot_obs._telemetry.stores import store_of_this_process
from taskpilot_obs.config import running_recorder
from taskpilot_obs.stats.model import ProcessWindow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from taskpilot_obs._telemetry.answers import Answers, CallSource
    from taskpilot_obs._telemetry.filters import Filters
    from taskpilot_obs.store import Store


@contextmanager
def source_of(store: str | Store | None) -> Iterator[CallSource]:
    """The store that is named, or meant where none is named; without any, the calls that this process holds.

    Raises:
        ConfigurationError: no store is named, and this process holds no calls.
        StoreError: the store is missing or cannot be used.
    """
    held = _held_here() if store is None and store_of_this_process() is None else None
    if held is not None:
        yield held
        return
    from taskpilot_obs.store.access import opened
    from taskpilot_obs.store.questions import StoreSource

    with opened(store) as opened_store:
        yield StoreSource(opened_store)


@contextmanager
def answers_of(
    store: str | Store | None, start: datetime, end: datetime, filters: Filters
) -> Iterator[tuple[Answers, CallSource]]:
    """The answers to one question, and where they come from; see `source_of`."""
    with source_of(store) as source, source.about(start, end, filters) as answers:
        yield answers, source


def origin_of(source: CallSource) -> dict[str, Any]:
    """The fields of a model that state where its figures come from."""
    held = source.held
    if held is None:
        return {"scope": "store", "window": None}
    window = ProcessWindow(
        since=held.since, calls=held.calls, max_calls=held.max_calls, max_age_s=held.max_age.total_seconds()
    )
    return {"scope": "process", "window": window}


def _held_here() -> CallSource | None:
    recorder = running_recorder()
    parts = None if recorder is None else recorder.parts
    if recorder is None or parts is None or parts.calls is None:
        return None
    recorder.drain()
    return parts.calls.read()
