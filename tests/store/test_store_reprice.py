"""What recorded usage would have cost, on both engines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
import typer
from _stored import NOON, llm_call, store_at
from sqlalchemy import select
from typer.testing import CliRunner

from taskpilot_obs.cli import reprice as command
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.compare import Repriced, reprice
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.pricing import OwnPrice, PriceTable
from taskpilot_obs.records import Invocation, Usage
from taskpilot_obs.stats import get_cost_breakdown
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries
from taskpilot_obs.store.tables import LLM_CALLS

MODELS = (
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4-5"),
    ("gcp.gemini", "gemini-2.5-flash"),
)
TABLE = PriceTable()
AFTER = NOON + timedelta(days=2)


def month(calls: int = 400) -> list[Invocation]:
    """Calls as the recorder books them: priced by the table at their own time; some with caches, some without price."""
    chance = Random(3)
    return [_call(chance, number) for number in range(calls)]


def _call(chance: Random, number: int) -> Invocation:
    provider, model = chance.choice(MODELS)
    given = chance.randrange(1, 300_000)
    read = chance.randrange(given) if chance.random() < 0.4 else 0
    usage = Usage(given, chance.randrange(1, 4_000), cache_read_tokens=read, reasoning_tokens=chance.randrange(2))
    at = NOON - timedelta(minutes=chance.randrange(60 * 24))
    priced = TABLE.price(
        usage,
        provider=provider,
        request_model=model,
        response_model=model,
        at_unix_ns=int((at - timedelta(seconds=1)).timestamp()) * 10**9,
    )
    return llm_call(
        at,
        invocation_id=f"call-{number}",
        provider=provider,
        request_model=model,
        response_model=model,
        canonical_model=model,
        agent=f"agent-{number % 3}",
        usage=usage,
        cost=priced.cost,
        cost_source=priced.source,
        tenant=f"tenant-{number % 2}",
        price_gap=None,
    )


def write(url: str, calls: Sequence[Invocation]) -> None:
    with store_at(url):
        pass
    exporter = StoreExporter(url)
    exporter.export(calls)
    exporter.shutdown(30)


def test_unchanged_prices_give_what_was_booked_to_the_last_digit(url: str) -> None:
    """Without other prices, each group's repriced sum is the booked one, and both are what costs report."""
    write(url, month())
    for by in ("agent", "tenant", "model"):
        found = reprice("30d", by=by, store=url, now=AFTER)
        assert len(found.groups) == {"agent": 3, "tenant": 2, "model": 4}[by]
        for group in (*found.groups, found.total):
            assert group.booked_usd is not None
            assert group.repriced_usd == group.booked_usd
            assert group.difference_usd == Decimal(0)
            assert group.unknown_calls == group.unbooked_calls == 0
    total = get_cost_breakdown("30d", store=url, now=AFTER).cost_usd
    assert found.total.booked_usd == total


def test_as_another_model(url: str) -> None:
    """Every call is priced as the other model by its tokens; scaled prices scale the sum; the unknown stays unknown."""
    calls = month(50)
    unknown = llm_call(
        NOON, invocation_id="unknown", usage=None, cost=None, cost_source=None, agent="agent-0", refused=False
    )
    write(url, [*calls, unknown])
    found = reprice("30d", as_model="gpt-4o-mini", store=url, now=AFTER)
    expected = sum(map(as_mini, calls), Decimal(0))
    assert found.total.repriced_usd == expected
    assert (found.total.calls, found.total.unknown_calls, found.total.unbooked_calls) == (51, 1, 1)
    assert found.total.difference_usd == expected - sum((call.cost or Decimal(0) for call in calls), Decimal(0))
    sums = [_at(url, factor).total.repriced_usd for factor in (1, 3)]
    assert sums[0] is not None
    assert sums[1] == 3 * sums[0]


def as_mini(call: Invocation) -> Decimal:
    found = TABLE.explain("gpt-4o-mini", call.usage or Usage(), at_unix_ns=call.start_unix_ns)
    assert found is not None
    assert found.cost is not None
    return found.cost


def _at(url: str, factor: int) -> Repriced:
    own = PriceTable(own_prices=[OwnPrice(model="mine", input=Decimal(factor), output=Decimal(4 * factor))])
    return reprice("30d", prices=own, as_model="mine", store=url, now=AFTER)


def test_stated_costs_stand_unless_a_contract_covers_them(url: str) -> None:
    """What a provider stated does not come from a list: it stands, unless an own price is given."""
    stated = llm_call(
        NOON, provider="openai", request_model="gpt-4o", response_model="gpt-4o", canonical_model="gpt-4o",
        usage=Usage(1_000_000, 0), cost=Decimal("7.5"), cost_source="provider", agent="a",
    )  # fmt: skip
    write(url, [stated])
    assert reprice("30d", store=url, now=AFTER).total.repriced_usd == Decimal("7.5")
    contract = PriceTable(own_prices=[OwnPrice(model="gpt-4o", input=Decimal(1), output=Decimal(1))])
    found = reprice("30d", prices=contract, store=url, now=AFTER)
    assert (found.total.repriced_usd, found.total.difference_usd) == (Decimal(1), Decimal("-6.5"))


def test_applying_books_what_was_unpriced_and_nothing_else(url: str) -> None:
    """Unpriced calls get their cost with its source; booked figures stay, and applying again writes nothing."""
    calls = month(6)
    usage = Usage(1_000_000, 0)
    named = {"provider": "mine", "request_model": "own-model", "response_model": None, "canonical_model": "own-model"}
    unpriced = llm_call(
        NOON, invocation_id="unpriced", usage=usage, cost=None, cost_source=None, agent="agent-0", **named
    )
    lost = llm_call(NOON, invocation_id="lost", usage=None, cost=None, cost_source=None, agent="agent-0", **named)
    wrong = llm_call(
        NOON, invocation_id="wrong", usage=usage, cost=Decimal(9), cost_source="caller", agent="agent-0", **named
    )
    write(url, [*calls, unpriced, lost, wrong])
    aggregate_summaries("daily", store=url, now=AFTER)
    contract = PriceTable(own_prices=[OwnPrice(model="own-model", input=Decimal(2), output=Decimal(2))])
    before = get_cost_breakdown("30d", store=url, now=AFTER).cost_usd
    assert before is not None
    assert reprice("30d", prices=contract, store=url, now=AFTER).applied == 0
    assert reprice("30d", prices=contract, apply=True, store=url, now=AFTER).applied == 1
    assert reprice("30d", prices=contract, apply=True, store=url, now=AFTER).applied == 0
    rows = _costs(url)
    assert rows["unpriced"][:2] == (2 * 10**9, 0)
    assert rows["unpriced"][2] == f"repriced {AFTER:%Y-%m-%d}: own price"
    assert rows["lost"] == (None, None, None)
    assert rows["wrong"] == (9 * 10**9, 0, "caller")
    assert get_cost_breakdown("30d", store=url, now=AFTER).cost_usd == before + 2
    aggregate_summaries("daily", store=url, now=AFTER)
    assert get_cost_breakdown("30d", store=url, now=AFTER).cost_usd == before + 2


def _costs(url: str) -> dict[str, Any]:
    call = LLM_CALLS.c
    store = Store(url)
    with store.reading() as connection:
        found = connection.execute(select(call.telemetry_id, call.cost_nano, call.cost_rest, call.cost_source))
        rows = {line[0]: tuple(line[1:]) for line in found}
    store.close()
    return rows


def test_wrong_questions_are_refused(url: str) -> None:
    """A model without a price, an unknown grouping, and booking another model's prices are errors."""
    write(url, month(1))
    with pytest.raises(ConfigurationError, match="'nosuch' has no price"):
        reprice("30d", as_model="nosuch", store=url)
    with pytest.raises(ConfigurationError, match="allowed are agent"):
        reprice("30d", by="nosuch", store=url)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"at: .* needs a time zone"):
        reprice("30d", at=datetime(2026, 1, 1), store=url)  # noqa: DTZ001  wrong on purpose
    with pytest.raises(ConfigurationError, match="leave out as_model"):
        reprice("30d", as_model="gpt-4o", apply=True, store=url)


def test_the_command(tmp_path: Path) -> None:
    """The command shows booked, repriced and difference by group, and --json has exact amounts."""
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    now = datetime.now(UTC)
    write(url, [call._replace(start_unix_ns=int((now - timedelta(hours=1)).timestamp()) * 10**9) for call in month(20)])
    app = typer.Typer()
    add_commands(app, command)
    options = ["--store", url, "--since", "2h", "--as-model", "gpt-4o-mini"]
    shown = CliRunner().invoke(app, options, env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    assert "Recorded usage as gpt-4o-mini" in shown.stdout
    assert "agent-1" in shown.stdout
    assert CliRunner().invoke(app, [*options, "--csv"]).stdout.startswith("agent,calls,booked_usd,unbooked_calls")
    assert '"repriced_usd": "' in CliRunner().invoke(app, [*options, "--json"]).stdout
    assert CliRunner().invoke(app, ["--store", url, "--at", "x"]).exit_code == 2
