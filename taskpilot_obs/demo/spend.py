"""Cost of LLM calls by agent and model: an example of an exporter for `configure(exporters=[…])`."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from taskpilot_obs.records import LLM_OPERATIONS, Invocation


class Line(NamedTuple):
    """Totals of the LLM calls of one agent with one model."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0


class DemoSpend:
    """Adds up finished LLM calls. One thread of the library writes; any thread may read."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], Line] = {}

    def __call__(self, run: Invocation) -> None:
        """Add one finished run, if it is an LLM call."""
        if run.operation not in LLM_OPERATIONS:
            return
        key = (run.agent or "", run.request_model or "")
        line = self._lines.get(key, Line())
        usage = run.usage
        self._lines[key] = Line(
            line.calls + 1,
            line.input_tokens + ((usage and usage.input_tokens) or 0),
            line.output_tokens + ((usage and usage.output_tokens) or 0),
            line.cost + (run.cost or 0),
            line.unpriced + run.is_unpriced,
        )

    def lines(self) -> list[tuple[str, str, Line]]:
        """Return agent, requested model and totals, most expensive first."""
        found = [(agent, model, line) for (agent, model), line in dict(self._lines).items()]
        return sorted(found, key=lambda entry: (-entry[2].cost, entry[0], entry[1]))
