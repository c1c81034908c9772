"""What the tests of agent frameworks look at: the runs as a table, and a request that is cancelled under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _provider import Provider

from taskpilot_obs.integration import Recorder
from taskpilot_obs.records import Decision, Invocation, Operation
from taskpilot_obs.safety import CheckInput, check_with
from taskpilot_obs.testing import Captured, capture_records, fresh_recorder


def table(seen: Iterable[Invocation]) -> list[tuple[str, str | None, str]]:
    """Name, parent and status of each run, in the order of the starts."""
    runs = sorted(seen, key=lambda run: run.start_unix_ns)
    names = {run.invocation_id: run.name for run in runs}
    return [(run.name, names.get(run.parent_id or ""), run.status.value) for run in runs]


NESTED_AGENTS = [
    ("outer", None, "success"),
    ("Planner", "outer", "success"),
    ("gpt-4o-mini", "Planner", "success"),
    ("research", "Planner", "success"),
    ("Researcher", "research", "success"),
    ("gpt-4o-mini", "Researcher", "success"),
    ("gpt-4o-mini", "Planner", "success"),
]
"""The table of an agent in the tool of another, beneath a decorated workflow."""


def assert_ten_at_once(seen: Collection[Invocation]) -> None:
    """Ten runs at once: twenty calls, each beneath its own run."""
    assert sum(run.usage is not None for run in seen) == 20
    assert sorted(run.rollup.llm_calls for run in seen if run.name == "Planner" and run.rollup) == [2] * 10


def told(seen: Iterable[Invocation]) -> list[tuple[str, str, str]]:
    """Operation, name and status of every run, in the order of the ends."""
    return [(run.operation.value, run.name, run.status.value) for run in seen]


def figures(run: Invocation) -> tuple[int | None, ...] | None:
    """Tokens of a call: input, output, cached, reasoning."""
    usage = run.usage
    return None if usage is None else (*usage[:2], usage.cache_read_tokens, usage.reasoning_tokens)


async def cancel_under_way(provider: Provider, work: Awaitable[Any]) -> None:
    """Cancel some work once its request, which asks for `HANG`, waits at the provider."""
    task = asyncio.ensure_future(work)
    while not provider.hanging and not task.done():  # noqa: ASYNC110  another thread serves it
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    provider.release()


class Judged:
    """What a check of outputs in enforce mode was asked about, and what came of it, while it denied everything."""

    def __init__(self, recorder: Recorder, seen: Captured[Decision]) -> None:
        self.asked: list[tuple[str, str]] = []
        self._recorder = recorder
        self._seen = seen

    def no(self, subject: CheckInput) -> bool:
        """Deny."""
        self.asked.append((subject.operation.value, subject.text))
        return False

    async def no_async(self, subject: CheckInput) -> bool:
        """Deny, a turn of the event loop later."""
        await asyncio.sleep(0)
        return self.no(subject)

    @property
    def results(self) -> list[str]:
        """The results of its decisions."""
        return [one.result.value for one in self._seen]

    @property
    def bypassed(self) -> float:
        """How often the check could not refuse, whether or not it was asked."""
        self._recorder.flush()
        assert self._recorder.registry is not None
        where = {"where": "bypassed"}
        return self._recorder.registry.get_sample_value("taskpilot_obs_internal_errors_total", where) or 0.0


@contextmanager
def judging(*, asynchronous: bool = False) -> Iterator[Judged]:
    """A fresh recorder, whose outputs a check denies."""
    asked: list[Judged] = []

    def no(subject: CheckInput) -> Any:
        return asked[0].no_async(subject) if asynchronous else asked[0].no(subject)

    check = check_with(no, name="no", stages="output")
    with fresh_recorder(guardrails=[check], mode="enforce") as recorder, capture_records(Decision, recorder) as seen:
        asked.append(Judged(recorder, seen))
        yield asked[0]


def run_tasks(recorder: Recorder, count: int) -> None:
    """Some tasks of the workflow `handle`, the first of them failing, with an LLM call in each that cost $0.03."""
    for number in range(count):
        run = recorder.start(Operation.WORKFLOW, "handle")
        call = recorder.start_llm(model="m", provider="p", parent=run)
        call.set_cost("0.03")
        call.stop()
        if number:
            run.stop()
        else:
            run.fail(ValueError("no"))
