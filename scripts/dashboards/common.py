"""What the dashboards share: their variables, the marks on their time axis and the thresholds of the golden signals."""

from __future__ import annotations

from scripts.dashboards.model import Annotation, Variable
from scripts.dashboards.panels import Steps, at_least, at_most
from scripts.dashboards.promql import RULE_FILTER, TARGET_FILTER
from taskpilot_obs import semconv
from taskpilot_obs.semconv import Label, Metric

SUCCESS_RATE_STEPS: Steps = at_least(95, 90)
P95_STEPS: Steps = at_most(2, 5)
"""Seconds; the library states the same limits in milliseconds."""
COST_STEPS: Steps = at_most(0.10, 0.50)
CORRECTNESS_STEPS: Steps = at_least(90, 70)
VIOLATION_STEPS: Steps = at_most(1, 2)

_HOME: dict[str, Metric] = {
    Label.WORKFLOW: semconv.WORKFLOW_RUNS,
    Label.AGENT: semconv.AGENT_RUNS,
    Label.MODEL: semconv.LLM_REQUESTS,
    Label.PROVIDER: semconv.LLM_REQUESTS,
    Label.EXPERIMENT: semconv.EXPERIMENT_RUNS,
}
"""Which family knows all values of a label."""


def variables(*labels: str) -> tuple[Variable, ...]:
    """The filters of a dashboard: job and instance, which every dashboard has, and these labels."""
    info = semconv.INFO.name
    return (
        # No "All": figures over unrelated services would be averages of nothing that exists.
        Variable("job", "Job", f"label_values({info}, job)", has_all=False),
        Variable("instance", "Instance", f'label_values({info}{{job=~"$job"}}, instance)'),
        *(
            Variable(label, label.capitalize(), f"label_values({_HOME[label].name}{{{TARGET_FILTER}}}, {label})")
            for label in labels
        ),
    )


def firing() -> str:
    """The alerts that fire; an alert about an absent target has no job of its own, so an empty job matches too."""
    return 'ALERTS{alertstate="firing", job=~"$job|"}'


def marks() -> tuple[Annotation, ...]:
    """Deployments, process starts and alerts as marks on every time axis."""
    versions = f"count by (job, {Label.SERVICE_VERSION}) ({semconv.INFO.name}{{{RULE_FILTER}}}"
    return (
        Annotation(
            "Deployments",
            f"{versions}) unless {versions} offset 10m)",
            "blue",
            "{{job}}: version {{service_version}}",
            "A version that did not run ten minutes before.",
        ),
        Annotation(
            "Process starts",
            f"{semconv.START_TIME.name}{{{TARGET_FILTER}}} * 1000",
            "purple",
            "{{instance}} started",
            "Counters of this process began at 0 here.",
            value_is_time=True,
        ),
        Annotation("Alerts", firing(), "red", "{{alertname}}", "{{severity}} {{workflow}} {{agent}}"),
    )
