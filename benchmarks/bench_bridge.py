"""What the bridge costs beside the spans that it reads, and what `instrument()` and `taskpilot-obs run` take.

Run: python benchmarks/bench_bridge.py [--quick]

A pair of spans is an agent and the model call beneath it, with the attributes that the conventions name. What the
bridge adds to it is shown beside the pair alone (bar: 3 times). `instrument()` is measured in processes of its own: in
one that has imported no SDK, in one that has, and in one that has imported what `instrument()` imports as well, so that
what is left is its time beyond the imports (bar: 150 ms).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer
from taskpilot_obs_opentelemetry import GenAiBridge

from taskpilot_obs import configure

QUICK = "--quick" in sys.argv
ROUNDS, PAIRS = (8, 200) if QUICK else (40, 500)
BAR_TIMES, BAR_MS = 3.0, 150.0
AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "Planner"}
CALL: dict[str, str | int] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.provider.name": "openai",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 20,
}
INSTRUMENT = """
import sys, time
from contextlib import suppress
from importlib import import_module
from taskpilot_obs_opentelemetry import instrument
for name in sys.argv[1:]:
    with suppress(ImportError):  # some modules can be imported by their own package alone
        import_module(name)
before = set(sys.modules)
start = time.perf_counter()
instrument()
print((time.perf_counter() - start) * 1e3, *(name for name in sys.modules if name not in before))
"""
SDKS = ("openai", "pydantic_ai")
"""What `instrument()` switches on: at once where the application has imported it, else behind its import."""


def pair_us(tracer: Tracer) -> float:
    """The least time that a pair of spans takes."""
    times = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(PAIRS):
            with (
                tracer.start_as_current_span("invoke_agent Planner", attributes=AGENT),
                tracer.start_as_current_span("chat gpt-4o-mini", attributes=CALL),
            ):
                pass
        times.append((time.thread_time() - start) / PAIRS)
    return min(times) * 1e6


def bridge_times() -> float:
    """What the bridge adds to a pair of spans, as a multiple of the pair."""
    bare, bridged = TracerProvider(), TracerProvider()
    bridged.add_span_processor(GenAiBridge())
    alone, both = pair_us(bare.get_tracer("bench")), pair_us(bridged.get_tracer("bench"))
    times = (both - alone) / alone
    print(f"bridge: {alone:.0f} µs a pair of spans, {both:.0f} with it: {times:.1f} times more (bar {BAR_TIMES:.0f})")
    return times


def instrument_ms() -> float:
    """What `instrument()` takes beyond the imports that it must make."""
    used = [name for name in SDKS if find_spec(name) is not None]
    alone, _ = _instrumented()
    whole, imported = _instrumented(*used)
    beyond, left = _instrumented(*used, *imported)
    print(f"instrument(): {alone:.0f} ms where the application has imported no SDK yet")
    print(
        f"instrument(): {beyond:.1f} ms beyond the imports (bar {BAR_MS:.0f}), {whole:.0f} ms with its {len(imported)}"
        f" modules, for an application that uses {', '.join(used) or 'no SDK'}; {len(left)} modules were left to import"
    )
    return beyond


def _instrumented(*imported: str) -> tuple[float, list[str]]:
    """Call `instrument()` in a process that has imported these; returns the best time in ms, and what it imported."""
    command = [sys.executable, "-W", "ignore", "-c", INSTRUMENT, *imported]
    runs = [_printed(command).split() for _ in range(1 if QUICK else 5)]
    took, *names = min(runs, key=lambda run: float(run[0]))
    return float(took), names


def _printed(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  our own command


def run_ms() -> None:
    """What `taskpilot-obs run` adds to the start of a program."""
    program = [sys.executable, "-c", "pass"]
    ours = [str(Path(sys.executable).parent / "taskpilot-obs"), "run", "--", *program]

    def took(command: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)  # noqa: S603
        return (time.perf_counter() - start) * 1e3

    best: Callable[[list[str]], float] = lambda command: min(took(command) for _ in range(2 if QUICK else 5))  # noqa: E731
    alone, both = best(program), best(ours)
    print(f"taskpilot-obs run: {both:.0f} ms for a program that takes {alone:.0f} ms")


def main() -> int:
    """Print one line for each figure; returns the exit code."""
    configure()
    missed = bridge_times() > BAR_TIMES
    missed |= instrument_ms() > BAR_MS
    if find_spec("typer") is not None:
        run_ms()
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
