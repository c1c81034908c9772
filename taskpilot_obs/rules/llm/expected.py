"""What the alerts on LLM calls say when they fire."""

from __future__ import annotations

from taskpilot_obs.rules.cases import Expected, Fired

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


expected = Expected("llm")
FAILED = f"<figure> of the calls to acme for shop ended as error or timeout, {EVIDENCE} calls."

_errors = expected(
    ERRORS,
    "warning",
    "llm_error_rate",
    "LLM calls fail: <figure> at acme for shop (above 1%)",
    FAILED,
    provider="acme",
)
_failing = expected(
    FAILING,
    "critical",
    "llm_error_rate",
    "LLM provider is failing: <figure> of calls at acme for shop",
    f"{FAILED} Fires above 5%, and above 1% where runs fail by it.",
    provider="acme",
)


def errors(value: str) -> tuple[Fired, Fired]:
    """Calls to a provider fail."""
    return (*_errors(value), *_failing(value))


def explained(value: str) -> tuple[Fired, ...]:
    """Calls to a provider fail, and runs by them."""
    warning, failing = errors(value)
    return warning, failing._replace(labels=failing.labels | {"explains": "failed_runs"})


rate_limited = expected(
    RATE,
    "warning",
    "llm_rate_limits",
    "Rate limits refuse <figure> of LLM calls at acme for shop (above 5%)",
    f"<figure> of the calls to acme for shop failed with a rate limit, {EVIDENCE} calls.",
    provider="acme",
)
retried = expected(
    RETRY,
    "warning",
    "llm_retries",
    "LLM calls are retried: <figure> at acme for shop (above 10%)",
    f"Retries amount to <figure> of the calls to acme for shop, {EVIDENCE} calls."
    " Each one is paid for in time, many in money.",
    provider="acme",
)
slow = expected(
    SLOW,
    "warning",
    "llm_latency",
    "LLM calls are slow, p99 is <figure>: m1 (acme) for shop (above 10 s)",
    f"1 of 100 calls to m1 (acme) for shop takes <figure> or longer to the last token, {EVIDENCE} calls.",
    model="m1",
    provider="acme",
)
first_token = expected(
    TOKEN,
    "warning",
    "llm_first_token",
    "First tokens come late, p95 is <figure>: m1 (acme) for shop (above 5 s)",
    "1 of 20 streamed calls to m1 (acme) for shop waits <figure> or longer for its first token,"
    f" {EVIDENCE} streamed calls.",
    model="m1",
    provider="acme",
)
cache = expected(
    CACHE,
    "warning",
    "llm_cache",
    "Cache answers only <figure> of LLM calls: agent planner of shop (below 30%)",
    f"<figure> of the cache look-ups of this agent were hits, {EVIDENCE} look-ups.",
    agent="planner",
)
unpriced = expected(
    PRICE,
    "warning",
    "llm_unpriced",
    "Cost is unknown for <figure> of LLM calls: shop (above 5%)",
    f"<figure> of the LLM calls of shop have no price, {EVIDENCE} calls. Every cost figure is too low by their share.",
)
no_usage = expected(
    USAGE,
    "warning",
    "llm_usage",
    "Token usage is missing for <figure> of LLM calls: shop (above 5%)",
    f"The providers stated no usage for <figure> of the LLM calls of shop, {EVIDENCE} calls."
    " Their tokens and cost are counted nowhere.",
)
per_hour = expected(
    HOUR,
    "warning",
    "llm_cost",
    "LLM calls cost <figure> in the last hour: shop (above $5.00)",
    "The LLM calls of shop with a known price cost <figure> in the last hour.",
)
spike = expected(
    SPIKE,
    "warning",
    "llm_cost_spike",
    "LLM cost spike: <figure> in the last hour, over 3 times the usual: shop",
    "The LLM calls of shop cost <figure> in the last hour, more than 3 times the mean of the same hour of the"
    " last 3 days, and more than $1.00.",
)
fell = expected(
    PROMPT_CACHE,
    "warning",
    "llm_prompt_cache",
    "Prompt cache answers only <figure> of the input: m1 (acme) for shop",
    "<figure> of the input tokens of m1 (acme) for shop were read from the provider's prompt cache in the last"
    " hour, less than 50% of the share of the day before. The same work costs more.",
    model="m1",
    provider="acme",
)
