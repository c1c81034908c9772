"""Roll-ups: by what calls are summed up in each hour and day, and which roll-up answers a question.

The narrow ones are small whatever the number of tenants, and answer most questions. The full one is made only where it
is smaller than the rows: a thousand tenants with a call each sum up to a thousand lines. A mark in `llm_summary_work`
notes the periods that lack a roll-up (`lacking`), and their rows answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

SUMMARY_DIMENSIONS: Final = (
    "organization_id",
    "provider",
    "model_name",
    "agent",
    "prompt_name",
    "service",
    "environment",
)
"""What a line of the summaries has columns for; empty where its roll-up does not tell it apart."""
_FIRST_LINES: Final = 2_000
"""A roll-up of so few lines is always made."""


class Grain(NamedTuple):
    """What a line of a roll-up stands for: the calls of an hour or a day that share these dimensions."""

    suffix: str
    """Of its periods: the series of an hour stand under `hourly.series`."""
    dimensions: tuple[str, ...]
    bit: int
    """In `lacking`; 0: always made."""

    def period(self, length: str) -> str:
        """The period of its lines: `length` is `hourly` or `daily`."""
        return f"{length}{self.suffix}"


FULL: Final = Grain("", SUMMARY_DIMENSIONS, 1)
TENANTS: Final = Grain(".tenants", ("organization_id",), 2)
SERIES: Final = Grain(".series", ("provider", "model_name", "agent", "service", "environment"), 0)
ROLLUPS: Final = (FULL, TENANTS, SERIES)
_NARROW_FIRST: Final = (TENANTS, SERIES, FULL)
_ADDED: Final = frozenset({"service", "environment"})


def rollup_for(needed: Iterable[str], version: str) -> Grain | None:
    """The narrowest roll-up that tells these dimensions apart; None where only rows do.

    Args:
        needed: what a question filters and groups by.
        version: of the tables; before 0004 there was the full roll-up alone.
    """
    wanted = frozenset(needed)
    if version < "0004":
        return FULL if wanted <= frozenset(SUMMARY_DIMENSIONS) - _ADDED else None
    if not wanted:
        return SERIES
    return next((rollup for rollup in _NARROW_FIRST if wanted.issubset(rollup.dimensions)), None)


def is_worth_it(rollup: Grain, lines: int, rows: int) -> bool:
    """Whether a roll-up of so many lines is smaller than the rows that it sums up."""
    return not rollup.bit or lines <= _FIRST_LINES or 2 * lines <= rows
