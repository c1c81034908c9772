"""What reading a response and pricing it costs the caller, beside the price table's own calculation.

python benchmarks/bench_pricing.py
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime

from taskpilot_obs.pricing import PriceTable
from taskpilot_obs.usage import StreamReader, Usage, read_response

NOW = time.time_ns()
TABLE = PriceTable()
BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {
        "prompt_tokens": 150,
        "completion_tokens": 50,
        "total_tokens": 200,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
CHUNK = {"id": "c", "model": "gpt-4o", "usage": None, "choices": [{"delta": {"content": "hi"}, "finish_reason": None}]}


def priced(usage: Usage, provider: str, model: str) -> Callable[[], object]:
    """One call of `price`, as the recorder makes it."""
    return lambda: TABLE.price(
        usage, provider=provider, request_model=model, response_model=model, at_unix_ns=NOW, service_tier=None
    )


def micros(call: Callable[[], object], number: int) -> float:
    """The best of seven runs, per call."""
    call()
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6


def main() -> None:
    """Print one line a case."""
    started = time.perf_counter()
    TABLE.warm_up()
    priced(Usage(1, 1), "openai", "gpt-4o")()  # waits for it
    print(f"{'price table loaded, once a process':<52} {(time.perf_counter() - started) * 1e3:9.1f} ms")

    from genai_prices import Usage as LibraryUsage
    from genai_prices import calc_price

    reader = StreamReader("openai")
    today = datetime.now(UTC)
    library_usage = LibraryUsage(input_tokens=150, output_tokens=50)
    cases: tuple[tuple[str, Callable[[], object], int], ...] = (
        ("price, input and output", priced(Usage(150, 50), "openai", "gpt-4o"), 50_000),
        (
            "price, cache reads and writes, context tiers",
            priced(Usage(1_500, 50, 700, 200, 0, 200), "anthropic", "claude-sonnet-4-5"),
            50_000,
        ),
        (
            "price, audio",
            priced(Usage(1_000, 50, 100, input_audio_tokens=40), "google", "gemini-2.5-flash"),
            20_000,
        ),
        (
            "the library's own calculation",
            lambda: calc_price(library_usage, "gpt-4o", provider_id="openai", genai_request_timestamp=today),
            2_000,
        ),
        ("read_response, OpenAI body", lambda: read_response(BODY, provider="openai"), 5_000),
        ("StreamReader.feed, one token", lambda: reader.feed(CHUNK), 20_000),
    )
    for name, call, number in cases:
        print(f"{name:<52} {micros(call, number):9.2f} µs")


if __name__ == "__main__":
    main()
