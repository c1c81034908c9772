"""The sums of a run, and which of them account for the result of an agent."""

from __future__ import annotations

from decimal import Decimal

import pytest

from taskpilot_obs._recording.rollups import Totals, sum_of
from taskpilot_obs.records import Rollup, Usage
from taskpilot_obs.semconv import Attr

CALL = Usage(150, 30)
RESULT = Usage(300, 60)
"""What two such calls take."""


def after(calls: int) -> Totals:
    """The sums of so many calls, booked one by one."""
    totals = Totals()
    for _ in range(calls):
        assert totals.book(CALL, sums=0)
    return totals


def test_a_result_is_left_to_its_calls_once() -> None:
    """Two calls account for one result of two calls; the next one is booked."""
    totals = after(2)
    assert not totals.book(RESULT, sums=2)
    assert totals.book(RESULT, sums=2)
    assert (totals.llm_calls, totals.tokens) == (3, 2 * 180 + 360)


@pytest.mark.parametrize("usage", [Usage(301, 60), Usage(300, 61)])
def test_the_tokens_of_a_result_are_used_up(usage: Usage) -> None:
    """Calls that are left over account for the next result only if their tokens are enough."""
    for second, is_added in ((RESULT, False), (usage, True)):
        totals = after(4)
        assert not totals.book(RESULT, sums=2)
        assert totals.book(second, sums=2) is is_added


def test_the_calls_of_a_result_are_used_up() -> None:
    """Two long calls account for one result of two calls, although their tokens would do for another."""
    totals = Totals()
    for _ in range(2):
        assert totals.book(RESULT, sums=0)
    assert [totals.book(RESULT, sums=2) for _ in range(2)] == [False, True]


def test_a_booked_result_is_one_call_and_accounts_for_no_other() -> None:
    """The tokens of a result that was added are those of one call, which a second result cannot claim."""
    totals = Totals()
    assert totals.book(RESULT, sums=2)
    assert totals.book(Usage(1, 1), sums=1)
    assert (totals.llm_calls, totals.unpriced_calls, totals.tokens) == (2, 0, 362)


def test_what_results_claim_adds_up() -> None:
    """Calls and tokens that several results have claimed account for no further result."""
    totals = after(6)
    for _ in range(2):
        totals.claim(2, RESULT)
    assert totals.accounts_for(2, RESULT)
    assert not totals.accounts_for(2, Usage(300, 61))
    assert not totals.accounts_for(2, Usage(301, 60))
    totals.claim(0, Usage(None, None))
    assert totals.accounts_for(2, RESULT)
    totals.claim(2, None)
    assert not totals.accounts_for(1, None)


def test_a_result_without_counts_is_left_to_any_calls() -> None:
    """A result that states no tokens is accounted for by the number of calls alone."""
    assert after(2).accounts_for(2, None)
    assert not after(1).accounts_for(2, None)


def test_a_sum_adds_every_figure() -> None:
    """The sum of several runs adds calls, tokens, cost, tools and violations; none of its parts changes."""
    one, two = Totals(), Totals()
    one.add_llm_call(CALL, Decimal("0.5"), priced=True)
    two.add_llm_call(RESULT, None, priced=False)
    two.tool_calls, two.violations = 3, 2
    total = sum_of([one, two])
    assert total.frozen() == Rollup(450, 90, Decimal("0.5"), 2, 1, 3, 2)
    assert one.frozen() == Rollup(150, 30, Decimal("0.5"), 1, 0, 0, 0)
    assert sum_of([one]) is one
    assert sum_of(None).frozen() == sum_of([]).frozen() == Totals().frozen()


def test_a_cost_is_on_a_span_once_a_call_has_a_price() -> None:
    """Sums of calls without any price have no cost, and so have the sums of no call."""
    totals = Totals()
    assert Attr.ROLLUP_COST not in totals.as_attributes()
    totals.add_llm_call(CALL, None, priced=False)
    assert Attr.ROLLUP_COST not in totals.as_attributes()
    totals.add_llm_call(CALL, Decimal("0.25"), priced=True)
    assert totals.as_attributes()[Attr.ROLLUP_COST] == 0.25
    assert totals.as_attributes()[Attr.ROLLUP_LLM_CALLS] == 2
