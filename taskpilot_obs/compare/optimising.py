"""Where money could be saved: each place with its estimate, its evidence and its uncertainty."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from math import sqrt
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

from scipy.stats import norm

from taskpilot_obs._support.figures import count, percent, usd
from taskpilot_obs.compare.intervals import CONFIDENCE, newcombe
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.records import Usage
from taskpilot_obs.semconv import NONE
from taskpilot_obs.stats.asking import Asked, filters_of
from taskpilot_obs.stats.model import Frozen, Usd
from taskpilot_obs.stats.periods import Period, bounds
from taskpilot_obs.store.questions import asked_of
from taskpilot_obs.store.savings import (
    Duplicates,
    IdleBudget,
    LostCalls,
    PromptUse,
    duplicates,
    idle_budgets,
    lost_calls,
    prompt_uses,
)

if TYPE_CHECKING:
    from taskpilot_obs.store import Store

Kind = Literal["cheaper model", "uncached prefix", "lost calls", "reasoning", "duplicates", "idle budget"]

MARGIN: Final = 0.02
"""A cheaper model is offered where its success is at most so much lower, with certainty."""
LEAST_CALLS: Final = 50
"""Fewer calls of a prompt on a model prove nothing."""
CACHEABLE: Final = 1_024
"""The shortest prompt, in tokens, that the large providers cache."""
_RARELY: Final = 0.1
"""A prompt is not cached where less of its shortest prompt than this was read from the cache."""
_SHORT_ANSWER: Final = 100
_PRICED: Final = 0.9
"""A smaller share of calls with a known cost tells nothing about the mean. Refused calls have none."""
_MOSTLY: Final = 0.5
_ZERO: Final = Decimal(0)


class Saving(Frozen):
    """One place where money could be saved in a period like the one that was looked at."""

    kind: Kind
    subject: str
    estimate_usd: Usd | None
    """The most likely saving; None where it cannot be estimated."""
    low_usd: Usd | None
    high_usd: Usd | None
    """The saving lies between these, as far as the evidence goes."""
    evidence: str
    """What was seen."""
    uncertainty: str
    """What the estimate does not know."""
    action: str
    """What would bring it."""


class Savings(Frozen):
    """All of them, the largest estimate first."""

    start: datetime
    end: datetime
    savings: tuple[Saving, ...]


def optimise(
    period: Period = "30d",
    *,
    prices: PriceTable | None = None,
    store: str | Store | None = None,
    now: datetime | None = None,
    **asked: Unpack[Asked],
) -> Savings:
    """Find where money could be saved.

    A cheaper model is offered only where the same prompt ran on both, and its success is at most 2 percentage points
    lower beyond chance. Each saving states what it does not know.

    Args:
        period: which calls, as in `get_stats`; only those whose rows are still kept.
        prices: for what tokens cost now; the shipped table by default.
        store: the URL of a store; by default the one that this process writes to, else `TASKPILOT_OBS_STORE`.
        now: the present; for tests.
        asked: filters, as in `get_stats`.

    Returns:
        The savings with their estimates, the largest first.

    Raises:
        ConfigurationError: an argument cannot be used, or no store is named.
        StoreError: the store is missing, too old, or cannot be used.
    """
    start, end = bounds(period, now)
    with asked_of(store, start, end, filters_of(asked)) as question:
        uses = list(prompt_uses(question))
        lost = list(lost_calls(question))
        repeated = list(duplicates(question))
        idle = list(idle_budgets(question))
    table, at_ns = prices or PriceTable(), int(end.timestamp() * 1e9)
    found = [
        *_cheaper_models(uses),
        *(saving for use in uses for saving in _of_use(use, table, at_ns)),
        *map(_lost, (each for each in lost if each.cost or each.retries)),
        *map(_duplicated, (each for each in repeated if each.cost)),
        *map(_idle, idle),
    ]
    return Savings(start=start, end=end, savings=tuple(sorted(found, key=_most_first)))


def _most_first(saving: Saving) -> tuple[bool, Decimal, Decimal, str, str]:
    estimate, high = saving.estimate_usd, saving.high_usd
    return estimate is None, -(estimate or _ZERO), -(high or _ZERO), saving.kind, saving.subject


# --- cheaper models --------------------------------------------------------------------------------------------------


def _cheaper_models(uses: Sequence[PromptUse]) -> Iterator[Saving]:
    by_prompt: defaultdict[str, list[PromptUse]] = defaultdict(list)
    for use in uses:
        if use.prompt and use.counted >= LEAST_CALLS and use.priced >= _PRICED * use.calls:
            by_prompt[use.prompt].append(use)
    for candidates in by_prompt.values():
        for used in candidates:
            offers = [saving for other in candidates if (saving := _cheaper(used, other)) is not None]
            if offers:
                yield min(offers, key=_most_first)


def _amounts(estimate: Decimal | None, low: Decimal | None, high: Decimal | None) -> dict[str, Any]:
    return {"estimate_usd": estimate, "low_usd": low, "high_usd": high}


def _cheaper(used: PromptUse, other: PromptUse) -> Saving | None:
    """What the other model would save on this prompt; None unless it is cheaper, and as good within the margin."""
    between = newcombe(other.successes, other.counted, used.successes, used.counted)
    saved, wide = _mean(used) - _mean(other), _error(used, other)
    if other is used or between.low < -MARGIN or saved - wide <= 0:
        return None
    estimate, low, high = (Decimal(str(used.priced * each)) for each in (saved, saved - wide, saved + wide))
    rates = [percent(100 * each.successes / each.counted) for each in (used, other)]
    return Saving(
        kind="cheaper model",
        subject=f"{used.prompt}: {used.model} → {other.model}",
        **_amounts(estimate, low, high),
        evidence=(
            f"{count(used.calls)} calls at {usd(_mean(used))}, {rates[0]} successful; "
            f"{count(other.calls)} at {usd(_mean(other))}, {rates[1]} successful "
            f"(difference {100 * between.low:+.1f} to {100 * between.high:+.1f} points)"
        ),
        uncertainty="success is not correctness, and which calls went to which model was not decided by chance",
        action=f"try {other.model} on this prompt in an experiment, or with `taskpilot-obs bench`",
    )


def _mean(use: PromptUse) -> float:
    return float(use.cost) / use.priced


def _error(used: PromptUse, other: PromptUse) -> float:
    """Half of the width of the interval of the difference of two mean costs."""
    spread = sum(max(0.0, each.cost_squares / each.priced - _mean(each) ** 2) / each.priced for each in (used, other))
    return float(norm.ppf((1 + CONFIDENCE) / 2)) * sqrt(spread)


# --- tokens ----------------------------------------------------------------------------------------------------------


def _of_use(use: PromptUse, table: PriceTable, at_ns: int) -> Iterator[Saving]:
    if use.calls < LEAST_CALLS or not use.model:
        return
    cached = use.cached_tokens < _RARELY * use.least_input * use.calls
    if use.prompt and use.least_input >= CACHEABLE and cached:
        yield from _uncached(use, table, at_ns)
    visible = use.output_tokens - use.reasoning_tokens
    if use.reasoning_tokens > _MOSTLY * use.output_tokens and visible <= _SHORT_ANSWER * use.calls:
        yield from _reasoning(use, table, at_ns)


def _uncached(use: PromptUse, table: PriceTable, at_ns: int) -> Iterator[Saving]:
    prefix = use.least_input
    plain = _cost(use, Usage(prefix, 0), table, at_ns)
    read = _cost(use, Usage(prefix, 0, cache_read_tokens=prefix), table, at_ns)
    if plain is None or read is None or read >= plain:
        return
    most = (plain - read) * use.calls
    yield Saving(
        kind="uncached prefix",
        subject=f"{use.prompt} on {use.model}",
        **_amounts(most / 2, _ZERO, most),
        evidence=(
            f"{count(use.calls)} calls of at least {count(prefix)} prompt tokens, "
            f"{percent(100 * use.cached_tokens / max(1, use.input_tokens))} of all read from the provider's cache"
        ),
        uncertainty="how long their common beginning is: anything from nothing to the shortest prompt",
        action="put what never changes first in the prompt, and mark it for the provider's cache",
    )


def _reasoning(use: PromptUse, table: PriceTable, at_ns: int) -> Iterator[Saving]:
    whole = _cost(use, Usage(0, use.output_tokens, reasoning_tokens=use.reasoning_tokens), table, at_ns)
    rest = _cost(use, Usage(0, use.output_tokens - use.reasoning_tokens), table, at_ns)
    if whole is None or rest is None or whole <= rest:
        return
    yield Saving(
        kind="reasoning",
        subject=f"{use.prompt or NONE} on {use.model}",
        **_amounts((whole - rest) / 2, _ZERO, whole - rest),
        evidence=(
            f"{percent(100 * use.reasoning_tokens / use.output_tokens)} of {count(use.output_tokens)} output tokens "
            f"are reasoning, for answers of {count((use.output_tokens - use.reasoning_tokens) / use.calls)} tokens"
        ),
        uncertainty="short answers may still need thought; between none and all of it may be spared",
        action="lower the reasoning effort for this prompt, and compare correctness",
    )


def _cost(use: PromptUse, usage: Usage, table: PriceTable, at_ns: int) -> Decimal | None:
    return table.price(
        usage, provider=use.provider, request_model=use.model, response_model=None, at_unix_ns=at_ns
    ).cost


# --- calls without use ------------------------------------------------------------------------------------------------


def _lost(lost: LostCalls) -> Saving:
    unknown = lost.calls - lost.priced
    mean = lost.cost / lost.priced if lost.priced else None
    retried = f", after {count(lost.retries)} retries" if lost.retries else ""
    return Saving(
        kind="lost calls",
        subject=f"{lost.agent or NONE}: {lost.status}",
        **_amounts(
            lost.cost if lost.priced else None,
            _ZERO if lost.priced else None,
            None if mean is None else lost.cost + mean * unknown,
        ),
        evidence=f"{count(lost.calls)} calls ended as {lost.status}{retried}; {count(lost.priced)} have a booked cost",
        uncertainty=f"{count(unknown)} of them have no known cost, and not every one can be avoided",
        action="look at what ends them (`taskpilot-obs calls`): timeouts, readers that leave, limits of the provider",
    )


def _duplicated(each: Duplicates) -> Saving:
    return Saving(
        kind="duplicates",
        subject=f"{each.prompt or NONE} on {each.model}",
        **_amounts(each.cost, _ZERO, each.cost),
        evidence=f"{count(each.repeated)} successful calls asked what another had asked, by the hash of the prompt",
        uncertainty="an answer may be out of date when it is asked for again",
        action="keep answers in a cache of your own, for as long as they hold",
    )


def _idle(each: IdleBudget) -> Saving:
    limit = (
        "an unknown limit"
        if each.limit is None
        else usd(each.limit)
        if each.unit == "usd"
        else count(float(each.limit))
    )
    return Saving(
        kind="idle budget",
        subject=f"{each.budget} {each.scope_key}",
        **_amounts(None, None, None),
        evidence=f"nothing was booked on it in this period; its limit is {limit}",
        uncertainty="a limit that is not used costs nothing: it may be given to others",
        action="lower it, or offer the tenant a smaller plan",
    )
