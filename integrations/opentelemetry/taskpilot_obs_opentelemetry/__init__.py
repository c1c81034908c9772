"""Records what other libraries state as OpenTelemetry spans: agents, tools and LLM calls of any framework or SDK."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from taskpilot_obs_opentelemetry.bridge import GenAiBridge
from taskpilot_obs_opentelemetry.instrumenting import instrument, uninstrument
from taskpilot_obs_opentelemetry.sampling import RecordAll
from taskpilot_obs_opentelemetry.surveying import Observed, State, survey

AUTOLOAD: Final = Path(__file__).parent / "autoload"
"""The folder for PYTHONPATH with which an application is observed from its start."""

__all__ = [
    "AUTOLOAD",
    "GenAiBridge",
    "Observed",
    "RecordAll",
    "State",
    "instrument",
    "survey",
    "uninstrument",
]
