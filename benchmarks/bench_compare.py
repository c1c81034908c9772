"""What comparing costs: a million calls compared and priced again on both engines, the runner's lag, an assignment.

python benchmarks/bench_compare.py [--calls 1000000] [--keep FOLDER] [--postgres URL] [--prepare]

With `--keep` the SQLite store is made once and used again; `--prepare` makes the stores and measures nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from sqlalchemy import func, select

from taskpilot_obs import request_context
from taskpilot_obs.compare import Experiment, compare, optimise, reprice
from taskpilot_obs.compare.bench import benchmark
from taskpilot_obs.compare.bench.pretend import Truth, pretend_providers
from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.records import Invocation, Operation, Status, Usage
from taskpilot_obs.store import Store, StoreExporter, aggregate_summaries, upgrade
from taskpilot_obs.store.tables import LLM_CALLS

END = datetime(2026, 11, 1, tzinfo=UTC)
MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4-5"),
    ("gcp.gemini", "gemini-2.5-flash"),
)
MONTH_S = 30 * 86_400
BATCH = 5_000
ROUNDS = 3
QUICK = Truth("pretend-swift", "openai", 0.05, 0.3, 1.0, 0.0)


def calls(number: int) -> Iterator[Invocation]:
    """Calls of a month."""
    chance = Random(1)
    table = PriceTable()
    for each in range(number):
        provider, model = chance.choice(MODELS)
        given = chance.randrange(50, 20_000)
        read = chance.randrange(given) if chance.random() < 0.3 else 0
        usage = Usage(given, chance.randrange(1, 2_000), cache_read_tokens=read)
        start = END - timedelta(seconds=MONTH_S * (1 - each / number) + 60)
        start_ns = int(start.timestamp()) * 10**9
        found = table.price(usage, provider=provider, request_model=model, response_model=model, at_unix_ns=start_ns)
        yield Invocation(
            status=Status.ERROR if chance.random() < 0.02 else Status.SUCCESS,
            duration_s=chance.lognormvariate(0, 0.6),
            operation=Operation.CHAT,
            name="chat",
            request_id=f"request-{each}",
            invocation_id=f"call-{each}",
            parent_id=None,
            workflow="triage",
            agent=f"agent-{each % 5}",
            start_unix_ns=start_ns,
            tenant=f"tenant-{each % 20}",
            request_model=model,
            response_model=model,
            canonical_model=model,
            provider=provider,
            usage=usage,
            cost=found.cost,
            cost_source=found.source,
            attributes={"prompt_name": f"prompt-{each % 7}"},
        )


def filled(url: str, number: int) -> None:
    """Write the calls, unless the store has them, and sum them up as a process that records them does by itself."""
    store = Store(url, create=True)
    upgrade(store)
    with store.reading() as connection:
        there = connection.execute(select(func.count()).select_from(LLM_CALLS)).scalar_one()
    store.close()
    if there < number:
        exporter = StoreExporter(url, aggregate_every_s=None)
        rest = calls(number)
        while batch := [*islice(rest, BATCH)]:
            exporter.export(batch)
        exporter.shutdown(60)
    aggregate_summaries("daily", None, store=url, now=END)


def best(work: Callable[[], object]) -> float:
    """Seconds, the best of some rounds."""
    return min(timeit.repeat(work, number=1, repeat=ROUNDS))


def line(what: str, found: float, bar: float, unit: str) -> None:
    """One figure beside its bar."""
    print(f"{what:44} {found:10.2f} {unit:3} (at most {bar:g}) {'ok' if found <= bar else 'MISSED'}", flush=True)


def questions(name: str, url: str) -> None:
    """Compare and price again."""
    now = END + timedelta(minutes=1)
    line(f"compare by model, {name}", best(lambda: compare("model", "31d", store=url, now=now)), 2, "s")
    line(f"compare by prompt, {name}", best(lambda: compare("prompt_name", "31d", store=url, now=now)), 2, "s")
    line(f"compare by variant (rows), {name}", best(lambda: compare("variant", "31d", store=url, now=now)), 2, "s")
    began = time.perf_counter()
    same = reprice("31d", store=url, now=now)
    line(f"reprice {same.total.calls:,} calls, {name}", time.perf_counter() - began, 10, "s")
    if same.total.booked_usd != same.total.repriced_usd:
        sys.exit(f"repriced {same.total.repriced_usd}, booked {same.total.booked_usd}")
    began = time.perf_counter()
    other = reprice("31d", as_model="gpt-4o-mini", store=url, now=now)
    line(f"reprice as gpt-4o-mini, {name}", time.perf_counter() - began, 10, "s")
    print(f"    booked {same.total.booked_usd}, as gpt-4o-mini {other.total.repriced_usd or Decimal(0)}")
    began = time.perf_counter()
    optimise("31d", store=url, now=now)
    print(f"    optimise, {name}: {time.perf_counter() - began:.2f} s")


def serve(pipe: Connection) -> None:
    """A pretend provider in a process of its own, as real ones are."""
    with pretend_providers([QUICK]) as server:
        pipe.send(server.specs())
        pipe.recv()


def lag() -> None:
    """How late the runner sends calls in an open loop of 50 a second, through OpenAI's SDK."""
    mine, theirs = multiprocessing.Pipe()
    provider = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    provider.start()
    report = benchmark(mine.recv(), iterations=25, warm_up=20, rate_per_s=50, arrivals="constant")
    mine.send("end")
    provider.join()
    (arm,) = report.arms.values()
    if arm.generator_lag is None:
        sys.exit("no call was made")
    line(f"runner's lag at 50/s, p99 of {arm.generator_lag.count}", arm.generator_lag.p99, 5, "ms")


def assignment() -> None:
    """An experiment's assignment."""
    experiment = Experiment("planner-prompt", {"v1": 0.5, "v2": 0.5})

    def bound() -> None:
        with experiment.assign("user-42"):
            pass

    number = 100_000
    with request_context("request-1"):
        cost = min(timeit.repeat(bound, number=number, repeat=9)) / number * 1e6
    line("assignment with its context", cost, 3, "µs")
    cost = min(timeit.repeat(lambda: experiment.variant_of("user-42"), number=number, repeat=9)) / number * 1e6
    line("the variant alone", cost, 3, "µs")


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--postgres")
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        stores = {"SQLite": f"sqlite:///{folder / 'compare.db'}"}
        if options.postgres:
            stores["PostgreSQL"] = options.postgres
        for url in stores.values():
            filled(url, options.calls)
        if options.prepare:
            return
        assignment()
        lag()
        for name, url in stores.items():
            questions(name, url)


if __name__ == "__main__":
    main()
