"""The five golden signals: what they are, and how each surface is read.

`evidence` defines the input counts, `assess` defines the signals, and each `from_*` module reads evidence from one
source: this process' rolling window, an exposition (a registry, the files of a multi-process
deployment, a `/metrics` URL), a Prometheus server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskpilot_obs.golden_signals.durations import parse_window
    from taskpilot_obs.golden_signals.from_window import signals_from_window
    from taskpilot_obs.golden_signals.model import GoldenSignals, SignalStatus
    from taskpilot_obs.golden_signals.thresholds import Limits, Thresholds

__all__ = [
    "GoldenSignals",
    "Limits",
    "SignalStatus",
    "Thresholds",
    "parse_window",
    "signals_from_window",
]

_HOMES = {
    "GoldenSignals": "model",
    "Limits": "thresholds",
    "SignalStatus": "model",
    "Thresholds": "thresholds",
    "parse_window": "durations",
    "signals_from_window": "from_window",
}


def __getattr__(name: str) -> Any:
    """At first use: the models take longer to import than all the rest of the library."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
