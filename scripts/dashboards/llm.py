"""LLM usage: traffic, money, speed and failures of the calls to models."""

from __future__ import annotations

from scripts.dashboards import common
from scripts.dashboards.model import Dashboard, Panel, Query, Row
from scripts.dashboards.panels import (
    COUNT,
    PER_MINUTE,
    PERCENT,
    SECONDS,
    USD,
    at_least,
    at_most,
    bars,
    lines,
    never,
    stat,
)
from scripts.dashboards.promql import (
    COUNTED_STATUSES,
    DAY,
    RANGE,
    Selector,
    events,
    events_per_step,
    per_minute,
    quantile,
    share,
    total,
    whole,
)
from taskpilot_obs import semconv
from taskpilot_obs.records import Status
from taskpilot_obs.semconv import Label

_select = Selector((Label.AGENT, Label.MODEL, Label.PROVIDER))
_REQUESTS = _select(semconv.LLM_REQUESTS)
_COUNTED = _select(semconv.LLM_REQUESTS, status=COUNTED_STATUSES)
_SUCCESSES = _select(semconv.LLM_REQUESTS, status=Status.SUCCESS)
_FAILURES = _select(semconv.LLM_REQUESTS, status=f"{Status.ERROR}|{Status.TIMEOUT}")
_HITS = _select(semconv.LLM_CACHE_HITS)
_MISSES = _select(semconv.LLM_CACHE_MISSES)
_COST = _select(semconv.LLM_COST)
_MISMATCHES = _select(semconv.LLM_PRICE_MISMATCHES)
_BY_MODEL = Selector((Label.MODEL, Label.PROVIDER))
"""For shares of two families of which one does not know the agent: both must be cut alike."""
_CACHE_READ = _BY_MODEL(semconv.LLM_TOKEN_DETAILS, detail="cache_read")
_INPUT = _BY_MODEL(semconv.LLM_TOKENS, **{Label.TOKEN_TYPE: "input"})
_TEAM_COST = f'label_replace({events(_COST, RANGE, Label.AGENT)}, "team", "$1", "{Label.AGENT}", "([^.]+).*")'
_NO_CALLS = "No LLM calls in this time range"


def _hit_rate() -> str:
    lookups = f"({events(_HITS)} or vector(0)) + ({events(_MISSES)} or vector(0))"
    return f"100 * ({events(_HITS)} or vector(0)) / ({lookups} > 0)"


_NOT_IN_FULL = " + ".join(
    f"({events(_BY_MODEL(metric))} or vector(0))" for metric in (semconv.LLM_UNPRICED, semconv.LLM_PARTIALLY_PRICED)
)
_NOW: tuple[Panel, ...] = (
    stat(
        "Requests",
        "Finished LLM calls over the time range, whatever their status. Retries within a call are not in it.",
        whole(events(_REQUESTS)),
        unit=COUNT,
        no_value=_NO_CALLS,
    ),
    stat(
        "Success rate",
        "Calls that succeeded, of those that ended as success, error, timeout or blocked.",
        share(events(_SUCCESSES), events(_COUNTED)),
        unit=PERCENT,
        decimals=1,
        steps=at_least(99, 95),
        no_value=_NO_CALLS,
    ),
    stat(
        "Error rate",
        "Calls that failed or timed out, of all counted calls; a call that a policy blocked is not an error. "
        "Orange from 1 %, red from 5 %.",
        share(events(_FAILURES), events(_COUNTED)),
        unit=PERCENT,
        decimals=2,
        steps=at_most(1, 5),
        no_value=_NO_CALLS,
    ),
    stat(
        "Cache-hit rate",
        "Look-ups that the application's own cache answered. Orange below 30 %.",
        _hit_rate(),
        unit=PERCENT,
        decimals=1,
        steps=((None, "orange"), (30, "green")),
        no_value="No cache look-ups recorded",
    ),
    stat(
        "Active requests",
        "LLM calls in progress now.",
        total(_select(semconv.LLM_ACTIVE)),
        unit=COUNT,
        no_value="No LLM call yet",
        width=5,
    ),
    stat(
        "Unpriced share",
        "Calls whose cost is unknown or incomplete, of those that may cost something: no price for the model, no usage "
        "from the provider, or fees that the tokens do not tell. The agent filter does not apply.",
        share(_NOT_IN_FULL, events(_BY_MODEL(semconv.LLM_BILLABLE))),
        unit=PERCENT,
        decimals=1,
        steps=at_most(1, 5),
        no_value=_NO_CALLS,
        width=5,
    ),
    stat(
        "Retries per 100 calls",
        "Attempts beyond the first. They cost time, and often money. Orange from 10. The agent filter does not apply.",
        share(events(_BY_MODEL(semconv.LLM_RETRIES)), events(_BY_MODEL(semconv.LLM_REQUESTS))),
        unit=PERCENT,
        decimals=1,
        steps=((None, "green"), (10, "orange")),
        no_value=_NO_CALLS,
        width=5,
    ),
    stat(
        "Input read from the prompt cache",
        "Share of the input tokens that the provider read from its own cache, at a fraction of the price. The agent "
        "filter does not apply.",
        share(events(_CACHE_READ), events(_INPUT)),
        unit=PERCENT,
        decimals=1,
        no_value="No usage stated in this time range",
        width=5,
    ),
    stat(
        "Price mismatches",
        "Calls whose provider stated a cost that differs from the price table's by more than 1 %. Healthy is none: "
        "update the prices. The agent filter does not apply.",
        whole(events(_MISMATCHES)),
        unit=COUNT,
        steps=never(),
        no_value="None recorded",
        width=4,
    ),
)

_DAY: tuple[Panel, ...] = (
    stat(
        "Cost, last 24 hours",
        "USD of the calls with a known price in the last 24 hours, whatever the time range. Orange from half of what "
        "the alert on spend allows over a day ($5 an hour), red from all of it. See the unpriced share for what is "
        "missing.",
        events(_COST, DAY),
        unit=USD,
        decimals=2,
        steps=at_most(60, 120),
        no_value="No priced call in 24 hours",
        width=8,
        height=9,
        below="taskpilot-budget",
    ),
    bars(
        "Cost by model, last 24 hours",
        "USD in the last 24 hours, whatever the time range, the dearest model on top.",
        Query(f"sort_desc({events(_COST, DAY, Label.MODEL)})", "{{model}}", instant=True),
        unit=USD,
        width=16,
        no_value="No priced call in 24 hours",
    ),
)

_FAILING: tuple[Panel, ...] = (
    lines(
        "Success rate by model",
        "Calls that succeeded, of the counted ones. A model that falls alone has a fault of its own; several of one "
        "provider are its outage.",
        Query(
            share(events_per_step(_SUCCESSES, Label.MODEL), events_per_step(_COUNTED, Label.MODEL), Label.MODEL),
            "{{model}}",
        ),
        unit=PERCENT,
        steps=at_least(99, 95),
        bounds=(None, 100),
        no_value=_NO_CALLS,
    ),
    lines(
        "Error rate by provider",
        "Failed and timed-out calls, of the counted ones. One line that rises alone is that provider's outage.",
        Query(
            share(
                events_per_step(_FAILURES, Label.PROVIDER), events_per_step(_COUNTED, Label.PROVIDER), Label.PROVIDER
            ),
            "{{provider}}",
        ),
        unit=PERCENT,
        steps=at_most(1, 5),
        no_value=_NO_CALLS,
    ),
    lines(
        "Errors per minute, by cause",
        "rate_limit: slow down or raise the quota. timeout, connection, server: the provider. auth, bad_request, "
        "context_length: us.",
        Query(per_minute(_select(semconv.LLM_ERRORS), Label.ERROR_TYPE), "{{error_type}}"),
        unit=PER_MINUTE,
        stacked=True,
        no_value="No LLM error recorded",
    ),
    lines(
        "Retries per minute, by model",
        "Attempts beyond the first; they rise before errors do.",
        Query(per_minute(_select(semconv.LLM_RETRIES), Label.MODEL), "{{model}}"),
        unit=PER_MINUTE,
        no_value="No retry recorded",
    ),
)

_SPEED: tuple[Panel, ...] = (
    lines(
        "Latency: p50, p90, p99",
        "To the last token. Points are exemplars: click one to open its trace. The agent filter does not apply.",
        *(
            Query(quantile(level, _select(semconv.LLM_DURATION, "_bucket")), f"p{level * 100:g}", exemplar=exemplar)
            for level, exemplar in ((0.5, False), (0.9, False), (0.99, True))
        ),
        unit=SECONDS,
        steps=((None, "green"), (10, "orange")),
        no_value=_NO_CALLS,
    ),
    lines(
        "Time to first token: p95 by model",
        "What a user waits for before text appears; streamed calls only. The agent filter does not apply.",
        Query(quantile(0.95, _select(semconv.LLM_FIRST_TOKEN, "_bucket"), by=Label.MODEL), "{{model}}", exemplar=True),
        unit=SECONDS,
        steps=((None, "green"), (5, "orange")),
        no_value="No streamed call in this time range",
    ),
    lines(
        "Active requests by provider",
        "Calls in progress. A line that climbs while requests fall means that the provider hangs.",
        Query(total(_select(semconv.LLM_ACTIVE), Label.PROVIDER), "{{provider}}"),
        unit=COUNT,
        no_value="No LLM call yet",
    ),
)

_TRAFFIC: tuple[Panel, ...] = (
    lines(
        "Requests per minute, by agent",
        "Who calls. An agent in a loop stands out here first.",
        Query(per_minute(_REQUESTS, Label.AGENT), "{{agent}}"),
        unit=PER_MINUTE,
        no_value=_NO_CALLS,
    ),
    lines(
        "Tokens per minute, by model",
        "Input and output together, as the providers state them.",
        Query(per_minute(_select(semconv.LLM_TOKENS), Label.MODEL), "{{model}}"),
        unit=COUNT,
        stacked=True,
        no_value="No usage stated in this time range",
    ),
    lines(
        "Cache hits and misses per minute",
        "Look-ups in the cache of the application.",
        Query(per_minute(_HITS), "hits"),
        Query(per_minute(_MISSES), "misses"),
        unit=PER_MINUTE,
        stacked=True,
        no_value="No cache look-ups recorded",
    ),
    lines(
        "Entries in the application's caches",
        "A cache that grows without end fills the memory; one that stays empty saves nothing.",
        Query(total(_select(semconv.LLM_CACHE_SIZE), Label.CACHE), "{{cache}}"),
        unit=COUNT,
        no_value="No cache states its size",
    ),
    lines(
        "Input read from the prompt cache, by model",
        "Share of the input tokens. A fall after a deployment means that the beginning of the prompt now differs from "
        "call to call: the same work costs more.",
        Query(
            share(events_per_step(_CACHE_READ, Label.MODEL), events_per_step(_INPUT, Label.MODEL), Label.MODEL),
            "{{model}}",
        ),
        unit=PERCENT,
        no_value="No usage stated in this time range",
    ),
    lines(
        "Prompt-cache reads per minute, by model",
        "Input tokens that the provider read from its own cache. They are part of the tokens above, not more of them.",
        Query(per_minute(_CACHE_READ, Label.MODEL), "{{model}}"),
        unit=COUNT,
        stacked=True,
        no_value="No prompt-cache read recorded",
    ),
)

_MONEY: tuple[Panel, ...] = (
    lines(
        "Cost per hour, by model",
        "The rate of spending now, as USD in an hour.",
        Query(f"60 * {per_minute(_COST, Label.MODEL)}", "{{model}}"),
        unit=USD,
        stacked=True,
        width=12,
        no_value="No priced call in this time range",
    ),
    bars(
        "Cost by team",
        "The team is what stands before the first dot of an agent's name: research.planner belongs to research. "
        "An agent without a dot is a team of its own.",
        Query(f"sort_desc(sum by (team) ({_TEAM_COST}))", "{{team}}", instant=True),
        unit=USD,
        width=12,
        no_value="No priced call in this time range",
    ),
)

DASHBOARD = Dashboard(
    uid="taskpilot-llm",
    title="taskpilot / LLM usage",
    description="Calls to models: how many, how fast, how often they fail, and what they cost.",
    variables=common.variables(Label.AGENT, Label.MODEL, Label.PROVIDER),
    rows=(
        Row("Over the time range", _NOW),
        Row("The last 24 hours, whatever the time range", _DAY),
        Row("What fails", _FAILING),
        Row("Speed", _SPEED),
        Row("Traffic", _TRAFFIC),
        Row("Money", _MONEY),
    ),
    annotations=common.marks(),
)
