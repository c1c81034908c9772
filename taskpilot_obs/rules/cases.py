"""How the unit tests of the alert rules are stated, and the `tests.yml` that promtool runs.

A scenario is a handful of series and what must fire when. Figures that are expected stand in it as text, worked out by
hand; nothing of the renderer is asked for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib import import_module
from typing import NamedTuple
from urllib.parse import quote_plus

from taskpilot_obs.rules.model import AlertKind
from taskpilot_obs.rules.series import absent, ramp, steady, then

RUNBOOKS = "https://github.com/taskpilot-obs/taskpilot-obs/blob/main/observability/prometheus/rules"
DASHBOARDS = "http://localhost:3000/d"


class Case(StrEnum):
    """What a scenario proves of the alerts that it names."""

    FIRES = "fires"
    FIRST_EVENT = "fires on the very first event"
    THIN = "stays silent on too little evidence"
    HEALTHY = "stays silent when healthy"
    RESOLVES = "resolves after recovery"
    RESET = "survives a counter reset"
    LOW_TRAFFIC = "works at two runs an hour"
    HIGH_TRAFFIC = "works at two thousand runs a second"
    LEVELS = "speaks at the right level"


REQUIRED: dict[AlertKind, frozenset[Case]] = {
    AlertKind.RATIO: frozenset({Case.FIRES, Case.THIN, Case.HEALTHY, Case.RESOLVES, Case.RESET}),
    AlertKind.LATENCY: frozenset({Case.FIRES, Case.THIN, Case.HEALTHY, Case.RESOLVES, Case.RESET}),
    AlertKind.SPEND: frozenset({Case.FIRES, Case.THIN, Case.HEALTHY, Case.RESOLVES, Case.RESET}),
    AlertKind.EVENT: frozenset({Case.FIRES, Case.FIRST_EVENT, Case.HEALTHY, Case.RESOLVES, Case.RESET}),
    AlertKind.TELEMETRY: frozenset({Case.FIRES, Case.FIRST_EVENT, Case.HEALTHY, Case.RESOLVES, Case.RESET}),
    # A gauge or a missing series: nothing to reset; too little evidence means that it does not last.
    AlertKind.META: frozenset({Case.FIRES, Case.HEALTHY, Case.RESOLVES}),
    AlertKind.HEARTBEAT: frozenset({Case.FIRES}),
    AlertKind.ABSENCE: frozenset({Case.FIRES, Case.THIN, Case.HEALTHY, Case.RESOLVES}),
}
"""The cases that each kind of alert must have."""


class Fired(NamedTuple):
    """One alert, exactly as it must arrive."""

    alert: str
    folder: str
    labels: dict[str, str]
    summary: str
    description: str


class At(NamedTuple):
    """What is so at one moment after the start: these alerts fire exactly so, and those not at all."""

    time: str
    fired: tuple[Fired, ...] = ()
    quiet: tuple[str, ...] = ()


class Scenario(NamedTuple):
    """Series, and what they must lead to."""

    case: Case
    title: str
    series: dict[str, str]
    checks: tuple[At, ...]

    @property
    def alerts(self) -> set[str]:
        """The alerts of which it proves something."""
        return {name for check in self.checks for name in (*check.quiet, *(fired.alert for fired in check.fired))}


def scenario(case: Case, title: str, series: dict[str, str], *checks: At) -> Scenario:
    """A scenario, its checks in turn."""
    return Scenario(case, title, series, checks)


def resolves(title: str, series: dict[str, str], fired: tuple[Fired, ...]) -> Scenario:
    """What fires after two hours is over when a good hour follows."""
    over = tuple(each.alert for each in fired)
    return scenario(Case.RESOLVES, title, series, At("2h", fired), At("3h10m", quiet=over))


class Expected:
    """The alerts of a folder as they must arrive; `<figure>` in their texts stands for the figure that fires them.

    Args:
        folder: the folder of rules.
        labels: what all of these alerts have, beside the job.
    """

    def __init__(self, folder: str, **labels: str) -> None:
        self._folder = folder
        self._labels = {"job": "shop", **labels}

    def __call__(
        self, alert: str, severity: str, signal: str, summary: str, description: str, **labels: str
    ) -> Callable[[object], tuple[Fired]]:
        """One alert, as a function of its figure."""
        named = {"severity": severity, "signal": signal, **self._labels, **labels}

        def fired(figure: object) -> tuple[Fired]:
            texts = (text.replace("<figure>", str(figure)) for text in (summary, description))
            return (Fired(alert, self._folder, named, *texts),)

        return fired


def events(
    series: str, fired: Callable[[object], tuple[Fired]], *, other: str = "", minutes: int = 60
) -> tuple[Scenario, ...]:
    """The cases of an alert that a single event fires.

    Args:
        series: the counter of these events.
        fired: what must arrive, as a function of their number.
        other: a counter like it that must not fire the alert.
        minutes: how far the alert looks back.
    """
    one, three = fired(1), fired(3)
    none = (one[0].alert,)
    beside = {other: ramp((5, 120))} if other else {}
    restarting = {name: then(steady(50, 60), steady(0, 60)) for name in (series, other) if name}
    return (
        scenario(Case.FIRES, "three events", {series: then(steady(0, 30), steady(3, 30))}, At("40m", three)),
        scenario(
            Case.FIRST_EVENT,
            "one event, the first ever",
            {series: then(absent(30), steady(1, 30))},
            At("25m", quiet=none),
            At("35m", one),
        ),
        scenario(
            Case.FIRST_EVENT,
            "born at one and gone on to three",
            {series: then(absent(30), steady(1, 5), steady(3, 20))},
            At("40m", three),
        ),
        scenario(Case.HEALTHY, "no event for long", {series: steady(7, 120)} | beside, At("2h", quiet=none)),
        scenario(
            Case.RESOLVES,
            f"{minutes} minutes after the event",
            {series: then(steady(0, 30), steady(1, minutes + 40))},
            At("40m", one),
            At(f"{minutes + 40}m", quiet=none),
        ),
        scenario(Case.RESET, "the process restarts", restarting, At("1h10m", quiet=none), At("1h30m", quiet=none)),
        scenario(
            Case.RESET,
            "an event after the process restarted",
            {series: then(steady(50, 60), steady(0, 20), steady(1, 40))},
            At("1h25m", one),
        ),
    )


def scenarios_of(folder: str) -> tuple[Scenario, ...]:
    """What the alerts of a folder must do."""
    found: tuple[Scenario, ...] = import_module(f"taskpilot_obs.rules.{folder}.cases").SCENARIOS
    return found


def tests_text(folder: str, scenarios: Sequence[Scenario], groups: Sequence[str], interval: str) -> str:
    """The text of `tests.yml`.

    Args:
        folder: the folder of rules.
        scenarios: what must be so.
        groups: names of the rule groups in the order in which they are to be evaluated.
        interval: time between two evaluations; all offsets in the rules must be multiples of it.
    """
    tests = "".join(_test(folder, scenario) for scenario in scenarios)
    return (
        "# Written by scripts/write_rules.py from the cases.py beside the rules. Run: promtool test rules tests.yml\n"
        "rule_files: [recording.yml, alerts.yml]\n"
        f"evaluation_interval: {interval}\n"
        f"group_eval_order: [{', '.join(groups)}]\n"
        f"tests:\n{tests}"
    )


_TARGET = re.compile(r'(?:^|[{,])(job|instance)="([^"]*)"')


def _known(folder: str, series: dict[str, str]) -> dict[str, str]:
    """What every target has beside the series of a scenario: processes that began with it, and jobs that are old."""
    targets = [dict(_TARGET.findall(name)) for name in series]
    began = {
        f'taskpilot_obs_start_time_seconds{{job="{target["job"]}",instance="{target["instance"]}"}}': "0+0x10000"
        for target in targets
        if target.keys() == {"job", "instance"}
        and not any(name.startswith(("taskpilot_obs_start_time_seconds", "up{")) for name in series)
    }
    seen = {
        f'job:taskpilot_obs_first_seen:timestamp_seconds{{job="{target["job"]}"}}': "-8000000+0x10000"
        for target in targets
        if "job" in target and folder != "telemetry"
    }
    return began | seen


def _test(folder: str, scenario: Scenario) -> str:
    given = scenario.series | _known(folder, scenario.series)
    series = "".join(
        f"      - series: {_quoted(name)}\n        values: {_quoted(text)}\n" for name, text in given.items()
    )
    checks = "".join(_checks(check) for check in scenario.checks)
    return (
        f"  - name: {_quoted(f'{scenario.title}: {scenario.case}')}\n"
        "    interval: 1m\n"
        + (f"    input_series:\n{series}" if series else "    input_series: []\n")
        + f"    alert_rule_test:\n{checks}"
    )


def _checks(check: At) -> str:
    by_alert: dict[str, list[Fired]] = {name: [] for name in check.quiet}
    for fired in check.fired:
        by_alert.setdefault(fired.alert, []).append(fired)
    return "".join(_check(check.time, alert, fired) for alert, fired in by_alert.items())


def _check(time: str, alert: str, fired: Sequence[Fired]) -> str:
    head = f"      - eval_time: {time}\n        alertname: {alert}\n"
    if not fired:
        return head + "        exp_alerts: []\n"
    return head + "        exp_alerts:\n" + "".join(_expected(item) for item in fired)


def _chosen(item: Fired) -> str:
    """The job in the link to a dashboard."""
    return quote_plus(item.labels.get("job", ""))


def _expected(item: Fired) -> str:
    annotations = {
        "summary": item.summary,
        "description": item.description,
        "runbook_url": f"{RUNBOOKS}/{item.folder}/runbook.md#{item.alert.lower()}",
        "dashboard_url": f"{DASHBOARDS}/taskpilot-{item.folder.replace('_', '-')}?var-job={_chosen(item)}",
    }
    labels = "".join(f"              {name}: {_quoted(value)}\n" for name, value in item.labels.items())
    texts = "".join(f"              {name}: {_quoted(value)}\n" for name, value in annotations.items())
    return f"          - exp_labels:\n{labels}            exp_annotations:\n{texts}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
