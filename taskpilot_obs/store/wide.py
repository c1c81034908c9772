"""Sums that may exceed 64 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func

from taskpilot_obs._telemetry.counts import HALF

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement


def wide_sum(column: ColumnElement[int]) -> tuple[Any, Any]:
    """A sum in two, for `joined`: SQLite's own ends at 64 bits, where a few absurd costs would end every answer."""
    return func.sum(column // HALF), func.sum(column % HALF)
