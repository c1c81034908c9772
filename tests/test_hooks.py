"""Options that take a callable: coroutine functions do their work, and what cannot work is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from taskpilot_obs import observe_workflow, record_llm_call
from taskpilot_obs._support.hooks import settled
from taskpilot_obs.budgets import Budget
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.records import Record
from taskpilot_obs.semconv import EXPORT_ERRORS, RECORDS, RECORDS_DROPPED
from taskpilot_obs.testing import fresh_recorder


@observe_workflow("w")
def work() -> None:
    record_llm_call(model="gpt-4o-mini", cost="0.6")


class Sync:
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def export(self, batch: Sequence[Record], /) -> None:
        self.seen.extend(batch)


class Async(Sync):
    async def export(self, batch: Sequence[Record], /) -> None:  # type: ignore[override]  # the other kind
        await asyncio.sleep(0)
        self.seen.extend(batch)

    async def flush(self, timeout_s: float) -> bool:
        await asyncio.sleep(0)
        self.seen.append("flushed")
        return True

    async def shutdown(self, timeout_s: float) -> None:
        await asyncio.sleep(0)
        self.seen.append("closed")


def hooks(seen: list[Any]) -> dict[str, Callable[..., Any]]:
    """The ways to write a hook."""

    async def coroutine(given: Any) -> None:
        await asyncio.sleep(0)
        seen.append(given)

    def returns_a_coroutine(given: Any) -> Any:
        return coroutine(given)

    class WithCall:
        async def __call__(self, given: Any) -> None:
            await coroutine(given)

    return {
        "function": seen.append,
        "coroutine function": coroutine,
        "function that returns a coroutine": returns_a_coroutine,
        "object": WithCall(),
    }


OPTIONS: dict[str, Callable[[Path, Any], dict[str, Any]]] = {
    "exporters": lambda _, hook: {"exporters": [hook]},
    "on_budget_alert": lambda _, hook: {
        "on_budget_alert": hook,
        "budgets": [Budget("all", limit_usd=1.0, period="day", thresholds=(0.5,))],
    },
    "audit_on_anchor": lambda path, hook: {
        "audit_on_anchor": hook,
        "audit_log": path / "audit.jsonl",
        "audit_max_bytes": 4_096,
    },
}
"""Every option of `configure()` that takes a function, and what it needs to be called."""


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", hooks([]))
def test_a_hook_does_its_work(option: str, kind: str, tmp_path: Path) -> None:
    """Each option calls a function and awaits a coroutine, whichever way the hook is written."""
    seen: list[Any] = []
    with fresh_recorder(**OPTIONS[option](tmp_path, hooks(seen)[kind])) as recorder:
        for _ in range(40):
            work()
        assert recorder.flush()
        recorder.shutdown()
    assert seen


def test_an_exporter_with_coroutine_methods_is_awaited() -> None:
    """`async def export`, `flush` and `shutdown` run, and what counts as written was written."""
    seen: list[Any] = []
    other: list[Any] = []
    with fresh_recorder(exporters=[Async(seen), Sync(other)]) as recorder:
        for _ in range(10):
            work()
        assert recorder.flush()
        records = [each for each in seen if not isinstance(each, str)]
        assert records == other
        assert recorder.runtime.counters.totals[RECORDS, ("exporter_1",)] == len(records) > 10
        recorder.shutdown()
    assert {"flushed", "closed"} <= {each for each in seen if isinstance(each, str)}


def test_a_coroutine_that_fails_is_counted_as_lost() -> None:
    """An exporter whose coroutine raises has written nothing, and the counters report that."""

    class Failing:
        async def export(self, batch: Sequence[Record], /) -> None:
            raise RuntimeError("on purpose")

    with fresh_recorder(exporters=[Failing()]) as recorder:
        work()
        recorder.flush()
        totals = recorder.runtime.counters.totals
        assert totals[RECORDS, ("exporter_1",)] == 0
        assert totals[EXPORT_ERRORS, ("exporter_1",)] >= 1
        assert totals[RECORDS_DROPPED, ("exporter_1", "export_failed")] >= 2


def test_a_coroutine_that_hangs_is_cut_short() -> None:
    """A coroutine gets its time and no more; it is cancelled, and the failure is a timeout."""
    with pytest.raises(TimeoutError):
        settled(asyncio.sleep(60), timeout_s=0.05)


def test_a_coroutine_is_awaited_within_a_running_loop() -> None:
    """A thread whose event loop runs hands the coroutine to another thread, and failures come back."""

    async def fails() -> None:
        raise ValueError("on purpose")

    async def main() -> str:
        with pytest.raises(ValueError, match="on purpose"):
            settled(fails())
        return str(settled(asyncio.sleep(0, "done")))

    assert asyncio.run(main()) == "done"


def _generator(given: Any) -> Iterator[None]:
    yield


async def _async_generator(given: Any) -> AsyncIterator[None]:
    yield


class GeneratorExporter:
    def export(self, batch: Sequence[Record], /) -> Iterator[None]:
        yield


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("hook", [_generator, _async_generator])
def test_a_generator_function_is_refused(option: str, hook: Any, tmp_path: Path) -> None:
    """A generator function would do nothing, so `configure()` names the option and refuses it."""
    with pytest.raises(ConfigurationError, match=option), fresh_recorder(**OPTIONS[option](tmp_path, hook)):
        pass


def test_an_exporter_whose_export_is_a_generator_is_refused() -> None:
    """The same holds for the method of an exporter."""
    with pytest.raises(ConfigurationError, match="exporters"), fresh_recorder(exporters=[GeneratorExporter()]):
        pass
