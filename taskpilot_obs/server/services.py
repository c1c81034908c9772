"""The services of a server: its store, Prometheus, budgets, links and clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.http import checked_url
from taskpilot_obs.golden_signals.model import GoldenSignals
from taskpilot_obs.golden_signals.thresholds import Thresholds
from taskpilot_obs.server.caching import Cached
from taskpilot_obs.server.shapes import ExperimentReport
from taskpilot_obs.store import Store

ANSWER_S: Final = 1.0
"""How long an answer of the REST API is cached, so that many readers of one query cost as much as one."""
READY_S: Final = 1.0
"""How long the results of probing the store and Prometheus are cached."""
EXPERIMENT_S: Final = 10.0
"""How long the comparison of an experiment's variants is cached."""
GOLDEN_S: Final = 5.0
"""How long golden signals are cached for probes."""


@dataclass(frozen=True, slots=True)
class Links:
    """Links on the page of a request.

    Args:
        trace: URL of a trace, with `{trace_id}`: `https://jaeger.example/trace/{trace_id}`.
        dashboard: URL of a dashboard: `https://grafana.example/d/taskpilot-llm`.

    Raises:
        ConfigurationError: a link is not an http(s) URL.
    """

    _: KW_ONLY
    trace: str | None = None
    dashboard: str | None = None

    def __post_init__(self) -> None:
        for url in (self.trace, self.dashboard):
            if url is not None:
                checked_url(url.replace("{trace_id}", "0"))
        if self.trace is not None and "{trace_id}" not in self.trace:
            raise ConfigurationError(f"links: trace: given {self.trace!r}; the URL must hold {{trace_id}}")

    def trace_url(self, trace_id: str) -> str | None:
        """Return the URL of a trace; None if none is configured."""
        return None if self.trace is None else self.trace.replace("{trace_id}", quote(trace_id, safe=""))


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """The sources of all answers, shared by all requests."""

    store: Store
    budgets: Sequence[Budget] = ()
    budget_store: Store | None = None
    """Where budgets are kept; None: in `store`."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    prometheus: str | None = None
    links: Links = field(default_factory=Links)
    now: Callable[[], datetime] = _now
    answers: Cached[bytes] = field(default_factory=lambda: Cached(ANSWER_S))
    readiness: Cached[Mapping[str, str]] = field(default_factory=lambda: Cached(READY_S))
    experiments: Cached[ExperimentReport] = field(default_factory=lambda: Cached(EXPERIMENT_S))
    health: Cached[GoldenSignals] = field(default_factory=lambda: Cached(GOLDEN_S))
