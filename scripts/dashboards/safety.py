"""Safety: what policies and guardrails saw, refused, would have refused and let through unchecked."""

from __future__ import annotations

from scripts.dashboards import common
from scripts.dashboards.model import Dashboard, Panel, Query, Row
from scripts.dashboards.panels import COUNT, PER_MINUTE, PERCENT, SECONDS, USD, lines, never, stat, stats
from scripts.dashboards.promql import (
    COUNTED_STATUSES,
    RANGE,
    Selector,
    events,
    per_minute,
    quantile,
    share,
    whole,
)
from taskpilot_obs import semconv
from taskpilot_obs.records import CheckResult, Status
from taskpilot_obs.semconv import Label

_select = Selector((Label.WORKFLOW, Label.AGENT))
_BY_WORKFLOW = Selector((Label.WORKFLOW,))
"""For shares of runs, which know no agent: both sides must be cut alike."""
_VIOLATIONS = _select(semconv.POLICY_VIOLATIONS)
_BLOCKS = _select(semconv.GUARDRAIL_BLOCKS)
_CHECKS = _select(semconv.GUARDRAIL_CHECKS)
_COUNTED = _BY_WORKFLOW(semconv.WORKFLOW_RUNS, status=COUNTED_STATUSES)
_BLOCKED_COST = _select(semconv.WORKFLOW_COST, status=Status.BLOCKED)
_NO_VIOLATIONS = "No violation recorded"
_NO_CHECKS = "No guardrail checks recorded"
_NO_RUNS = "No runs in this time range"


def _checked(result: CheckResult) -> str:
    return _select(semconv.GUARDRAIL_CHECKS, result=result)


_NOW: tuple[Panel, ...] = (
    stat(
        "Policy violations per 100 runs",
        "Denials by policies, in monitor and in enforce mode, per 100 counted runs; the agent filter does not apply. "
        "Healthy up to 1, critical above 2.",
        share(events(_BY_WORKFLOW(semconv.POLICY_VIOLATIONS)), events(_COUNTED)),
        unit=PERCENT,
        decimals=2,
        steps=common.VIOLATION_STEPS,
        no_value=_NO_RUNS,
    ),
    stat(
        "Runs with violations",
        "Share of the counted runs that had at least one violation: a proportion, unlike the rate beside it.",
        share(events(_BY_WORKFLOW(semconv.WORKFLOW_VIOLATION_RUNS)), events(_COUNTED)),
        unit=PERCENT,
        decimals=2,
        no_value=_NO_RUNS,
    ),
    stat(
        "Violations",
        "Denials by policies over the time range, the first ever included.",
        whole(events(_VIOLATIONS)),
        unit=COUNT,
        no_value=_NO_VIOLATIONS,
    ),
    stat(
        "Money spent on blocked runs",
        "USD of the LLM calls of runs that ended blocked over the time range: paid for, and refused.",
        events(_BLOCKED_COST),
        unit=USD,
        decimals=2,
        no_value="No finished run",
    ),
    stat(
        "Blocked by guardrails",
        "Inputs and outputs that a guardrail really blocked over the time range.",
        whole(events(_BLOCKS)),
        unit=COUNT,
        no_value="No block recorded",
    ),
    stat(
        "Would have been blocked",
        "Checks of guardrails in monitor mode that found something: what enforcing would have refused.",
        whole(events(_checked(CheckResult.WOULD_BLOCK))),
        unit=COUNT,
        no_value="No such check recorded",
    ),
    stat(
        "Let through unchecked",
        "Checks that failed and were set to let the text pass (fail-open). Each is a hole; healthy is none.",
        whole(events(_checked(CheckResult.BYPASSED))),
        unit=COUNT,
        steps=never(),
        no_value="No such check recorded",
    ),
    stat(
        "Failed checks",
        "Checks that failed themselves. Healthy is none.",
        whole(events(_checked(CheckResult.ERROR))),
        unit=COUNT,
        steps=never(),
        no_value="No such check recorded",
    ),
)

_POLICIES: tuple[Panel, ...] = (
    lines(
        "Violations per minute, by policy",
        "Which policy denies: one alone is a rule to look at, all at once is a change of traffic.",
        Query(per_minute(_VIOLATIONS, Label.POLICY), "{{policy}}"),
        unit=PER_MINUTE,
        no_value=_NO_VIOLATIONS,
    ),
    lines(
        "Violations per minute, by agent",
        "Whose text or tool call is denied.",
        Query(per_minute(_VIOLATIONS, Label.AGENT), "{{agent}}"),
        unit=PER_MINUTE,
        no_value=_NO_VIOLATIONS,
    ),
    lines(
        "Violations per minute, by severity",
        "Severity as the policy declares it.",
        Query(per_minute(_VIOLATIONS, Label.SEVERITY), "{{severity}}"),
        unit=PER_MINUTE,
        stacked=True,
        no_value=_NO_VIOLATIONS,
    ),
    lines(
        "Decisions per minute, by policy and decision",
        "All decisions, those that allow included: a policy whose line ends is no longer asked.",
        Query(
            per_minute(_select(semconv.POLICY_DECISIONS), f"{Label.POLICY}, {Label.DECISION}"),
            "{{policy}} {{decision}}",
        ),
        unit=PER_MINUTE,
        width=12,
        no_value="No decision recorded",
    ),
    lines(
        "Cost per hour of runs, by how they ended",
        "Roll-up of finished runs. The part of blocked runs is money spent on work that was refused.",
        Query(f"60 * {per_minute(_select(semconv.WORKFLOW_COST), Label.STATUS)}", "{{status}}"),
        unit=USD,
        stacked=True,
        width=12,
        no_value="No finished run with a cost",
    ),
)

_GUARDRAILS: tuple[Panel, ...] = (
    lines(
        "Blocks per minute, by guardrail and stage",
        "input: what came in was refused; output: what the model said was withheld.",
        Query(per_minute(_BLOCKS, f"{Label.GUARDRAIL}, {Label.STAGE}"), "{{guardrail}} {{stage}}"),
        unit=PER_MINUTE,
        no_value="No block recorded",
    ),
    lines(
        "Would-block and bypassed per minute, by guardrail",
        "would_block: found in monitor mode. bypassed: the check failed and the text passed.",
        Query(
            per_minute(
                _select(semconv.GUARDRAIL_CHECKS, result=f"{CheckResult.WOULD_BLOCK}|{CheckResult.BYPASSED}"),
                f"{Label.GUARDRAIL}, {Label.RESULT}",
            ),
            "{{guardrail}} {{result}}",
        ),
        unit=PER_MINUTE,
        no_value="No such check recorded",
    ),
    lines(
        "Checks per minute, by result",
        "Everything that guardrails looked at.",
        Query(per_minute(_CHECKS, Label.RESULT), "{{result}}"),
        unit=PER_MINUTE,
        stacked=True,
        no_value=_NO_CHECKS,
    ),
    lines(
        "Check duration: p95 by guardrail",
        "What a guardrail adds to every call that it checks.",
        Query(
            quantile(0.95, _select(semconv.GUARDRAIL_CHECK_DURATION, "_bucket"), by=Label.GUARDRAIL), "{{guardrail}}"
        ),
        unit=SECONDS,
        width=24,
        no_value=_NO_CHECKS,
    ),
)

_EXPERIMENTS: tuple[Panel, ...] = (
    stats(
        "Experiments stopped by a guardrail",
        "Guardrails that a variant broke with certainty, by measure, one for each process that stopped the experiment. "
        "The filters for workflow and agent do not apply.",
        Query(
            whole(
                events(
                    Selector(())(semconv.EXPERIMENT_GUARDRAILS_BROKEN),
                    RANGE,
                    f"{Label.EXPERIMENT}, {Label.VARIANT}, {Label.MEASURE}",
                )
            ),
            "{{experiment}}: {{variant}}, {{measure}}",
            instant=True,
        ),
        unit=COUNT,
        no_value="No experiment was stopped in this time range",
        width=24,
    ),
)

DASHBOARD = Dashboard(
    uid="taskpilot-safety",
    title="taskpilot / Safety",
    description="Policies and guardrails: what was denied, blocked, only noticed, and let through unchecked.",
    variables=common.variables(Label.WORKFLOW, Label.AGENT),
    rows=(
        Row("Over the time range", _NOW),
        Row("Policies", _POLICIES),
        Row("Guardrails", _GUARDRAILS),
        Row("Experiments", _EXPERIMENTS),
    ),
    annotations=common.marks(),
)
