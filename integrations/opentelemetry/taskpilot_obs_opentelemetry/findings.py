"""What `taskpilot-obs doctor` reports: which SDKs and frameworks of this environment can be observed."""

from __future__ import annotations

from typing import Final

from taskpilot_obs.doctor import Finding, Level
from taskpilot_obs_opentelemetry.surveying import Observed, State, survey

_REMEDIES: Final = {
    State.AVAILABLE: "call instrument() of taskpilot_obs_opentelemetry, or start it by: taskpilot-obs run -- python …",
    State.REFUSED: "pin a version that works, wrap its client, or decorate the functions that call it",
}


def check() -> list[Finding]:
    """One finding for each SDK or framework that is installed."""
    return [_finding(one) for one in survey()]


def _finding(one: Observed) -> Finding:
    text = f"{one.name} {one.version}: {one.text}"
    if one.state in (State.ON, State.AVAILABLE, State.BY_HAND):
        return Finding("observed", Level.OK, text, _REMEDIES.get(one.state, ""))
    return Finding("observed", Level.WARNING, text, _REMEDIES.get(one.state, one.text))
