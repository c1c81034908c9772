"""The seam between the pipeline and whoever wants the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from taskpilot_obs.records import Record


@runtime_checkable
class Exporter(Protocol):
    """Anything with `export(batch)`.

    An exporter may also have `flush(timeout_s: float) -> bool` (everything handed over so far has been written) and
    `shutdown(timeout_s: float) -> None`. It runs on a thread of the library's, never on the caller's, one batch at a
    time and in order; what it raises is counted and logged, and reaches neither the user's code nor other exporters.
    """

    def export(self, batch: Sequence[Record], /) -> None:
        """Take a batch of finished records."""
