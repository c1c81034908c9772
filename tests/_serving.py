"""A server over a store, on a real socket; and what its tests put into the store."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvicorn
from _stored import NOON, denial, llm_call, sqlite_url, store_at, task, unix_ns
from fastapi import FastAPI

from taskpilot_obs.records import Feedback, Operation, Origin, Record, Rollup, Status
from taskpilot_obs.server.running import listening
from taskpilot_obs.server.tokens import create_token
from taskpilot_obs.store import Store
from taskpilot_obs.store.ledger_tables import BENCHMARK_CALLS, BENCHMARK_RUNS
from taskpilot_obs.store.rows import rows_of
from taskpilot_obs.store.writer import Writer

PRESENT = NOON + timedelta(minutes=30)
"""What the servers of these tests take for now."""
READY_WITHIN_S = 20.0


def present() -> datetime:
    """The present of these tests."""
    return PRESENT


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application under uvicorn on a free loopback port, until the end of the block; yields its URL."""
    with listening("127.0.0.1", 0) as made:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", server_header=False, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [made]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + READY_WITHIN_S
        while not server.started:
            assert thread.is_alive(), "uvicorn ended"
            assert time.monotonic() < deadline, "uvicorn did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{made.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(READY_WITHIN_S)
            assert not thread.is_alive(), "uvicorn did not stop"


def fill(store: Store, records: Sequence[Record]) -> None:
    """Write records."""
    Writer(store).write(rows_of(records))


def budget_store_of(store: Store, folder: Path) -> str | None:
    """Where a server finds budgets: beside a store in ClickHouse, which keeps none."""
    if not store.is_clickhouse:
        return None
    with store_at(sqlite_url(folder)):
        return sqlite_url(folder)


def tokens_in(folder: Path) -> tuple[Path, dict[str, str]]:
    """A token file, and the tokens by name: `acme`, `globex` (viewers), `writer` of acme, `root` (admin of all)."""
    file = folder / "tokens.toml"
    made = {
        "acme": create_token(file, "acme", "viewer", "acme"),
        "globex": create_token(file, "globex", "viewer", "globex"),
        "writer": create_token(file, "writer", "writer", "acme"),
        "owner": create_token(file, "owner", "admin", "acme"),
        "root": create_token(file, "root", "admin", "*"),
    }
    return file, made


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


MODELS = (("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4"), ("openai", "gpt-4o-mini"))


def requests_of(tenant: str, amount: int, *, seed: int = 1, spread_s: float = 3_600.0) -> list[Record]:
    """Some requests of one tenant in the time before the present: a workflow, an agent, a tool, two LLM calls each."""
    chance = random.Random(seed)
    found: list[Record] = []
    for number in range(amount):
        at = PRESENT - timedelta(seconds=1 + chance.random() * spread_s)
        found += _request(tenant, f"{tenant}-{number}", at, chance)
    return found


def _request(tenant: str, request_id: str, at: datetime, chance: random.Random) -> list[Record]:
    provider, model = chance.choice(MODELS)
    status = chance.choices([Status.SUCCESS, Status.ERROR], [9, 1])[0]
    shared: dict[str, Any] = {"request_id": request_id, "tenant": tenant, "workflow": f"{tenant}-flow"}
    names = {"agent": f"{tenant}-agent", "user": f"{tenant}-user"}
    tried = {"experiment": "plan-test", "variant": chance.choice(["v1", "v2"]), "experiment_unit": request_id[-1]}
    root = task(
        at,
        invocation_id=f"{request_id}/w",
        duration_s=3.0,
        status=status,
        name=f"{tenant}-flow",
        attributes=tried,
        **shared,
    )
    agent = task(
        at - timedelta(seconds=0.5),
        invocation_id=f"{request_id}/a",
        duration_s=2.0,
        operation=Operation.AGENT,
        name=f"{tenant}-agent",
        parent_id=root.invocation_id,
        is_task=False,
        rollup=Rollup(2_000, 400, Decimal("0.02"), 2, 0, 1, 0),
        **shared,
    )
    tool = task(
        at - timedelta(seconds=1),
        invocation_id=f"{request_id}/t",
        duration_s=0.2,
        operation=Operation.TOOL,
        name=f"{tenant}-tool",
        parent_id=agent.invocation_id,
        is_task=False,
        rollup=None,
        **shared,
    )
    calls = [
        llm_call(
            at - timedelta(seconds=1 + turn * 0.7),
            invocation_id=f"{request_id}/{turn}",
            parent_id=agent.invocation_id,
            duration_s=chance.uniform(0.1, 0.6),
            provider=provider,
            request_model=model,
            response_model=model,
            cost=Decimal(chance.randrange(1, 10_000)).scaleb(-6),
            status=status,
            error_category="rate_limit" if status is Status.ERROR else None,
            attributes={"prompt_name": f"{tenant}-prompt"},
            **names,
            **shared,
        )
        for turn in range(2)
    ]
    denied = denial(at)._replace(origin=Origin(request_id=request_id, tenant=tenant), name=f"{tenant}-policy")
    said = Feedback(
        request_id, chance.random() < 0.8, revision=False, origin=Origin(tenant=tenant), time_unix_ns=unix_ns(at)
    )
    return [root, agent, tool, *calls, *([denied] if chance.random() < 0.2 else []), said]


ARMS = (("openai/gpt-4o", 700.0, 0.9), ("local/small", 150.0, 0.5))


def benchmark_run(store: Store, run_id: str = "run-1", calls: int = 20) -> None:
    """A finished run of the benchmark with two arms, one call of each to warm up; a store in ClickHouse keeps none."""
    if store.is_clickhouse:
        return
    findings = [
        {"measure": "correct answers", "best": ["openai/gpt-4o"], "worse": ["local/small"]},
        {"measure": "success", "best": ["openai/gpt-4o", "local/small"], "worse": []},
    ]
    run = {
        "run_id": run_id,
        "created_at": PRESENT - timedelta(hours=1),
        "finished_at": PRESENT - timedelta(minutes=50),
        "name": "before the release",
        "status": "finished",
        "seed": 7,
        "settings": json.dumps({"iterations": calls}),
        "summary": json.dumps({"findings": findings}),
    }
    rows = [_benchmark_call(run_id, arm, number) for arm in ARMS for number in range(calls + 1)]
    failed = {"status": "error", "success": False, "correct": None, "latency_ms": 1.0, "time_to_first_token_ms": 1.0}
    rows.append({**rows[-1], **failed, "call_id": f"{run_id}/failed"})
    with store.writing() as connection:
        connection.execute(BENCHMARK_RUNS.insert(), run)
        connection.execute(BENCHMARK_CALLS.insert(), rows)


def _benchmark_call(run_id: str, arm: tuple[str, float, float], number: int) -> dict[str, Any]:
    name, latency_ms, correct = arm
    provider, _, model = name.partition("/")
    return {
        "call_id": f"{run_id}/{name}/{number}",
        "run_id": run_id,
        "created_at": PRESENT - timedelta(hours=1) + timedelta(seconds=number),
        "arm": name,
        "provider": provider,
        "model_name": model,
        "iteration": number,
        "warm_up": number == 0,
        "status": "success",
        "success": True,
        "correct": number / 20 <= correct,
        "latency_ms": latency_ms + number if number else 60_000.0,
        "time_to_first_token_ms": None if provider == "local" else 100.0 + number,
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_nano": None if provider == "local" else 1_000_000,
        "cost_rest": None if provider == "local" else 0,
    }
