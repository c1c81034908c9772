"""Rules of policies and guardrails: surges, severe violations, failed checks, stopped experiments."""

from __future__ import annotations

from typing import Final

from taskpilot_obs import semconv
from taskpilot_obs.records import CheckResult, Severity
from taskpilot_obs.rules.evidence import Watched, known_for, recent_value, stated
from taskpilot_obs.rules.model import Alert, AlertKind, AlertSignal, Recording, RuleGroup
from taskpilot_obs.rules.promql import Count, matcher, number, ratio
from taskpilot_obs.rules.settings import RuleSettings
from taskpilot_obs.rules.wording import OF_JOB, PERCENT, WHOLE, percent
from taskpilot_obs.semconv import Label

_BY_POLICY: Final = (Label.POLICY,)
_BY_GUARDRAIL: Final = (Label.GUARDRAIL,)
_VIOLATIONS: Final = semconv.POLICY_VIOLATIONS.name
_CHECKS: Final = semconv.GUARDRAIL_CHECKS.name
POLICY: Final = "Policy {{ $labels.policy }} of {{ $labels.job }}"
GUARDRAIL: Final = "Guardrail {{ $labels.guardrail }} of {{ $labels.job }}"
EXPERIMENT: Final = "Experiment {{ $labels.experiment }} of {{ $labels.job }}"

VIOLATIONS: Final = Count("policy", "policy_violations", _BY_POLICY, _VIOLATIONS, every=True)
GRAVE: Final = VIOLATIONS._replace(
    name="policy_violations_critical", matchers=(matcher(Label.SEVERITY, Severity.CRITICAL),)
)
CHECKS: Final = Count("guardrail", "guardrail_checks", _BY_GUARDRAIL, _CHECKS)
FAILED_CHECKS: Final = CHECKS._replace(
    name="guardrail_checks_failed",
    matchers=(matcher(Label.RESULT, CheckResult.ERROR),),
    zero_of="guardrail:guardrail_checks",
)
BYPASSED: Final = CHECKS._replace(
    name="guardrail_checks_bypassed", matchers=(matcher(Label.RESULT, CheckResult.BYPASSED),), every=True
)
BLOCKS: Final = Count("guardrail", "guardrail_blocks", (*_BY_GUARDRAIL, Label.STAGE), semconv.GUARDRAIL_BLOCKS.name)

STOPPED: Final = Count(
    "experiment",
    "experiment_guardrails_broken",
    (Label.EXPERIMENT, Label.VARIANT, Label.MEASURE),
    semconv.EXPERIMENT_GUARDRAILS_BROKEN.name,
    every=True,
)


def groups(settings: RuleSettings) -> tuple[RuleGroup, ...]:
    """Recording rules of the folder `safety`."""
    parts = {
        "policies": _policies(settings),
        "guardrails": _guardrails(settings),
        "experiments": STOPPED.rules(settings.scope, ("1h",)),
    }
    return tuple(
        RuleGroup(f"taskpilot-safety-{name}", settings.evaluation_interval, tuple(rules))
        for name, rules in parts.items()
    )


def _policies(settings: RuleSettings) -> list[Recording]:
    return [*VIOLATIONS.rules(settings.scope, settings.fine_windows), *GRAVE.rules(settings.scope, ("1h",))]


def _guardrails(settings: RuleSettings) -> list[Recording]:
    windows = settings.fine_windows
    rules = [rule for count in (CHECKS, FAILED_CHECKS) for rule in count.rules(settings.scope, windows)]
    rules += BYPASSED.rules(settings.scope, ("1h",)) + BLOCKS.rules(settings.scope, ("5m", "1h"))
    rules += [Recording(_errors(window), ratio(FAILED_CHECKS.over(window), CHECKS.over(window))) for window in windows]
    share = settings.safety.guardrail_error_percent / 100
    value = recent_value(settings, _errors, CHECKS.over, settings.safety.guardrail_min_checks, share)
    return [*rules, Recording("guardrail:guardrail_checks:error_ratio_recent", value)]


def _errors(window: str) -> str:
    return f"guardrail:guardrail_checks:error_ratio_rate{window}"


def alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Alerts of the folder `safety`."""
    limits = settings.safety
    grave = AlertSignal("critical_violation", AlertKind.EVENT).critical(
        "TaskpilotCriticalPolicyViolation",
        f"{GRAVE.over('1h')} > 0",
        f"{POLICY} denied {WHOLE} times at severity critical in the last hour",
        f"{POLICY} denied {WHOLE} inputs or tool calls at severity critical in the last hour. The first one counts.",
    )
    token_limit = AlertSignal("token_limit", AlertKind.EVENT).warning(
        "TaskpilotTokenLimitViolations",
        f"{VIOLATIONS.over('1h')}{{{matcher(Label.POLICY, *limits.token_policies)}}} > 0",
        f"Token limit exceeded {WHOLE} times in the last hour: {OF_JOB}",
        f"{POLICY} denied {WHOLE} runs in the last hour that took more tokens than it allows.",
    )
    bypassed = AlertSignal("guardrail_bypassed", AlertKind.EVENT).critical(
        "TaskpilotGuardrailBypassed",
        f"{BYPASSED.over('1h')} > 0",
        f"{GUARDRAIL} let {WHOLE} texts through unchecked in the last hour",
        f"{GUARDRAIL} could not check {WHOLE} texts in the last hour and, being set to fail open, let them pass.",
    )
    return (_surge(settings), grave, token_limit, bypassed, _failing(settings), _stopped())


def _stopped() -> Alert:
    return AlertSignal("experiment_guardrail", AlertKind.EVENT).warning(
        "TaskpilotExperimentStopped",
        f"{STOPPED.over('1h')} > 0",
        f"{EXPERIMENT} was stopped {WHOLE} times in the last hour: variant {{{{ $labels.variant }}}} breaks the"
        " guardrail of {{ $labels.measure }}",
        f"{WHOLE} processes of {OF_JOB} stopped the experiment in the last hour, because"
        " {{ $labels.measure }} of variant {{ $labels.variant }} is worse than its guardrail allows, with certainty."
        " There every user gets the control.",
    )


def _surge(settings: RuleSettings) -> Alert:
    limits = settings.safety
    hour, day = VIOLATIONS.over("1h"), VIOLATIONS.over("1d")
    usual = f"({day} offset 1h / 24 or 0 * {hour})"
    return AlertSignal("violation_surge", AlertKind.RATIO).warning(
        "TaskpilotPolicyViolationSurge",
        f"{hour} >= {limits.surge_min_violations}\nand\n{hour} > {number(limits.surge_factor)} * {usual}\n"
        f"and {known_for(settings.scope, 90_000)}",
        f"{POLICY} denies far more than usual: {WHOLE} times in the last hour",
        f"{POLICY} denied {WHOLE} times in the last hour, more than {number(limits.surge_factor)} times the"
        " hourly mean of the"
        " day before.",
        settings.lasting,
    )


def _failing(settings: RuleSettings) -> Alert:
    limits = settings.safety
    checks = Watched(
        "guardrail:guardrail_checks:error_ratio_recent",
        _errors,
        CHECKS.over,
        FAILED_CHECKS.over,
        limits.guardrail_min_checks,
        outright=True,
        fault=limits.guardrail_error_percent / 100,
    )
    return AlertSignal("guardrail_errors", AlertKind.RATIO).warning(
        "TaskpilotGuardrailErrors",
        checks.holds(f"> {number(limits.guardrail_error_percent / 100)}", settings.evidence),
        f"{GUARDRAIL} fails in {PERCENT} of its checks (above {percent(limits.guardrail_error_percent)})",
        f"{PERCENT} of the checks of this guardrail raised an error,"
        f" {stated(settings.recent_windows, settings, limits.guardrail_min_checks, 'checks')}.",
        settings.lasting,
    )
