"""The curves: what is measured, as a function of what, and how far it may rise."""

from __future__ import annotations

from typing import Final, NamedTuple

FIGURES: Final = {
    "cost": "Cost per call",
    "memory": "Memory",
    "scrape": "Scrape time",
    "rules": "Rule evaluation",
    "questions": "Question time",
}
"""Parts of the measurement, and pictures."""


class Limit(NamedTuple):
    """A value that a curve should not reach, and what happens there."""

    value: float
    meaning: str


class Curve(NamedTuple):
    """One measurement at several sizes."""

    figure: str
    """Which of `FIGURES` it belongs to."""
    name: str
    """Unique within its figure."""
    of: str
    """What is measured."""
    over: str
    """What it is a function of: agents, tenants, workers, replicas, series, rows, retention or calls made."""
    sizes: tuple[int, ...]
    unit: str
    each: bool = False
    """Whether the value is the cost of one of n events, so that log n is what n log n allows."""
    limit: Limit | None = None

    @property
    def key(self) -> str:
        """How the results name it."""
        return f"{self.figure}/{self.name}"


_DECADES: Final = (10, 100, 1_000, 10_000)
_PAIRS: Final = (0, 1, 10, 2_000)
"""Pairs of agent and model; the number of series is measured."""
_FROM_ONE: Final = (1, 10, 100, 1_000)
_MORE_PAIRS: Final = (1, 10, 100, 2_000)
"""Pairs, with series that the application adds, because ours are bounded in one process."""
_ROWS: Final = (300, 3_000, 30_000, 300_000)
_CALLS: Final = (100, 1_000, 10_000, 100_000)
_TIMEOUT: Final = Limit(10_000.0, "Prometheus gives up a scrape after 10 s")
_SUMMARIES: Final = Limit(150.0, "the bar of a question over 30 days")
_EVALUATED: Final = Limit(60_000.0, "an evaluation takes longer than its interval of 1 min")
_CONTAINER: Final = Limit(512.0, "a container of 512 MB")

_RUN: Final = "a run with an LLM call, all of it"
_BOOKED: Final = "booking a run, a tool and an LLM call"
_WRITTEN: Final = "writing a call into SQLite"
_USED: Final = "a process after 20,000 runs"
_SCRAPED: Final = "a process that was scraped"
_SCRAPE: Final = "a scrape of a process"
_EVALUATION: Final = "all shipped rules once"
_30D: Final = 'get_stats("30d")'

_COST: Final = (
    Curve("cost", "agents", _RUN, "agents", (1, *_DECADES), "µs", each=True),
    Curve("cost", "tenants", _RUN, "tenants", (1, *_DECADES), "µs", each=True),
    Curve("cost", "series", _BOOKED, "series", _MORE_PAIRS, "µs", each=True),
    Curve("cost", "workers", _BOOKED, "workers", _FROM_ONE, "µs", each=True),
    Curve("cost", "rows", _WRITTEN, "rows", _ROWS, "µs", each=True),
    Curve("cost", "retention", _WRITTEN, "retention", _FROM_ONE, "µs", each=True),
)
_MEMORY: Final = (
    Curve("memory", "agents", _USED, "agents", _DECADES, "MB", limit=_CONTAINER),
    Curve("memory", "tenants", _USED, "tenants", _DECADES, "MB", limit=_CONTAINER),
    Curve("memory", "calls", "a process after calls of as many users", "calls", _CALLS, "MB", limit=_CONTAINER),
    Curve("memory", "series", _SCRAPED, "series", _PAIRS, "MB", limit=_CONTAINER),
    Curve("memory", "workers", _SCRAPED, "workers", _FROM_ONE, "MB", limit=_CONTAINER),
    Curve("memory", "replicas", "Prometheus with the shipped rules", "replicas", _FROM_ONE, "MB"),
    Curve("memory", "rows", f"a process that asked {_30D}", "rows", _ROWS, "MB", limit=_CONTAINER),
    Curve("memory", "retention", "a process that asked for all days", "retention", _FROM_ONE, "MB", limit=_CONTAINER),
)
_SCRAPES: Final = (
    Curve("scrape", "agents", _SCRAPE, "agents", _DECADES, "ms", limit=_TIMEOUT),
    Curve("scrape", "tenants", _SCRAPE, "tenants", _DECADES, "ms", limit=_TIMEOUT),
    Curve("scrape", "series", _SCRAPE, "series", _PAIRS, "ms", limit=_TIMEOUT),
    Curve("scrape", "workers", "a scrape of all workers", "workers", _FROM_ONE, "ms", limit=_TIMEOUT),
    Curve("scrape", "ended", "merging the files of one worker that has ended", "workers", _FROM_ONE, "ms", each=True),
)
_RULES: Final = (
    Curve("rules", "agents", _EVALUATION, "agents", _FROM_ONE, "ms", limit=_EVALUATED),
    Curve("rules", "replicas", _EVALUATION, "replicas", _FROM_ONE, "ms", limit=_EVALUATED),
    Curve("rules", "series", _EVALUATION, "series", _FROM_ONE, "ms", limit=_EVALUATED),
    Curve("rules", "retention", _EVALUATION, "retention", _FROM_ONE, "ms", limit=_EVALUATED),
)
_QUESTIONS: Final = (
    Curve("questions", "rows", _30D, "rows", _ROWS, "ms", limit=_SUMMARIES),
    Curve("questions", "agents", f"{_30D} over 30,000 calls", "agents", _DECADES, "ms", limit=_SUMMARIES),
    Curve("questions", "tenants", f"{_30D} over 30,000 calls", "tenants", _DECADES, "ms", limit=_SUMMARIES),
    Curve("questions", "series", f"{_30D} over 30,000 calls", "series", _DECADES, "ms", limit=_SUMMARIES),
    Curve("questions", "retention", _30D, "retention", _FROM_ONE, "ms", limit=_SUMMARIES),
    Curve("questions", "all_days", "get_stats over all days", "retention", _FROM_ONE, "ms", limit=_SUMMARIES),
)
CURVES: Final = (*_COST, *_MEMORY, *_SCRAPES, *_RULES, *_QUESTIONS)
