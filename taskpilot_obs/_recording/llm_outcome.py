"""Results of a finished LLM call: its span attributes, its canonical model name, its stated cost."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, Protocol

from taskpilot_obs.providers.errors import is_stated_refusal
from taskpilot_obs.providers.names import infer_provider
from taskpilot_obs.records import Status, Usage
from taskpilot_obs.semconv import Attr

if TYPE_CHECKING:
    from taskpilot_obs._recording.callsite import LlmCallsite
    from taskpilot_obs.records import AttributeValue
    from taskpilot_obs.usage.values import StatedError

_NAMED: Final = {
    "input_tokens": Attr.INPUT_TOKENS,
    "output_tokens": Attr.OUTPUT_TOKENS,
    "cache_read_tokens": Attr.CACHE_READ_TOKENS,
    "cache_write_tokens": Attr.CACHE_WRITE_TOKENS,
    "reasoning_tokens": Attr.REASONING_TOKENS,
}
_USAGE_ATTRIBUTES: Final = tuple(map(_NAMED.get, Usage._fields))
"""The span attributes of the fields of `Usage`, in their order."""
_NOT_PROVEN: Final = frozenset({Status.SUCCESS, Status.CANCELLED, Status.ABANDONED, Status.INTERRUPTED})
"""Statuses from which it is unknown whether the provider did any work."""


class AnsweredCall(Protocol):
    """The values that the attributes are made of: an `LlmInvocation`."""

    usage: Usage | None
    cached: bool | None
    left_to_calls: bool
    response_model: str | None
    response_id: str | None
    finish_reasons: tuple[str, ...]
    streaming: bool
    started_ns: int
    first_token_ns: int
    request_model: str | None
    provider: str | None
    stated_error: StatedError | None
    status: Status


def outcome_attributes(call: AnsweredCall, cost: Decimal | None) -> dict[str, AttributeValue | tuple[str, ...]]:
    """The span attributes of a call that ends: usage, model, first token, cost and finish reasons."""
    attributes: dict[str, AttributeValue | tuple[str, ...]] = {}
    free = call.cached or call.left_to_calls
    if call.usage is not None and not free:
        stated = zip(_USAGE_ATTRIBUTES, call.usage, strict=True)
        attributes = {key: tokens for key, tokens in stated if tokens is not None and key is not None}
    if call.response_model is not None:
        attributes[Attr.RESPONSE_MODEL] = call.response_model
    if call.response_id is not None:
        attributes[Attr.RESPONSE_ID] = call.response_id
    if call.cached is not None:
        attributes[Attr.CACHED] = call.cached
    if call.streaming:
        attributes[Attr.REQUEST_STREAM] = True
    if call.first_token_ns:
        attributes[Attr.RESPONSE_FIRST_CHUNK] = (call.first_token_ns - call.started_ns) / 1e9
    if cost is not None and not free:
        attributes[Attr.COST] = float(cost)
    if call.finish_reasons:
        attributes[Attr.RESPONSE_FINISH_REASONS] = call.finish_reasons
    return attributes


def is_unbilled(call: AnsweredCall, *, refused: bool) -> bool:
    """Whether an unanswered call is free because it was refused before a first token.

    Args:
        call: a call that has ended.
        refused: whether its exception is a refusal of the provider.
    """
    if call.first_token_ns or call.status in _NOT_PROVEN:
        return False
    stated = call.stated_error
    return refused or call.status is Status.BLOCKED or (stated is not None and is_stated_refusal(stated))


def ask_for(call: AnsweredCall, here: LlmCallsite, model: str | None) -> None:
    """Record the model named in a call's arguments, and its provider if the callsite states none."""
    if model is not None and model != here.model:
        call.request_model = model
        if here.provider == infer_provider(here.model):
            call.provider = infer_provider(model)


def canonical_model_of(here: LlmCallsite, asked: str | None, answered: str | None) -> str | None:
    """Return the canonical name of the model asked for, or else of the one that answered."""
    if asked is not None and asked == here.model:
        if here.canonical_model is None:
            here.canonical_model = here.runtime.prices.canonical_model(asked)
        return here.canonical_model
    named = asked or answered
    return None if named is None else here.runtime.prices.canonical_model(named)


def parse_amount(usd: Decimal | float | str) -> Decimal:
    """Parse an amount in USD.

    Raises:
        ValueError: the value is not a finite amount of 0 or more.
    """
    try:
        amount = Decimal(str(usd))
    except InvalidOperation as error:
        raise ValueError(f"cost must be an amount in USD, not {type(usd).__name__}") from error
    if not amount.is_finite() or amount < 0:
        raise ValueError("cost must be a finite amount of 0 USD or more")
    return amount
