"""Where money could be saved, on both engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
from _stored import NOON, llm_call, store_at
from sqlalchemy import insert
from typer.testing import CliRunner

from taskpilot_obs.cli import optimise as command
from taskpilot_obs.compare import Saving, optimise
from taskpilot_obs.records import Invocation, Status, Usage
from taskpilot_obs.store import Store, StoreExporter
from taskpilot_obs.store.ledger_tables import BUDGET_LEDGER

AFTER = NOON + timedelta(hours=1)


def write(url: str, calls: Sequence[Invocation]) -> None:
    with store_at(url):
        pass
    exporter = StoreExporter(url)
    exporter.export(calls)
    exporter.shutdown(30)


def calls(n: int, failing: int = 0, **given: Any) -> Iterator[Invocation]:
    """Calls of a prompt, of which some fail; costs scatter a little."""
    cost, prompt = Decimal(given.pop("cost", "0.01")), given.pop("prompt", "plan")
    for number in range(n):
        failed = number < failing
        yield llm_call(
            NOON - timedelta(seconds=number),
            status=Status.ERROR if failed else Status.SUCCESS,
            cost=cost * (1 + Decimal(number % 5) / 100),
            attributes={"prompt_name": prompt, **given.get("attributes", {})},
            **{name: value for name, value in given.items() if name != "attributes"},
        )


def model(name: str, provider: str = "openai") -> dict[str, Any]:
    return {"request_model": name, "response_model": name, "canonical_model": name, "provider": provider}


def found(url: str, kind: str) -> list[Saving]:
    return [saving for saving in optimise("30d", store=url, now=AFTER).savings if saving.kind == kind]


SMALL = Usage(100, 50)


def test_a_cheaper_model_that_is_as_good(url: str) -> None:
    """A model is offered where the prompt ran on both, it costs less, and its success is as good within the margin."""
    write(
        url,
        [
            *calls(600, 6, cost="0.10", usage=SMALL, **model("gpt-4o")),
            *calls(600, 3, cost="0.01", usage=SMALL, **model("gpt-4o-mini")),
            *calls(600, 60, cost="0.001", usage=SMALL, **model("gpt-3.5-turbo")),
            *calls(600, 6, cost="0.10", usage=SMALL, prompt="other", **model("gpt-4o")),
            *calls(20, 0, cost="0.01", usage=SMALL, prompt="other", **model("gpt-4o-mini")),
        ],
    )
    (offer,) = found(url, "cheaper model")
    assert offer.subject == "plan: gpt-4o → gpt-4o-mini"
    assert offer.estimate_usd is not None
    assert offer.low_usd is not None
    assert offer.high_usd is not None
    assert float(offer.estimate_usd) == pytest.approx(600 * 0.09 * 1.02, rel=1e-6)
    assert offer.low_usd < offer.estimate_usd < offer.high_usd < Decimal(60)
    assert "99.0 % successful" in offer.evidence
    assert optimise("30d", store=url, now=AFTER).savings[0] == offer


def test_few_calls_are_no_evidence_of_equal_success(url: str) -> None:
    """A cheaper model with as good a record over few calls is not offered: it may be worse by more than the margin."""
    write(
        url,
        [
            *calls(600, 6, cost="0.10", usage=SMALL, **model("gpt-4o")),
            *calls(60, 1, cost="0.01", usage=SMALL, **model("gpt-4o-mini")),
        ],
    )
    assert found(url, "cheaper model") == []


def test_prompts_whose_beginning_could_be_cached(url: str) -> None:
    """Long prompts that are never read from the cache are found, with the most that a cache could save."""
    long, read = Usage(4_000, 50), Usage(4_000, 50, cache_read_tokens=3_900)
    write(
        url,
        [
            *calls(100, usage=long, prompt="long", **model("gpt-4o")),
            *calls(100, usage=read, prompt="cached", **model("gpt-4o")),
            *calls(100, usage=SMALL, prompt="short", **model("gpt-4o")),
        ],
    )
    (saving,) = found(url, "uncached prefix")
    assert saving.subject == "long on gpt-4o"
    assert (saving.low_usd, saving.high_usd) == (Decimal(0), 100 * 4_000 * Decimal("1.25") / 1_000_000)


def test_reasoning_for_short_answers(url: str) -> None:
    """Reasoning that is most of the output of short answers is found; its cost is the most that can be saved."""
    write(
        url,
        [
            *calls(100, usage=Usage(100, 1_000, reasoning_tokens=990), prompt="simple", **model("o3-mini")),
            *calls(100, usage=Usage(100, 1_000, reasoning_tokens=600), prompt="hard", **model("o3-mini")),
        ],
    )
    (saving,) = found(url, "reasoning")
    assert saving.subject == "simple on o3-mini"
    assert saving.high_usd == 100 * 990 * Decimal("4.40") / 1_000_000
    assert saving.low_usd == 0


def test_calls_that_gave_no_answer(url: str) -> None:
    """What abandoned streams and failed calls cost is found by agent; those of unknown cost widen the estimate."""
    left = {"status": Status.ABANDONED, "agent": "writer"}
    booked = [llm_call(NOON, cost=Decimal("0.5"), **left) for _ in range(4)]
    write(url, [*booked, llm_call(NOON, cost=None, usage=None, **left), *calls(5)])
    (saving,) = found(url, "lost calls")
    assert saving.subject == "writer: abandoned"
    assert (saving.estimate_usd, saving.low_usd, saving.high_usd) == (Decimal(2), Decimal(0), Decimal("2.5"))
    assert "1 of them have no known cost" in saving.uncertainty


def test_repeated_prompts(url: str) -> None:
    """Answers to a prompt that was asked before are found by the hash that the application states, and only by it."""
    same = [llm_call(NOON, cost=Decimal("0.3"), attributes={"prompt_name": "p", "prompt_hash": "h"}) for _ in range(3)]
    once = [llm_call(NOON, cost=Decimal(9), attributes={"prompt_name": "p", "prompt_hash": f"h{n}"}) for n in range(3)]
    write(url, [*same, *once, *calls(5, cost="3")])
    (saving,) = found(url, "duplicates")
    assert (saving.estimate_usd, saving.subject) == (Decimal("0.6"), "p on gpt-4o")


def test_budgets_of_tenants_who_are_gone(url: str) -> None:
    """A tenant's budget on which nothing was booked in the period is named with its limit, below all estimates."""
    write(url, [*calls(3)])
    long_ago = NOON - timedelta(days=90)
    line = {
        "budget": "each", "period": "month", "unit": "usd", "spent_units": 5, "spent_rest": 0, "reserved_units": 0,
        "reserved_rest": 0, "refusals": 0, "alerted_permille": 0, "assumed_units": 0, "assumed_rest": 0,
        "limit_units": 50 * 10**9, "limit_rest": 0, "period_start": long_ago,
    }  # fmt: skip
    store = Store(url)
    with store.writing() as connection:
        connection.execute(
            insert(BUDGET_LEDGER),
            [
                {**line, "scope_key": '{"tenant": "gone"}', "updated_at": long_ago},
                {**line, "scope_key": '{"tenant": "here"}', "updated_at": NOON},
                {**line, "scope_key": "", "updated_at": long_ago},
            ],
        )
    store.close()
    (saving,) = found(url, "idle budget")
    assert saving.subject == 'each {"tenant": "gone"}'
    assert "$50.00" in saving.evidence
    assert saving.estimate_usd is None


def test_nothing_to_save(url: str) -> None:
    """Where all is well, nothing is recommended; every recommendation states its uncertainty."""
    write(url, [*calls(80, usage=SMALL)])
    assert optimise("30d", store=url, now=AFTER).savings == ()


@pytest.mark.parametrize("spelt", ["optimise", "optimize"])
def test_the_command(tmp_path: Path, spelt: str) -> None:
    """Both spellings show each saving with what was seen, what is not known and what to do; CSV has the amounts."""
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    write(url, [llm_call(NOON, cost=Decimal("0.5"), status=Status.ABANDONED, agent="writer")])
    app = typer.Typer()
    command.register(app)
    period = ["--store", url, "--period", f"{NOON:%Y-%m}"]
    shown = CliRunner().invoke(app, [spelt, *period], env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    for told in ("writer: abandoned", "$0.50", "seen:", "not known:", "do:"):
        assert told in shown.stdout
    assert "lost calls,writer: abandoned,0.50" in CliRunner().invoke(app, [spelt, *period, "--csv"]).stdout
    assert '"estimate_usd": "0.5' in CliRunner().invoke(app, [spelt, *period, "--json"]).stdout
