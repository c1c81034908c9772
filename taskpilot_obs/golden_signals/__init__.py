"""The five golden signals: what they are, and how each surface is read.

`evidence` defines the input counts, `assess` defines the signals, and each `from_*` module reads evidence from one
source: this process' rolling window, an exposition (a registry, the files of a multi-process
deployment, a `/metrics` URL), a Prometheus server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskpilot_obs._support.late_names import late_names

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

__getattr__ = late_names(__name__, _HOMES)
"""The models take longer to import than all the rest of the library."""
