"""Money on both engines."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from _figures import measured
from _stored import NOON, clear, llm_call, task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from taskpilot_obs._telemetry.money import LIMIT_USD, Money, from_decimal, to_decimal
from taskpilot_obs.records import Rollup
from taskpilot_obs.store import Store, aggregate_summaries
from taskpilot_obs.store.queries import totals
from taskpilot_obs.store.questions import asked_of
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.tasks import tasks
from taskpilot_obs.store.writer import Writer

amounts = st.decimals(min_value=0, max_value=10**9, places=12, allow_nan=False, allow_infinity=False)


@pytest.mark.promise("exact-money")
@given(amounts)
def test_an_amount_survives_two_integers(amount: Decimal) -> None:
    """Every amount of up to a billion USD with twelve decimals comes back as it went in."""
    assert to_decimal(*from_decimal(amount)) == amount


@given(st.lists(amounts, max_size=50))
def test_the_columns_add_up_apart(sums: list[Decimal]) -> None:
    """The sum of amounts is the sum of their first integers and that of their second."""
    pairs = [from_decimal(amount) for amount in sums]
    total = to_decimal(sum(pair.nano for pair in pairs), sum(pair.rest for pair in pairs))
    assert total == sum(sums, Decimal(0))


@pytest.mark.parametrize("amount", ["NaN", "Infinity", str(LIMIT_USD + 1)])
def test_what_no_column_holds_is_refused(amount: str) -> None:
    """An amount that is not a number, or too large, is an error and not stored as another amount."""
    with pytest.raises(ValueError, match="an amount of USD"):
        from_decimal(Decimal(amount))


def test_a_finer_amount_is_rounded_half_to_even() -> None:
    """Beyond twelve decimals the amount is rounded."""
    assert from_decimal(Decimal("0.0000000000005")) == Money(0, 0)
    assert from_decimal(Decimal("0.0000000000015")) == Money(0, 2)


@pytest.mark.promise("exact-money")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sums=st.lists(amounts, min_size=1, max_size=8).filter(lambda sums: sum(sums) <= 10**9))
def test_sums_are_exact_in_the_database(store: Store, sums: list[Decimal]) -> None:
    """Rows, and the summaries made of them, add up to a billion USD without losing a trillionth of one."""
    clear(store)
    Writer(store).write(rows_of([llm_call(NOON + timedelta(hours=n), cost=cost) for n, cost in enumerate(sums)]))
    assert _cost(store) == sum(sums)
    aggregate_summaries("daily", None, store=store)
    assert _cost(store) == sum(sums)


def _cost(store: Store) -> Decimal:
    with asked_of(store, NOON - timedelta(days=2), NOON + timedelta(days=2)) as question:
        return totals(question.connection, question.plan(), question.filters)[()].cost


def test_people_read_a_cost_in_usd(store: Store) -> None:
    """The database itself shows the cost as one number, exact on PostgreSQL."""
    Writer(store).write(rows_of([llm_call(cost=Decimal("0.000000000001"))]))
    with store.reading() as connection:
        cost = connection.execute(text("SELECT cost FROM llm_call_telemetry")).scalar_one()
    assert cost == (1e-12 if store.is_sqlite else Decimal("0.000000000001"))


@pytest.mark.promise("exact-money")
def test_billions_in_one_row(store: Store) -> None:
    """A single row holds a billion USD and a trillionth."""
    much = Decimal("1000000000.000000000001")
    Writer(store).write(rows_of([llm_call(cost=much)]))
    assert _cost(store) == much
    measured("exact-money", usd=f"{_cost(store):,}")


def test_absurd_costs_end_no_answer(store: Store) -> None:
    """Rows whose sum no column holds still add up, and are summed up as far as a column goes; other hours are exact."""
    costs = [Decimal(LIMIT_USD), Decimal(LIMIT_USD), Decimal("0.000000000001")]
    calls = [llm_call(NOON, cost=cost) for cost in costs]
    Writer(store).write(rows_of([*calls, llm_call(NOON + timedelta(hours=1), cost=Decimal(2))]))
    Writer(store).write(rows_of([task(rollup=Rollup(0, 0, cost, 1, 0, 0, 0)) for cost in costs]))
    assert _cost(store) == sum(costs) + 2
    with store.reading() as connection:
        runs = tasks(connection, NOON - timedelta(days=2), NOON + timedelta(days=2))
    assert sum(each.cost for each in runs.values()) == sum(costs)
    assert aggregate_summaries("daily", None, store=store) == 3
    assert LIMIT_USD <= _cost(store) <= sum(costs) + 2
