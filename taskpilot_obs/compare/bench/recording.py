"""The recorder of a benchmark: it prices each call, keeps the cap on the money, and fills the store."""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskpilot_obs.budgets import Budget
from taskpilot_obs.config import build_recorder, running_recorder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskpilot_obs._pipeline.exporter import Exporter
    from taskpilot_obs._recording.recorder import Recorder

BUDGET: Final = "benchmark"
SERVICE: Final = "taskpilot-bench"
PRETEND_PRICES: Final = Path(__file__).parent / "data" / "pretend.toml"
"""What the providers of the demo charge."""


def recorder_options(left: Decimal | None, *, store: str | None = None, prices: Sequence[Path] = ()) -> dict[str, Any]:
    """The options with which a recorder serves a benchmark.

    Args:
        left: USD that may still be spent: a budget in `enforce` mode asks before each call. None: no limit.
        store: the URL of a store that keeps the LLM calls.
        prices: files of own prices.
    """
    capped = [] if left is None else [Budget(BUDGET, limit_usd=left, period="total", action="enforce")]
    return {
        "service": SERVICE,
        "prometheus": False,
        "budgets": capped,
        "store": store,
        "prices": [*prices],
    }


def recorder_for(left: Decimal | None, *, store: str | None = None, prices: Sequence[Path] = ()) -> Recorder:
    """A recorder of its own for one benchmark; arguments as for `recorder_options`."""
    return build_recorder(**recorder_options(left, store=store, prices=prices))


@contextmanager
def collecting(collector: Exporter, recorder: Recorder) -> Iterator[tuple[Recorder, ...]]:
    """Pass what is recorded to the collector: by this recorder, and by the default one, with which agents record.

    Args:
        collector: gets every record.
        recorder: of the benchmark.

    Yields:
        This recorder, then the default one if it is another; they have to be drained before the collector is read.
    """
    default = running_recorder()
    recorders = (recorder,) if default in (None, recorder) else (recorder, default)
    for each in recorders:
        each.pipeline.add(BUDGET, collector)
    try:
        yield recorders
    finally:
        for each in recorders:
            each.pipeline.remove(BUDGET)
