"""What the alerts on LLM calls say when they fire."""

from __future__ import annotations

from taskpilot_obs.rules.cases import Fired

FOLDER = "llm"
ONE = 'job="shop",instance="shop-1:9464"'
CALL = f'{ONE},agent="planner",model="m1",provider="acme"'
MODEL = f'{ONE},model="m1",provider="acme"'
EVIDENCE = "over the shortest of 5m, 1h, 6h, 1d with at least 20"
ERRORS, FAILING = "TaskpilotLLMErrorRateHigh", "TaskpilotLLMProviderFailing"
RATE, RETRY = "TaskpilotLLMRateLimited", "TaskpilotLLMRetriesHigh"
SLOW, TOKEN = "TaskpilotLLMSlow", "TaskpilotLLMFirstTokenSlow"
CACHE, PRICE, USAGE = "TaskpilotLLMCacheHitRateLow", "TaskpilotLLMUnpricedShareHigh", "TaskpilotLLMUsageMissing"
HOUR, SPIKE = "TaskpilotLLMCostPerHourHigh", "TaskpilotLLMCostSpike"
PROMPT_CACHE = "TaskpilotLLMPromptCacheFell"


def _one(name: str, signal: str, labels: dict[str, str], summary: str, description: str) -> Fired:
    severity = "critical" if name == FAILING else "warning"
    return Fired(name, FOLDER, {"severity": severity, "signal": signal, "job": "shop", **labels}, summary, description)


def errors(value: str) -> tuple[Fired, Fired]:
    """Calls to a provider fail."""
    text = f"{value} of the calls to acme for shop ended as error or timeout, {EVIDENCE} calls."
    labels = {"provider": "acme"}
    return (
        _one(ERRORS, "llm_error_rate", labels, f"LLM calls fail: {value} at acme for shop (above 1%)", text),
        _one(
            FAILING,
            "llm_error_rate",
            labels,
            f"LLM provider is failing: {value} of calls at acme for shop",
            f"{text} Fires above 5%, and above 1% where runs fail by it.",
        ),
    )


def explained(value: str) -> tuple[Fired, ...]:
    """Calls to a provider fail, and runs by them."""
    warning, failing = errors(value)
    return warning, failing._replace(labels=failing.labels | {"explains": "failed_runs"})


def rate_limited(value: str) -> tuple[Fired]:
    """A provider refuses calls."""
    return (
        _one(
            RATE,
            "llm_rate_limits",
            {"provider": "acme"},
            f"Rate limits refuse {value} of LLM calls at acme for shop (above 5%)",
            f"{value} of the calls to acme for shop failed with a rate limit, {EVIDENCE} calls.",
        ),
    )


def retried(value: str) -> tuple[Fired]:
    """Calls are retried."""
    return (
        _one(
            RETRY,
            "llm_retries",
            {"provider": "acme"},
            f"LLM calls are retried: {value} at acme for shop (above 10%)",
            f"Retries amount to {value} of the calls to acme for shop, {EVIDENCE} calls."
            " Each one is paid for in time, many in money.",
        ),
    )


def slow(value: str) -> tuple[Fired]:
    """Calls are slow."""
    return (
        _one(
            SLOW,
            "llm_latency",
            {"model": "m1", "provider": "acme"},
            f"LLM calls are slow, p99 is {value}: m1 (acme) for shop (above 10 s)",
            f"1 of 100 calls to m1 (acme) for shop takes {value} or longer to the last token, {EVIDENCE} calls.",
        ),
    )


def first_token(value: str) -> tuple[Fired]:
    """First tokens come late."""
    return (
        _one(
            TOKEN,
            "llm_first_token",
            {"model": "m1", "provider": "acme"},
            f"First tokens come late, p95 is {value}: m1 (acme) for shop (above 5 s)",
            f"1 of 20 streamed calls to m1 (acme) for shop waits {value} or longer for its first token,"
            f" {EVIDENCE} streamed calls.",
        ),
    )


def cache(value: str) -> tuple[Fired]:
    """The cache seldom answers."""
    return (
        _one(
            CACHE,
            "llm_cache",
            {"agent": "planner"},
            f"Cache answers only {value} of LLM calls: agent planner of shop (below 30%)",
            f"{value} of the cache look-ups of this agent were hits, {EVIDENCE} look-ups.",
        ),
    )


def unpriced(value: str) -> tuple[Fired]:
    """Calls have no price."""
    return (
        _one(
            PRICE,
            "llm_unpriced",
            {},
            f"Cost is unknown for {value} of LLM calls: shop (above 5%)",
            f"{value} of the LLM calls of shop have no price, {EVIDENCE} calls."
            " Every cost figure is too low by their share.",
        ),
    )


def no_usage(value: str) -> tuple[Fired]:
    """Calls state no usage."""
    return (
        _one(
            USAGE,
            "llm_usage",
            {},
            f"Token usage is missing for {value} of LLM calls: shop (above 5%)",
            f"The providers stated no usage for {value} of the LLM calls of shop, {EVIDENCE} calls."
            " Their tokens and cost are counted nowhere.",
        ),
    )


def per_hour(value: str) -> tuple[Fired]:
    """An hour is dear."""
    return (
        _one(
            HOUR,
            "llm_cost",
            {},
            f"LLM calls cost {value} in the last hour: shop (above $5.00)",
            f"The LLM calls of shop with a known price cost {value} in the last hour.",
        ),
    )


def spike(value: str) -> tuple[Fired]:
    """An hour is far dearer than usual."""
    return (
        _one(
            SPIKE,
            "llm_cost_spike",
            {},
            f"LLM cost spike: {value} in the last hour, over 3 times the usual: shop",
            f"The LLM calls of shop cost {value} in the last hour, more than 3 times the mean of the same hour of the"
            " last 3 days, and more than $1.00.",
        ),
    )


def fell(value: str) -> tuple[Fired]:
    """The provider's prompt cache answers less than before."""
    return (
        _one(
            PROMPT_CACHE,
            "llm_prompt_cache",
            {"model": "m1", "provider": "acme"},
            f"Prompt cache answers only {value} of the input: m1 (acme) for shop",
            f"{value} of the input tokens of m1 (acme) for shop were read from the provider's prompt cache in the last"
            " hour, less than 50% of the share of the day before. The same work costs more.",
        ),
    )
