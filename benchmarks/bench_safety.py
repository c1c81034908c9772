"""What redaction costs per KB of text, and what five policies cost a call with a short prompt.

Run: python benchmarks/bench_safety.py [--quick]

Times are microseconds on the caller's thread, warm, best of many short rounds. Bars: 30 µs per KB of text,
10 µs for five policies. The observed call is an agent that does nothing, less the same agent without policies.
"""

from __future__ import annotations

import asyncio
import sys
import timeit
from collections.abc import Callable

from taskpilot_obs import configure, get_recorder, observe_agent
from taskpilot_obs.records import CheckResult, Decision, Operation, Stage
from taskpilot_obs.safety import (
    AllowTools,
    CheckInput,
    DenyPattern,
    DenyWords,
    MaxInputLength,
    Redactor,
    RequireApproval,
)
from taskpilot_obs.safety import checks as running
from taskpilot_obs.safety.checks import CheckOutcome, Checks

ROUNDS = 5 if "--quick" in sys.argv else 30
PROMPT = "Find me a flight from Vienna to Oslo on Friday, not before nine, and tell me what a seat at the window costs."
TEXTS = {
    "prose": "You are a careful planning agent. Break the task into steps, ask the right tool for each, and check "
    "every result before you go on. Keep the tokens few; the key point is that passengers get an answer. ",
    "JSON": '{"messages": [{"role": "user", "content": "find flights to Oslo"}, {"role": "tool", "name": "search", '
    '"content": "{\\"price\\": 120.5, \\"currency\\": \\"EUR\\"}"}], "max_tokens": 200, "model": "gpt-4o"} ',
    "prose, Cyrillic": "Ты внимательный агент. Разбей задачу на шаги, выбери нужный инструмент и проверь результат. ",
    "a customer's mail": "Dear team, my order 4111111111111112 of 1 March did not arrive. Please write to me at "
    "jane.doe@example.com or call me; the tracking page said that parcel 3fa85f64-5717-4562-b3fc-2c963f66afa6 was "
    "handed to a neighbour, but none of them has seen it. It was a present, and I would rather have my money back than "
    "wait for another one. Thank you for looking into it soon, and have a good week. Kind regards, Jane Doe. ",
    "UUIDs, hashes, IDs": "3fa85f64-5717-4562-b3fc-2c963f66afa6 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 "
    "call_Zx9w8v7u6t5s4r3q2p1o0n9m 01JD3Y8QK4V7W2N5X6Z9T0B1C3 chatcmpl-AbCdEfGhIjKlMnOpQrStUvWx ",
    "snake_case words": "flight_search_agent_result retry_status_of_booking customer_session_index token_cache_key ",
    "nothing but identifiers": "order 4111111111111112 trace 4bf92f3577b34da6a3ce929d0e0e4736 "
    "mail jane.doe@example.com parcel 3fa85f64-5717-4562-b3fc-2c963f66afa6 day 2026-03-01 ",
}


def best(work: Callable[[], object], number: int) -> float:
    """Microseconds of one call."""
    return min(timeit.repeat(work, number=number, repeat=ROUNDS)) / number * 1e6


def redaction() -> None:
    """Print what a KB of each kind of text costs."""
    redactor = Redactor(max_length=1_000_000)
    print("redaction, µs per KB            1 KB   16 KB")
    for name, piece in TEXTS.items():
        small = (piece * 40)[:1024]
        large = (piece * 640)[: 16 * 1024]
        costs = (best(lambda s=small: redactor.text(s), 100), best(lambda s=large: redactor.text(s), 10) / 16)  # type: ignore[misc]  # a default binds the loop's value
        print(f"  {name:28s}{costs[0]:7.1f} {costs[1]:7.1f}")


def five() -> list[object]:
    """Five policies of the kinds that come with the library."""
    return [
        DenyWords(["delete", "drop", "truncate"]),
        DenyPattern(r"(?i)ignore (all|previous) instructions"),
        MaxInputLength(10_000),
        AllowTools(["search", "book"]),
        RequireApproval(["pay"]),
    ]


def policies() -> None:
    """Print what five policies cost, alone and around an observed call."""
    ready = Checks(five()).at(Stage.INPUT)
    subject = CheckInput(Operation.AGENT, Stage.INPUT, PROMPT, agent="Planner")

    def ask() -> bool:
        outcomes: list[CheckOutcome] = []
        return running.run(ready, subject, outcomes, None)

    async def ask_async() -> None:
        for _ in range(1_000):
            await running.run_async(ready, subject, [], None)

    print(f"five policies, asked               {best(ask, 1_000):7.1f} µs")
    print(f"five policies, asked by async code {best(lambda: asyncio.run(ask_async()), 1) / 1_000:7.1f} µs")
    seen: list[CheckResult] = []
    pipeline = get_recorder().pipeline

    class Count:
        def export(self, batch: object, /) -> None:
            seen.extend(each.result for each in batch if isinstance(each, Decision))  # type: ignore[attr-defined]  # a batch of records

    pipeline.add("bench", Count())

    def agent(prompt: str) -> str:
        return prompt

    bare, checked = observe_agent("Bare")(agent), observe_agent("Checked", policies=five())(agent)

    def cost_of(observed: Callable[[str], str]) -> float:
        costs = []
        for _ in range(ROUNDS):
            get_recorder().drain()
            costs.append(timeit.timeit(lambda: observed(PROMPT), number=100) * 1e4)
        return min(costs)

    cost_of(checked)  # warm up
    cost = cost_of(checked) - cost_of(bare)
    get_recorder().drain()
    assert len(seen) == 5 * 100 * ROUNDS * 2
    print(f"five policies around a call, added {cost:7.1f} µs")


if __name__ == "__main__":
    configure(service="bench")
    redaction()
    policies()
