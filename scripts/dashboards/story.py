"""Who does what in the sample data: how often each child of each family counts, in calm and during the incident."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import NamedTuple

from taskpilot_obs import semconv
from taskpilot_obs.records import CheckResult, Status, Verdict
from taskpilot_obs.semconv import FIXED_VALUES, Label, Metric


class Child(NamedTuple):
    """One child of a family: label values, and events a minute (level, for a gauge) in calm and in the storm."""

    values: tuple[str, ...]
    calm: float
    storm: float
    median_calm: float = 0.0
    median_storm: float = 0.0
    declared: bool = True
    """Known ahead, so it exists at 0; otherwise it is born with its first event."""
    is_money: bool = False


class Work(NamedTuple):
    """One agent's part in a workflow."""

    workflow: str
    agent: str
    tool: str
    model: str
    provider: str
    runs: float
    """A minute."""
    call_s: float
    """Median duration of an LLM call."""
    call_usd: float


WORK = (
    Work("research", "research.planner", "web_search", "gpt-4o", "openai", 24, 0.35, 0.017),
    Work("research", "research.writer", "vector_search", "claude-sonnet-4-5", "anthropic", 24, 0.4, 0.027),
    Work("support", "support.triage", "crm_lookup", "gpt-4o-mini", "openai", 56, 0.15, 0.0011),
    Work("support", "support.answerer", "vector_search", "claude-sonnet-4-5", "anthropic", 56, 0.3, 0.016),
    Work("reporting", "reporting.analyst", "sql_query", "gemini-2.5-pro", "gcp.gemini", 20, 0.6, 0.03),
    Work("reporting", "reporting.redactor", "pdf_export", "in-house-7b", "vllm", 20, 0.5, 0.0),
)
STORMY = "anthropic"
SLOWDOWN = 5.0
CALLS_PER_RUN = 2.0
WORKFLOWS = {work.workflow: work for work in WORK}
TIMES = {"research": 0.7, "support": 0.6, "reporting": 0.75}
"""Median duration of a workflow in seconds."""

# What the rules would fire on this story; Prometheus does not back-fill alerts, so they are written down.
ALERTS = (
    {"alertname": "TaskpilotSuccessRateCritical", "severity": "critical", "workflow": "research"},
    {"alertname": "TaskpilotSuccessRateCritical", "severity": "critical", "workflow": "support"},
    {"alertname": "TaskpilotLatencyCritical", "severity": "critical", "workflow": "research"},
    {"alertname": "TaskpilotLatencyCritical", "severity": "critical", "workflow": "support"},
    {"alertname": "TaskpilotLLMProviderFailing", "severity": "critical", "provider": STORMY, "explains": "failed_runs"},
    {"alertname": "TaskpilotLLMRetriesHigh", "severity": "warning", "provider": STORMY},
)

_CALM = {
    Status.SUCCESS: 0.974,
    Status.ERROR: 0.008,
    Status.TIMEOUT: 0.004,
    Status.BLOCKED: 0.005,
    Status.CANCELLED: 0.006,
    Status.ABANDONED: 0.002,
    Status.INTERRUPTED: 0.001,
}
_STORM = _CALM | {Status.SUCCESS: 0.726, Status.ERROR: 0.15, Status.TIMEOUT: 0.11}


def _stormy(work: Work) -> bool:
    return work.provider == STORMY


def _hit(workflow: str) -> bool:
    return any(_stormy(work) for work in WORK if work.workflow == workflow)


def _ends(prefix: tuple[str, ...], rate: float, *, hit: bool, suffix: tuple[str, ...] = ()) -> Iterator[Child]:
    """One child per status."""
    after = _STORM if hit else _CALM
    for status in Status:
        yield Child((*prefix, *suffix, status), rate * _CALM[status], rate * after[status])


def _workflow_runs() -> Iterator[Child]:
    for name, work in WORKFLOWS.items():
        yield from _ends((name,), work.runs, hit=_hit(name))


def _workflow_seconds() -> Iterator[Child]:
    for name, work in WORKFLOWS.items():
        slow = SLOWDOWN if _hit(name) else 1.0
        yield Child((name,), work.runs, work.runs, TIMES[name], TIMES[name] * slow)


def _workflow_cost() -> Iterator[Child]:
    for name, first in WORKFLOWS.items():
        each = sum(work.call_usd * CALLS_PER_RUN for work in WORK if work.workflow == name)
        for child in _ends((name,), first.runs, hit=_hit(name)):
            yield child._replace(calm=child.calm * each, storm=child.storm * each, is_money=True)


def _agent_runs() -> Iterator[Child]:
    for work in WORK:
        yield from _ends((work.agent,), work.runs, hit=_stormy(work))


def _timed(key: Callable[[Work], tuple[str, ...]], rate: float, seconds: float) -> Iterator[Child]:
    """A duration per key; `rate` and `seconds` multiply those of the agent's calls. Work with one key adds up."""
    grouped: dict[tuple[str, ...], list[Work]] = {}
    for work in WORK:
        grouped.setdefault(key(work), []).append(work)
    for values, works in grouped.items():
        runs = rate * sum(work.runs for work in works)
        median = seconds * works[0].call_s
        yield Child(values, runs, runs, median, median * (SLOWDOWN if _stormy(works[0]) else 1.0))


def _tool_calls() -> Iterator[Child]:
    for work in WORK:
        yield from _ends((work.agent, work.tool), 1.5 * work.runs, hit=False)


def _llm_requests() -> Iterator[Child]:
    for work in WORK:
        yield from _ends((work.agent, work.model, work.provider), CALLS_PER_RUN * work.runs, hit=_stormy(work))


def _llm_errors() -> Iterator[Child]:
    for work, category in product(WORK, ("rate_limit", "timeout", "server")):
        storm = 0.1 if _stormy(work) else 0.002
        yield Child(
            (work.agent, work.model, work.provider, category), 0.002 * work.runs, storm * work.runs, declared=False
        )


def _llm_tokens() -> Iterator[Child]:
    for work, (kind, tokens) in product(WORK, (("input", 900), ("output", 250))):
        rate = CALLS_PER_RUN * work.runs * tokens
        yield Child((work.agent, work.model, work.provider, kind), rate, rate)


def _llm_cost() -> Iterator[Child]:
    for work in WORK:
        rate = CALLS_PER_RUN * work.runs * work.call_usd
        if rate:
            dearer = 1.6 if _stormy(work) else 1.0
            yield Child((work.agent, work.model, work.provider), rate, rate * dearer, declared=False, is_money=True)


def _rare(calm: float, storm: float, *pools: Iterable[str]) -> Iterator[Child]:
    """The same small rate for every combination, born with its first event."""
    for values in product(*pools):
        yield Child(values, calm, storm, declared=False)


def _per_model(calm: float, storm: float) -> Iterator[Child]:
    """Rates a run, the second for the provider in trouble."""
    for (model, provider), runs in {(work.model, work.provider): work.runs for work in WORK}.items():
        yield Child((model, provider), calm * runs, (storm if provider == STORMY else calm) * runs, declared=False)


def _unpriced() -> Iterator[Child]:
    """The model of one's own is priced, except for some calls to a new version."""
    for work in WORK:
        if not work.call_usd:
            rate = 0.1 * work.runs
            yield Child((work.model, work.provider), rate, rate, declared=False)


def _violations() -> Iterator[Child]:
    for work, (policy, severity) in product(WORK[:4], (("pii_in_output", "high"), ("max_tokens", "medium"))):
        yield Child(
            (work.workflow, work.agent, policy, severity), 0.0008 * work.runs, 0.006 * work.runs, declared=False
        )


def _guardrail_checks() -> Iterator[Child]:
    shares = {
        CheckResult.PASSED: 20.0,
        CheckResult.BLOCKED: 0.1,
        CheckResult.WOULD_BLOCK: 0.25,
        CheckResult.BYPASSED: 0.02,
        CheckResult.ERROR: 0.02,
    }
    for guardrail, stage, result in product(("prompt_injection", "pii"), FIXED_VALUES[Label.STAGE], CheckResult):
        calm = 0.0 if result in {CheckResult.BYPASSED, CheckResult.ERROR} else shares[result]
        yield Child((guardrail, stage, result), calm, shares[result])


def _feedback() -> Iterator[Child]:
    yield Child(("correct",), 1.4, 1.0)
    yield Child(("incorrect",), 0.1, 0.35)


_AGENTS = tuple(work.agent for work in WORK)
_EXPORTERS = ("prometheus", "window", "audit_log")

_EXPERIMENT = "planner-prompt"
_VARIANTS = (("v1", 0.04), ("v2", 0.02))
"""Variants, and the share of their tasks that fails."""

_CHILDREN: dict[Metric, Callable[[], Iterable[Child]]] = {
    semconv.WORKFLOW_RUNS: _workflow_runs,
    semconv.WORKFLOW_DURATION: _workflow_seconds,
    semconv.WORKFLOW_ACTIVE: lambda: [Child((name,), 2, 11 if _hit(name) else 2) for name in WORKFLOWS],
    semconv.WORKFLOW_COST: _workflow_cost,
    semconv.WORKFLOW_VIOLATION_RUNS: lambda: [Child((name,), 0.015, 0.1) for name in WORKFLOWS],
    semconv.AGENT_RUNS: _agent_runs,
    semconv.AGENT_DURATION: lambda: _timed(lambda work: (work.agent,), 1, 2),
    semconv.AGENT_ACTIVE: lambda: [Child((work.agent,), 2, 9 if _stormy(work) else 2) for work in WORK],
    semconv.TOOL_CALLS: _tool_calls,
    semconv.TOOL_DURATION: lambda: _timed(lambda work: (work.tool,), 1.5, 0.3),
    semconv.LLM_REQUESTS: _llm_requests,
    semconv.LLM_DURATION: lambda: _timed(lambda work: (work.model, work.provider), CALLS_PER_RUN, 1),
    semconv.LLM_FIRST_TOKEN: lambda: _timed(lambda work: (work.model, work.provider), 1, 0.4),
    semconv.LLM_ACTIVE: lambda: [Child((work.agent, work.provider), 3, 12 if _stormy(work) else 3) for work in WORK],
    semconv.LLM_TOKENS: _llm_tokens,
    semconv.LLM_TOKEN_DETAILS: lambda: [
        Child((work.model, work.provider, "cache_read"), 400 * work.runs, 400 * work.runs) for work in WORK[::2]
    ],
    semconv.LLM_COST: _llm_cost,
    semconv.LLM_BILLABLE: lambda: _per_model(CALLS_PER_RUN, CALLS_PER_RUN),
    semconv.LLM_UNPRICED: _unpriced,
    semconv.LLM_PARTIALLY_PRICED: lambda: [
        Child((work.model, work.provider, semconv.PriceGap.SERVER_TOOLS), 0.02, 0.02, declared=False)
        for work in WORK[:1]
    ],
    semconv.LLM_PRICE_MISMATCHES: lambda: _per_model(0, 0.01),
    semconv.LLM_USAGE_MISSING: lambda: _per_model(0.01, 0.05),
    semconv.LLM_USAGE_INCONSISTENT: lambda: _per_model(0.004, 0.004),
    semconv.LLM_ERRORS: _llm_errors,
    semconv.LLM_RETRIES: lambda: _per_model(0.02, 0.9),
    semconv.LLM_CACHE_HITS: lambda: [Child((w.agent, w.model), 0.8 * w.runs, 0.8 * w.runs) for w in WORK],
    semconv.LLM_CACHE_MISSES: lambda: [Child((w.agent, w.model), 1.2 * w.runs, 1.2 * w.runs) for w in WORK],
    semconv.LLM_CACHE_SIZE: lambda: [Child(("answers",), 5_000, 5_200)],
    semconv.POLICY_VIOLATIONS: _violations,
    semconv.POLICY_DECISIONS: lambda: [
        Child((policy, verdict), rate, rate)
        for policy in ("pii_in_output", "max_tokens")
        for verdict, rate in ((Verdict.ALLOW, 30.0), (Verdict.DENY, 0.1), (Verdict.REQUIRE_APPROVAL, 0.05))
    ],
    semconv.GUARDRAIL_BLOCKS: lambda: _rare(0.02, 0.06, _AGENTS, ("prompt_injection", "pii"), ("input", "output")),
    semconv.GUARDRAIL_CHECKS: _guardrail_checks,
    semconv.GUARDRAIL_CHECK_DURATION: lambda: [
        Child(("prompt_injection",), 40, 40, 0.004, 0.004),
        Child(("pii",), 40, 40, 0.0006, 0.0006),
    ],
    semconv.FEEDBACK: _feedback,
    semconv.FEEDBACK_REVISIONS: lambda: [Child(("correct",), 0.03, 0.02), Child(("incorrect",), 0.03, 0.05)],
    semconv.EXPERIMENT_RUNS: lambda: [
        Child((_EXPERIMENT, variant, status), rate, rate)
        for variant, failing in _VARIANTS
        for status, rate in ((Status.SUCCESS, 1 - failing), (Status.ERROR, failing))
    ],
    semconv.EXPERIMENT_DURATION: lambda: [
        Child((_EXPERIMENT, variant), 1, 1, 1.2 + 10 * failing, 1.2 + 10 * failing) for variant, failing in _VARIANTS
    ],
    semconv.EXPERIMENT_COST: lambda: [Child((_EXPERIMENT, variant), 0.02, 0.02) for variant, _ in _VARIANTS],
    semconv.EXPERIMENT_FEEDBACK: lambda: [
        Child((_EXPERIMENT, variant, verdict), rate, rate)
        for variant, failing in _VARIANTS
        for verdict, rate in (("correct", 0.1 - failing), ("incorrect", failing / 2))
    ],
    semconv.EXPERIMENT_GUARDRAILS_BROKEN: lambda: [Child((_EXPERIMENT, "v2", "cost"), 0, 0.01)],
    semconv.BUDGET_LIMIT: lambda: [Child(("research", "day"), 80, 80, is_money=True)],
    semconv.BUDGET_SPENT: lambda: [Child(("research", "day"), 40, 61, is_money=True)],
    semconv.BUDGET_ASSUMED: lambda: [Child(("research", "day"), 0.05, 0.3, is_money=True)],
    semconv.BUDGET_OTHER_LIMITS: lambda: [Child(("research", "day"), 0, 0)],
    semconv.BUDGET_RESERVED: lambda: [Child(("research", "day"), 0.4, 1.2, is_money=True)],
    semconv.BUDGET_USED_RATIO: lambda: [Child(("research", "day"), 0.5, 0.76, is_money=True)],
    semconv.BUDGET_RESETS: lambda: [Child(("research", "day"), 4e9, 4e9)],
    semconv.BUDGET_REFUSALS: lambda: _rare(0, 0.1, ("research",), ("day",)),
    semconv.RECORDS: lambda: [Child((exporter,), 250, 260) for exporter in _EXPORTERS],
    semconv.RECORDS_DROPPED: lambda: _rare(0, 0.4, ("audit_log",), ("queue_full",)),
    semconv.EXPORT_ERRORS: lambda: _rare(0, 0.1, ("audit_log",)),
    semconv.INTERNAL_ERRORS: lambda: _rare(0, 0.1, ("exporters.audit_log",)),
    semconv.LABEL_OVERFLOW: lambda: _rare(0, 0.1, (semconv.AGENT_RUNS.name,)),
    semconv.QUEUE_SIZE: lambda: [Child((exporter,), 12, 90) for exporter in _EXPORTERS],
    semconv.SERVER_REQUESTS: lambda: [
        Child((route, "GET", code), rate, rate)
        for route, code, rate in (("/", "200", 4), ("/v1/stats", "200", 9), ("/v1/stats", "422", 0.5))
    ],
    semconv.SERVER_DURATION: lambda: [
        Child((route,), rate, rate, seconds, seconds)
        for route, rate, seconds in (("/", 4, 0.12), ("/v1/stats", 9, 0.02))
    ],
    semconv.SERVER_SPANS: lambda: [
        Child((result,), rate, rate) for result, rate in (("received", 40), ("written", 38))
    ],
    semconv.AGENT_LLM_CALLS: lambda: [Child((w.agent,), 2 * w.runs, 2 * w.runs, 4.0, 4.0) for w in WORK],
    semconv.AGENT_TOOL_CALLS: lambda: [Child((w.agent,), 2 * w.runs, 2 * w.runs, 3.0, 3.0) for w in WORK],
}


def children(metric: Metric) -> Iterable[Child]:
    """The children of a family; every family of the contract has some.

    Raises:
        KeyError: a family is new and has no part in the story yet: give it one here.
    """
    return _CHILDREN[metric]()
