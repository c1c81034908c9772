"""What requests that users rated cost, by group of LLM calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, case, exists, func, or_, select, tuple_

from taskpilot_obs._telemetry.counts import joined
from taskpilot_obs._telemetry.money import to_decimal
from taskpilot_obs._telemetry.values import PRICING
from taskpilot_obs.records import Pricing
from taskpilot_obs.store.filters import rows_where
from taskpilot_obs.store.tables import FEEDBACK, LLM_CALLS
from taskpilot_obs.store.wide import wide_sum

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from sqlalchemy import ColumnElement

    from taskpilot_obs.store.questions import Question

_call = LLM_CALLS.c


class Rated(NamedTuple):
    """The rated requests of one group."""

    requests: int
    correct: int
    """Those that users confirmed, by the last verdict on each."""
    cost: Decimal
    """Of their calls with a known price."""
    unpriced: int
    """Their calls without one."""


def rated_by(question: Question, dimensions: Sequence[str]) -> dict[tuple[str, ...], Rated]:
    """The rated requests of a question, by the values of the dimensions; an empty text stands for none.

    Verdicts and calls both lie in the question's stretch of time, and a request with calls of two groups is in both.

    Args:
        question: about calls whose rows are kept.
        dimensions: columns of the calls.
    """
    verdict = FEEDBACK.alias("verdict")
    columns = [func.coalesce(_call[name], "") for name in dimensions]
    request = func.count(_call.request_id.distinct())
    query = (
        select(
            *columns,
            request,
            request.filter(verdict.c.correct),
            *wide_sum(_call.cost_nano),
            func.sum(_call.cost_rest),
            func.sum(case((_lacks_price(question.version), 1), else_=0)),
        )
        .join_from(verdict, LLM_CALLS, _call.request_id == verdict.c.request_id)
        .where(
            _is_last(verdict, question),
            _call.organization_id.is_not_distinct_from(verdict.c.organization_id),
            _call.created_at >= question.start,
            _call.created_at < question.end,
            *rows_where(question.filters),
        )
        .group_by(*columns)
    )
    found = {}
    for line in question.connection.execute(query):
        requests, correct, high, low, rest, unpriced = line[len(columns) :]
        key = tuple(line[: len(columns)])
        found[key] = Rated(requests, correct, to_decimal(joined(high, low), rest), unpriced or 0)
    if not columns and not found[()].requests:
        return {}
    return found


def _is_last(verdict: Any, question: Question) -> ColumnElement[bool]:
    """Whether it is the last verdict on its request, given in the question's stretch of time.

    Of two in one microsecond, a revision is the later one, then the one with the larger ID.
    """
    given, later = verdict.c, FEEDBACK.alias("later").c
    revised = exists().where(
        later.request_id == given.request_id,
        later.organization_id.is_not_distinct_from(given.organization_id),
        tuple_(*_order(later)) > tuple_(*_order(given)),
        later.created_at < question.end,
    )
    within = and_(given.created_at >= question.start, given.created_at < question.end)
    return and_(within, given.request_id != "", ~revised)


def _order(verdict: Any) -> tuple[Any, ...]:
    return verdict.created_at, verdict.revision, verdict.feedback_id


def _lacks_price(version: str) -> ColumnElement[bool]:
    unknown = and_(_call.cost_nano.is_(None), or_(_call.cached.is_(None), _call.cached.is_(False)))
    if version < "0004":  # before the column `pricing`
        return unknown
    return and_(unknown, or_(_call.pricing.is_(None), _call.pricing != PRICING[Pricing.FREE]))
