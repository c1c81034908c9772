"""What answers questions about LLM calls: a telemetry store, or the calls that a process holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

from taskpilot_obs._telemetry.counts import Counts
from taskpilot_obs._telemetry.filters import Filters

Key = tuple[Any, ...]
"""The values of the dimensions ("" for none). Where an answer is divided into steps of time, the number of the step,
counted from the Unix epoch, comes first."""


class By(NamedTuple):
    """How an answer is grouped."""

    dimensions: tuple[str, ...] = ()
    step: timedelta | None = None
    """Length of the steps of time; None: not by time."""


WHOLE: Final = By()


class Bins(NamedTuple):
    """Durations by bin of the sketch, by step and by the values of the dimensions."""

    latency: dict[Key, Counter[int]]
    first_token: dict[Key, Counter[int]]


class HeldWindow(NamedTuple):
    """What a process holds."""

    since: datetime
    """Every call of the process that ended since then is held."""
    calls: int
    max_calls: int
    max_age: timedelta


class Answers(Protocol):
    """Sums over the calls of one question, all from one moment."""

    def totals(self, by: By = WHOLE, /, keys: Sequence[Key] | None = None) -> dict[Key, Counts]:
        """What the calls add up to, by step and by the values of the dimensions; of these keys alone, or of all."""

    def costs(self, by: By = WHOLE, /) -> dict[Key, Decimal]:
        """What the calls cost, in USD, by the values of the dimensions."""

    def bins(self, by: By = WHOLE, /, keys: Sequence[Key] | None = None) -> Bins:
        """How the durations of the calls are distributed; of these keys alone, or of all."""

    def errors(self, by: By = WHOLE, /) -> dict[Key, Counter[str]]:
        """How many calls failed, by type of error: the category, or else the class, or else the status."""

    def incomplete_before(self, by: By = WHOLE, /) -> datetime | None:
        """The moment before which an answer by these dimensions lacks calls; None: it is complete."""


class CallSource(Protocol):
    """Where calls are, open for the length of a few questions."""

    @property
    def held(self) -> HeldWindow | None:
        """What a process holds; None for a store."""

    def about(self, start: datetime, end: datetime, filters: Filters, /) -> AbstractContextManager[Answers]:
        """Answers about the calls that ended in [start, end) and pass the filters."""
