"""The five golden signals: what they are, and how each surface is read.

`evidence` is what a surface knows, `assess` is the one definition of the signals, and each `from_*` module turns one
surface into evidence: this process' rolling window, an exposition (a registry, the files of a multi-process
deployment, a `/metrics` URL), a Prometheus server.
"""

from __future__ import annotations

from taskpilot_obs.golden_signals.assess import assess
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.golden_signals.from_window import signals_from_window
from taskpilot_obs.golden_signals.model import GoldenSignals, SignalStatus
from taskpilot_obs.golden_signals.thresholds import Limits, Thresholds

__all__ = [
    "GoldenSignals",
    "Limits",
    "SignalStatus",
    "Thresholds",
    "assess",
    "parse_window",
    "signals_from_window",
]
