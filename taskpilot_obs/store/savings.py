"""Sums over the rows of LLM calls that show where money could be saved."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Float, Integer, and_, cast, func, select

from taskpilot_obs._telemetry.money import to_decimal
from taskpilot_obs.store import on_clickhouse
from taskpilot_obs.store.filters import rows_where
from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER
from taskpilot_obs.store.tables import LLM_CALLS

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from taskpilot_obs.store.questions import Question

_NANO: Final = 1e-9
_call: Final = LLM_CALLS.c
_TENANT: Final = '"tenant"'
"""In the key of an account that is split by tenant."""
_PAID_FOR_NOTHING: Final = ("abandoned", "error", "timeout", "cancelled")


class PromptUse(NamedTuple):
    """The calls of one prompt on one model."""

    prompt: str | None
    provider: str | None
    model: str | None
    calls: int
    counted: int
    """Calls that succeeded or failed."""
    successes: int
    priced: int
    cost: Decimal
    cost_squares: float
    """The sum of the squares of each call's cost, in USD²."""
    input_tokens: int
    least_input: int
    """The fewest prompt tokens of a call."""
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class LostCalls(NamedTuple):
    """Calls of one agent that ended in one way which gives no answer."""

    agent: str | None
    status: str
    calls: int
    retries: int
    priced: int
    cost: Decimal


class Duplicates(NamedTuple):
    """Calls of one model that asked, word for word, what others had asked."""

    prompt: str | None
    model: str | None
    repeated: int
    """Calls beyond the first of each prompt."""
    cost: Decimal
    """Of these, at the mean cost of each prompt's calls."""


class IdleBudget(NamedTuple):
    """The budget of a tenant who spends nothing any more."""

    budget: str
    scope_key: str
    unit: str
    limit: Decimal | None


def prompt_uses(question: Question) -> Iterator[PromptUse]:
    """What each prompt took on each model."""
    usd = cast(_call.cost_nano, Float(53)) * _NANO
    sums = (
        func.count(), func.count(_call.success), func.sum(cast(_call.success, Integer)), func.count(_call.cost_nano),
        func.sum(_call.cost_nano), func.sum(_call.cost_rest), func.sum(usd * usd), func.sum(_call.input_tokens),
        func.min(_call.input_tokens), func.sum(_call.cached_tokens), func.sum(_call.output_tokens),
        func.sum(_call.reasoning_tokens),
    )  # fmt: skip
    keys = (_call.prompt_name, _call.provider, _call.model_name)
    for line in _grouped(question, keys, sums):
        prompt, provider, model, calls, counted, good, priced, nano, rest, squares, *tokens = line
        yield PromptUse(
            prompt,
            provider,
            model,
            calls,
            counted,
            _whole(good),
            priced,
            to_decimal(nano, rest),
            float(squares or 0),
            *map(_whole, tokens),
        )


def lost_calls(question: Question) -> Iterator[LostCalls]:
    """Calls that gave no answer, by agent and status."""
    sums = (
        func.count(), func.sum(_call.retries), func.count(_call.cost_nano), func.sum(_call.cost_nano),
        func.sum(_call.cost_rest),
    )  # fmt: skip
    lost = _call.status.in_(_PAID_FOR_NOTHING)
    for agent, status, calls, retries, priced, nano, rest in _grouped(
        question, (_call.agent, _call.status), sums, lost
    ):
        yield LostCalls(agent, status, calls, _whole(retries), priced, to_decimal(nano, rest))


def duplicates(question: Question) -> Iterator[Duplicates]:
    """Repeated prompts by their hash, which applications state as the attribute `prompt_hash`; answers only."""
    question.needs(LLM_CALLS, "prompt_hash")
    key = (_call.prompt_name, _call.model_name, _call.prompt_hash)
    asked = and_(*_conditions(question), _call.prompt_hash.is_not(None), _call.success)
    inner = (
        select(
            _call.prompt_name.label("prompt"),
            _call.model_name.label("model"),
            (func.count() - 1).label("repeated"),
            (func.sum(_call.cost_nano) * (func.count() - 1) / func.count()).label("nano"),
        )
        .where(asked)
        .group_by(*key)
        .having(func.count() > 1)
        .subquery()
    )
    column = inner.c
    query = select(column.prompt, column.model, func.sum(column.repeated), func.sum(column.nano))
    for prompt, model, repeated, nano in question.connection.execute(query.group_by(column.prompt, column.model)):
        yield Duplicates(prompt, model, int(repeated), to_decimal(_whole(nano), 0))


def idle_budgets(question: Question) -> Iterator[IdleBudget]:
    """Budgets per tenant on which nothing was booked since the question's start."""
    if on_clickhouse.is_on(question.connection):  # budgets are in another store
        return
    line = BUDGET_LEDGER.c
    newest = (
        select(line.budget, line.scope_key, func.max(line.updated_at).label("at"))
        .where(line.scope_key.contains(_TENANT, autoescape=True))
        .group_by(line.budget, line.scope_key)
        .having(func.max(line.updated_at) < question.start)
        .subquery()
    )
    query = select(line.budget, line.scope_key, line.unit, line.limit_units, line.limit_rest).where(
        line.budget == newest.c.budget, line.scope_key == newest.c.scope_key, line.updated_at == newest.c.at
    )
    for budget, scope, unit, units, rest in question.connection.execute(query):
        limit = None if units is None else to_decimal(units, rest) if unit == "usd" else Decimal(units)
        yield IdleBudget(budget, scope, unit, limit)


def _grouped(question: Question, keys: tuple[Any, ...], sums: tuple[Any, ...], *also: ColumnElement[bool]) -> Any:
    query = select(*keys, *sums).where(*_conditions(question), *also).group_by(*keys)
    return question.connection.execute(query)


def _conditions(question: Question) -> list[ColumnElement[bool]]:
    times = [_call.created_at >= question.start, _call.created_at < question.end]
    return [*times, *rows_where(question.filters)]


def _whole(value: Any) -> int:
    return int(value or 0)
