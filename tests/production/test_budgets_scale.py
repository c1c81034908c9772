"""Budgets equal the calls, to the last digit, over many calls of several processes with many threads each.

`TASKPILOT_OBS_BUDGET_CALLS=1000000` makes it as many; by default it is what a full run has time for. docs/budgets.md
has the result of a million.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from _figures import KEPT, measured
from _postgres import postgres_server
from _stored import new_database

from taskpilot_obs.budgets import Budget, budget_status
from taskpilot_obs.store import Store, upgrade
from taskpilot_obs.testing import fresh_recorder

CALLS = int(os.environ.get("TASKPILOT_OBS_BUDGET_CALLS", "20000"))
STATED = 1_000_000
"""So many calls docs/budgets.md is about."""
PROCESSES = 4
THREADS = 16
LIMIT = "1000000"

CHILD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from taskpilot_obs import configure, flush, track_llm
from taskpilot_obs.budgets import Budget
url, calls, threads, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
configure(budgets=[Budget("team", limit_usd=limit, action="enforce", period="total")], budget_store=url)
def call(number):
    tokens_in, tokens_out = 100 + number % 7, 10 + number % 3
    with track_llm(model="gpt-4o", input_tokens=120, max_output_tokens=20) as run:
        if number % 50 == 0:
            run.set_cost(Decimal("0.000123456789"))
        run.record_usage(input_tokens=tokens_in, output_tokens=tokens_out)
def calls_of(thread):
    for number in range(thread, calls, threads):
        call(number)
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(calls_of, range(threads)))
assert flush(300)
"""


def cost(number: int) -> Decimal:
    """What call `number` costs, in USD: GPT-4o at 2.50 and 10 USD a million, or what is stated for it."""
    if number % 50 == 0:
        return Decimal("0.000123456789")
    return (Decimal("2.5") * (100 + number % 7) + Decimal(10) * (10 + number % 3)) / 1_000_000


@contextmanager
def store_at(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield with_tables(f"sqlite:///{folder / 'budgets.db'}")
        return
    with postgres_server() as server:
        yield with_tables(new_database(server))


def with_tables(url: str) -> str:
    store = Store(url, create=True)
    upgrade(store)
    store.close()
    return url


def test_the_sum_that_is_stated() -> None:
    """What the page states of a million calls is the sum of their costs, to which the next test holds both ledgers."""
    total = PROCESSES * sum(map(cost, range(STATED // PROCESSES)), Decimal(0))
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["budget-millions"]
    assert (kept["calls"], Decimal(kept["usd"])) == (STATED, total)


@pytest.mark.promise("budget-millions")
@pytest.mark.full
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_budgets_equal_the_calls(kind: str, tmp_path: Path) -> None:
    """What the store says is the sum of what was called, and nothing stays reserved."""
    faulthandler.cancel_dump_traceback_later()  # pytest's watchdog allows four minutes, and a million calls take more
    each = CALLS // PROCESSES
    with store_at(kind, tmp_path) as url:
        command = [sys.executable, "-c", CHILD, url, str(each), str(THREADS), LIMIT]
        children = [subprocess.Popen(command, cwd=tmp_path) for _ in range(PROCESSES)]
        try:
            assert [child.wait() for child in children] == [0] * PROCESSES
        finally:
            for child in children:
                child.kill()
        team = Budget("team", limit_usd=LIMIT, action="enforce", period="total")  # however often midnight passes
        with fresh_recorder(budgets=[team], budget_store=url):
            (status,) = budget_status([team])
    assert status.spent == PROCESSES * sum(map(cost, range(each)), Decimal(0))
    assert status.refusals == status.reserved == status.assumed == 0
    if CALLS == STATED:
        measured("budget-millions", calls=CALLS, usd=f"{status.spent.normalize():f}")
