"""When a threshold alert may speak: on enough events, bad ones among them, and only while they go on.

A value over "the shortest window with enough events" alone would fire again at night, when less traffic makes the
window longer until it reaches an incident that is over. So an alert needs bad events in the last hour as well, and a
good value over the last minutes acquits. The acquittal holds for the rest of the hour, because otherwise an evening
without traffic would leave the incident as the last thing that is known; only new bad events end it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

from taskpilot_obs.rules.promql import RuleScope, number, recent, seconds
from taskpilot_obs.rules.settings import EvidenceThresholds, RuleSettings
from taskpilot_obs.rules.wording import evidence

FIRST_SEEN = "job:taskpilot_obs_first_seen:timestamp_seconds"
"""Recorded with the telemetry: since when the rules know a job."""


class AlertWindows(NamedTuple):
    """The windows that an alert looks at besides that of its value."""

    acquitting: str
    recent: str
    longer: str
    step: str
    """How far apart past acquittals are looked for."""


RUNS = AlertWindows("5m", "1h", "6h", "1m")
"""For whatever happens with each run."""
VERDICTS = AlertWindows("1h", "6h", "1d", "10m")
"""For feedback of users, which is rarer."""


class Watched(NamedTuple):
    """A recorded value and the events that it rests on."""

    value: str
    """Record of the value over the shortest window with enough events."""
    over: Callable[[str], str]
    """Record of the value over one window."""
    total: Callable[[str], str]
    """Expression of all events in a window."""
    bad: Callable[[str], str]
    """Expression of the bad ones."""
    min_events: int
    outright: bool = False
    """Whether events that are all bad suffice, however few (two at least)."""
    windows: AlertWindows = RUNS
    share: float = 0.1
    """The smallest share of bad events that an alert on the value is about: a small one takes many events to see."""
    fault: float = 0.1
    """The share of bad events from which on the value is bad."""

    def holds(self, condition: str, needed: EvidenceThresholds) -> str:
        """The value where it meets the condition, on enough bad events, and still.

        Args:
            condition: a comparison, such as `< 0.9`.
            needed: how many events it takes.
        """
        acquitting, now, longer, _ = self.windows
        bad, total, least = self.bad(now), self.total(now), needed.min_bad
        few = f"{bad} >= {least - 1} and {total} < {self.min_events} and {self.bad(longer)} >= {least}"
        enough = f"{self.value} {condition}\n  and ({bad} >= {least} or {few})"
        if self.outright:
            enough += f"\n  or\n  {self.over(now)} {condition} and {bad} >= {least - 1} and {bad} >= 0.99 * {total}"
        value, events = self.over(acquitting), self.total(acquitting)
        recovery = Recovery(
            enough_good(events, self.share, needed),
            enough_good(events, self.fault, needed),
            f"{value} {condition}",
            f"{self.bad(acquitting)} >= {least}",
        )
        return f"(\n  {enough}\n)\n{recovery.ends(self.windows)}"


def enough_good(events: str, share: float, needed: EvidenceThresholds) -> str:
    """Condition of enough events to acquit: a fault of this share would have shown three bad ones among them."""
    return f"{events} >= {needed.acquitting_events} and {events} * {number(share)} >= 3"


class Recovery(NamedTuple):
    """What the last minutes must show to end an incident that longer windows still hold."""

    enough: str
    """Condition of enough events to end it while they go on."""
    convincing: str
    """Condition of enough events to end it for good."""
    bad: str
    """Condition of a bad value."""
    again: str
    """Condition of enough bad events for a new incident."""

    def ends(self, windows: AlertWindows = RUNS) -> str:
        """The end of an expression that does not hold from the recovery on, until the last minutes are bad again."""
        before = f"max_over_time(({self.convincing} unless {self.bad})[{windows.recent}:{windows.step}])"
        return (
            f"unless\n"
            f"(\n"
            f"  ({self.enough} unless {self.bad})\n"
            f"  or\n"
            f"  ({before} unless ({self.bad} and {self.again}))\n"
            f")"
        )


def recent_value(
    settings: RuleSettings,
    value: Callable[[str], str],
    events: Callable[[str], str],
    min_events: int,
    share: float = 0.1,
) -> str:
    """The value over the shortest window with enough events; the first of them, minutes long, needs more.

    Args:
        settings: the windows, and how many events the first takes at least.
        value: record of the value over a window.
        events: expression of the events in a window.
        min_events: how many events the other windows take.
        share: the smallest share of bad events that an alert is about; the first window must hold 20 such events.
    """
    fast = (settings.evidence.fast_window, max(settings.evidence.fast_min_events, min_events, ceil(20 / share)))
    windows = [fast, *((window, min_events) for window in settings.recent_windows)]
    return recent([(value(window), events(window), least) for window, least in windows])


def known_for(scope: RuleScope, window: str | int) -> str:
    """Right side of an `and`: jobs that the rules have known for that long (a duration, or seconds)."""
    length = window if isinstance(window, int) else seconds(window)
    return f"on ({scope.by()}) (time() - {FIRST_SEEN} >= {length})"


def history_share(scope: RuleScope, period: str) -> str:
    """How much of a period the rules have known each job, 0 to 1, to multiply by."""
    return f"on ({scope.by()}) group_left () clamp_max((time() - {FIRST_SEEN}) / {seconds(period)}, 1)"


def stated(windows: Sequence[str], settings: RuleSettings, min_events: int, what: str) -> str:
    """Which window a recent value covers, for descriptions."""
    return evidence((settings.evidence.fast_window, *windows), min_events, what)
