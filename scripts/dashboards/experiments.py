"""Experiments: what each variant does, costs and is worth to its users. Verdicts come from `taskpilot-obs compare`."""

from __future__ import annotations

from scripts.dashboards import common
from scripts.dashboards.model import Dashboard, Panel, Query, Row
from scripts.dashboards.panels import COUNT, PERCENT, SECONDS, USD, stats
from scripts.dashboards.promql import COUNTED_STATUSES, RANGE, Selector, events, quantile, share, whole
from taskpilot_obs import semconv
from taskpilot_obs.records import Status
from taskpilot_obs.semconv import Label

_select = Selector((Label.EXPERIMENT,))
_BY = f"{Label.EXPERIMENT}, {Label.VARIANT}"
_LEGEND = "{{experiment}}: {{variant}}"
_NONE = "No task of an experiment in this time range"
_RUNS = _select(semconv.EXPERIMENT_RUNS)
_COUNTED = _select(semconv.EXPERIMENT_RUNS, status=COUNTED_STATUSES)
_SUCCESSES = _select(semconv.EXPERIMENT_RUNS, status=Status.SUCCESS)
_COST = _select(semconv.EXPERIMENT_COST)
_FEEDBACK = _select(semconv.EXPERIMENT_FEEDBACK)
_CORRECT = _select(semconv.EXPERIMENT_FEEDBACK, verdict=semconv.VERDICTS[0])
_WARNING = "Differences that you see here may be chance: `taskpilot-obs compare` says which are not."

_VARIANTS: tuple[Panel, ...] = (
    stats(
        "Finished tasks",
        "Over the time range, by the variant that they were assigned. The numbers should stand in the planned ratio.",
        Query(whole(events(_RUNS, RANGE, _BY)), _LEGEND, instant=True),
        unit=COUNT,
        no_value=_NONE,
        width=12,
    ),
    stats(
        "Success rate",
        f"Tasks that succeeded, of those that count. {_WARNING}",
        Query(share(events(_SUCCESSES, RANGE, _BY), events(_COUNTED, RANGE, _BY), _BY), _LEGEND, instant=True),
        unit=PERCENT,
        no_value=_NONE,
        decimals=1,
        width=12,
    ),
    stats(
        "Duration, p95",
        f"95 % of the tasks took no longer, interpolated within a bucket. {_WARNING}",
        Query(quantile(0.95, _select(semconv.EXPERIMENT_DURATION, "_bucket"), RANGE, _BY), _LEGEND, instant=True),
        unit=SECONDS,
        no_value=_NONE,
        width=12,
    ),
    stats(
        "Cost of a successful task",
        f"USD of LLM calls with a known price, by successful tasks. {_WARNING}",
        Query(f"{events(_COST, RANGE, _BY)} / ({events(_SUCCESSES, RANGE, _BY)} > 0)", _LEGEND, instant=True),
        unit=USD,
        no_value=_NONE,
        width=12,
    ),
    stats(
        "Confirmed correct",
        f"Verdicts of users that confirm the answer, of all verdicts. {_WARNING}",
        Query(share(events(_CORRECT, RANGE, _BY), events(_FEEDBACK, RANGE, _BY), _BY), _LEGEND, instant=True),
        unit=PERCENT,
        no_value="No verdict in this time range",
        width=12,
        decimals=1,
    ),
)

_GUARDRAILS: tuple[Panel, ...] = (
    stats(
        "Broken guardrails",
        "Guardrails that a variant was found to break with certainty, by measure: the process that found it gives every"
        " user the control. Over the time range, one for each process.",
        Query(
            whole(events(_select(semconv.EXPERIMENT_GUARDRAILS_BROKEN), RANGE, f"{_BY}, {Label.MEASURE}")),
            "{{experiment}}: {{variant}}, {{measure}}",
            instant=True,
        ),
        unit=COUNT,
        no_value="No guardrail was broken in this time range",
        width=24,
    ),
)

DASHBOARD = Dashboard(
    uid="taskpilot-experiments",
    title="taskpilot / Experiments",
    description="Variants of experiments side by side: tasks, success, duration, cost, correctness.",
    variables=common.variables(Label.EXPERIMENT),
    rows=(Row("Variants", _VARIANTS), Row("Guardrails", _GUARDRAILS)),
    annotations=common.marks(),
)
