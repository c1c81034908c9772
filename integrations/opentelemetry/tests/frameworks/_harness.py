"""Runs the scenarios of one framework in this process, and prints what was recorded as JSON.

Run: python _harness.py NAME, with the folder of `_provider.py` on PYTHONPATH. NAME is a module of this folder that has
`SCENARIOS`: coroutine functions by name. The one named `cancel` is cancelled once its request hangs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

from _provider import Provider, serving
from _runs import cancel_under_way
from taskpilot_obs_opentelemetry import instrument
from taskpilot_obs_opentelemetry.instrumenting import _installed

from taskpilot_obs.records import Invocation
from taskpilot_obs.testing import capture_invocations

Scenario = Callable[[], Awaitable[object]]
BESIDE = {"strands": ("openai",), "agent_framework": ("openai",), "pydantic_ai": ("openai",), "langchain": ("openai",)}
"""What is instrumented as well, so that two layers see each call."""


def row(run: Invocation, names: dict[str, str]) -> dict[str, Any]:
    """What the tests look at."""
    usage = run.usage
    return {
        "operation": run.operation.value,
        "name": run.name,
        "above": names.get(run.parent_id or ""),
        "status": run.status.value,
        "tokens": usage and [*usage[:2], usage.cache_read_tokens, usage.reasoning_tokens],
        "priced": run.cost is not None,
        "provider": run.provider,
        "error": run.error_type,
        "streaming": run.streaming,
        "first_token": run.ttft_s is not None,
    }


def rows(runs: Sequence[Invocation]) -> list[dict[str, Any]]:
    """Runs in the order of their starts."""
    names = {run.invocation_id: run.name for run in runs}
    return [row(run, names) for run in sorted(runs, key=lambda run: run.start_unix_ns)]


def play(name: str, scenario: Scenario, server: Provider, loop: asyncio.Runner) -> dict[str, Any]:
    """Run one scenario."""
    server.calls.clear()
    raised = None
    with capture_invocations() as seen:

        async def run() -> object:
            return await (cancel_under_way(server, scenario()) if name == "cancel" else scenario())

        try:
            loop.run(run())
        except BaseException as error:
            raised = type(error).__name__
        gc.collect()
        found = rows(list(seen))
    bridge = _installed.bridge
    left = [] if bridge is None else [bridge.live, bridge.native.held]
    return {"http": len(server.calls), "raised": raised, "runs": found, "left": left}


def main(name: str) -> None:
    """Run all scenarios of one framework."""
    logging.disable(logging.CRITICAL)
    with serving() as server:
        os.environ.update(OPENAI_API_KEY="x", OPENAI_BASE_URL=f"{server.url}/v1")
        os.environ.update(ANTHROPIC_API_KEY="x", ANTHROPIC_BASE_URL=server.url)
        instrument(name, *BESIDE.get(name, ()))
        scenarios: dict[str, Scenario] = import_module(f"{name}_scenarios").SCENARIOS
        with asyncio.Runner() as loop:  # one loop, because clients keep connections
            print(json.dumps({key: play(key, scenario, server, loop) for key, scenario in scenarios.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
