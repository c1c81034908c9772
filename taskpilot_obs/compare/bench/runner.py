"""The runner: sends the calls of a plan at their time, measures them, and hands over each when it is complete."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskpilot_obs._recording.context import request_context
from taskpilot_obs._recording.statuses import outcome_of
from taskpilot_obs.compare.bench.asking import Heard, asker
from taskpilot_obs.compare.bench.calls import BenchCall, Collector
from taskpilot_obs.compare.bench.plan import Plan, Planned, arrival_times
from taskpilot_obs.compare.bench.recording import BUDGET
from taskpilot_obs.exceptions import BudgetExceededError, ConfigurationError
from taskpilot_obs.providers.errors import error_category
from taskpilot_obs.records import Operation

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder
    from taskpilot_obs.compare.bench.arms import ConnectedArm
    from taskpilot_obs.compare.bench.tasks import Item

WORKFLOW: Final = "benchmark"
_AGAIN: Final = frozenset({"rate_limit", "connection", "server", "timeout"})
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 20.0
_SAVE_EVERY_S: Final = 1.0
_NONCE: Final = 1 << 64


class Outcome(NamedTuple):
    """What the runner itself saw of a call."""

    planned: Planned
    sent_at: datetime
    latency_s: float
    first_s: float | None
    lag_s: float
    attempts: int
    answer: str | None
    error: Exception | None


class Reporter:
    """Hears how a run goes; its methods do nothing until a subclass gives them something to do."""

    def finished(self, outcome: Outcome) -> None:
        """A call ended."""

    def saved(self, calls: Sequence[BenchCall]) -> None:
        """Calls are complete, with what they cost."""


class Runner:
    """Runs a plan once.

    Args:
        plan: what to do.
        arms: the arms by name.
        collector: gets what the recorders record.
        recorders: the first one records each call as a run of the workflow `benchmark`, and its budgets may end the
            run; all are drained before the collector is read.
        reporters: notified of every call.
    """

    def __init__(
        self,
        plan: Plan,
        arms: Mapping[str, ConnectedArm],
        collector: Collector,
        recorders: Sequence[Recorder],
        reporters: Sequence[Reporter] = (),
    ) -> None:
        self._plan = plan
        self._collector = collector
        self._recorders = recorders
        self._reporters = reporters
        self._ask = {name: asker(arm) for name, arm in arms.items()}
        self._chance = Random(plan.seed)  # noqa: S311  pauses and prefixes, not secrets
        self._ended: list[Outcome] = []
        self.stopped: str | None = None
        """Why the run ended early; None where it did not."""
        self._one_saves = threading.Lock()
        """A cancelled run saves once more, perhaps while a thread still does."""
        self._failure: Exception | None = None
        """Why a call could not be checked or saved."""

    async def run(self, calls: Iterable[Planned]) -> None:
        """Make these calls, the warm-up before all others. What is complete is saved, also if the run is cancelled.

        Raises:
            Exception: of a reporter or of a checker: the run ends at once, because it would only cost money.
        """
        over = asyncio.Event()
        going_on = asyncio.timeout(None)
        saving = asyncio.create_task(self._keep_saving(over, going_on))
        try:
            async with going_on:
                await self._ask_all([*calls])
        except TimeoutError:
            if not going_on.expired():
                raise
        finally:
            over.set()
            await asyncio.wait((saving,))
            self._save()
        if self._failure is not None:
            raise self._failure

    # --- pace --------------------------------------------------------------------------------------------------------

    async def _ask_all(self, calls: Sequence[Planned]) -> None:
        measured = [call for call in calls if not call.warm_up]
        # A Ctrl-C in a call has stopped the event loop by then; raised here again, it would keep `run` from saving.
        with suppress(KeyboardInterrupt):
            await self._closed([call for call in calls if call.warm_up])
            await (self._closed(measured) if self._plan.rate_per_s is None else self._open(measured))

    async def _closed(self, calls: Sequence[Planned]) -> None:
        waiting = iter(calls)

        async def work() -> None:
            due = perf_counter()
            for planned in waiting:
                if self.stopped is not None:
                    return
                await self._call(planned, due)
                due = perf_counter()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._plan.concurrency, len(calls))):
                group.create_task(work())

    async def _open(self, calls: Sequence[Planned]) -> None:
        start = perf_counter()
        async with asyncio.TaskGroup() as group:
            for planned, at in zip(calls, arrival_times(self._plan), strict=False):
                await asyncio.sleep(max(0.0, start + at - perf_counter()))
                if self.stopped is not None:
                    return
                group.create_task(self._call(planned, start + at))

    # --- one call ----------------------------------------------------------------------------------------------------

    async def _call(self, planned: Planned, due: float) -> None:
        lag_s, sent_at, began = perf_counter() - due, datetime.now(UTC), perf_counter()
        attempts = 0
        while True:
            attempts += 1
            tried = perf_counter()
            heard, error = await self._attempt(planned)
            if isinstance(error, BudgetExceededError) and error.budget == BUDGET:
                self.stopped = str(error)
                return
            if error is None or attempts > self._plan.retries or error_category(error) not in _AGAIN:
                break
            await asyncio.sleep(self._pause(attempts))
        first = heard.first_at if heard is not None else None
        origin = began if self._plan.retries_in_latency else tried
        outcome = Outcome(
            planned,
            sent_at,
            perf_counter() - origin,
            None if first is None else first - origin,
            lag_s,
            attempts,
            None if heard is None else heard.text,
            error,
        )
        self._ended.append(outcome)
        for reporter in self._reporters:
            reporter.finished(outcome)

    async def _attempt(self, planned: Planned) -> tuple[Heard | None, Exception | None]:
        item = planned.item
        prompt = f"[{self._chance.randrange(_NONCE):016x}]\n{item.prompt}" if self._plan.vary_prefix else item.prompt
        with request_context(planned.call_id, **self._attributes(planned)):
            run = self._recorders[0].start(Operation.WORKFLOW, WORKFLOW)
            step = run.attach()
            try:
                async with asyncio.timeout(self._plan.timeout_s):
                    heard = await self._ask[planned.arm](prompt, item.max_tokens)
            except Exception as error:  # noqa: BLE001  whatever an arm raises is its result
                run.fail(error)
                return None, error
            except BaseException as error:
                run.fail(error)
                raise
            finally:
                run.detach(step)
            run.stop()
            return heard, None

    def _attributes(self, planned: Planned) -> dict[str, Any]:
        return {
            "prompt_name": planned.task,
            "task_id": planned.item.id,
            "prompt_hash": planned.item.prompt_hash,
            "benchmark_run": self._plan.run_id,
            "benchmark_arm": planned.arm,
        }

    def _pause(self, attempts: int) -> float:
        longest: float = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempts - 1))
        return longest * (0.5 + self._chance.random() / 2)

    # --- saving ------------------------------------------------------------------------------------------------------

    async def _keep_saving(self, over: asyncio.Event, going_on: asyncio.Timeout) -> None:
        """Save now and then, until the run is over; end the run where something cannot be saved."""
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _SAVE_EVERY_S)
            await asyncio.to_thread(self._save)
            if self._failure is not None and not over.is_set():
                going_on.reschedule(asyncio.get_running_loop().time())
                return

    def _save(self) -> None:
        """Complete what has ended with what the library recorded, and hand it over."""
        with self._one_saves:
            ended, self._ended = self._ended, []
            if ended:
                self._save_all(ended)

    def _save_all(self, ended: Sequence[Outcome]) -> None:
        for recorder in self._recorders:
            recorder.drain()
        calls = [self._complete(outcome) for outcome in ended]
        for reporter in self._reporters:
            self._hand_over(reporter, calls)
        limit = self._plan.max_cost_usd
        if limit is not None and self._collector.spent >= limit:
            self.stopped = self.stopped or f"${self._collector.spent:f} of ${limit:f} are spent"

    def _hand_over(self, reporter: Reporter, calls: Sequence[BenchCall]) -> None:
        try:
            reporter.saved(calls)
        except Exception as error:  # noqa: BLE001  the other reporters get these calls; `run` raises it
            self._failure = self._failure or error

    def _checked(self, item: Item, answer: str | None) -> bool | None:
        try:
            return None if answer is None else item.check(answer)
        except Exception as error:  # noqa: BLE001  the call was paid for, so it is kept; `run` raises this
            told = f"checker {item.checker!r} failed on an answer to {item.id!r}: {type(error).__name__}: {error}"
            self._failure = self._failure or _caused(ConfigurationError(told), error)
            return None

    def _complete(self, outcome: Outcome) -> BenchCall:
        planned, error = outcome.planned, outcome.error
        spent = self._collector.take(planned.call_id)
        first = outcome.first_s
        return BenchCall(
            call_id=planned.call_id,
            created_at=outcome.sent_at,
            arm=planned.arm,
            task=planned.task,
            item=planned.item.id,
            iteration=planned.iteration,
            warm_up=planned.warm_up,
            status="success" if error is None else outcome_of(error)[0].value,
            success=error is None,
            correct=self._checked(planned.item, outcome.answer),
            latency_ms=1_000 * outcome.latency_s,
            time_to_first_token_ms=None if first is None else 1_000 * first,
            lag_ms=1_000 * outcome.lag_s,
            retries=outcome.attempts - 1,
            error_type=None if error is None else outcome_of(error)[1],
            error_category=None if error is None else error_category(error),
            prompt_hash=planned.item.prompt_hash,
            provider=spent.provider,
            model_name=spent.model,
            input_tokens=spent.usage.input_tokens,
            output_tokens=spent.usage.output_tokens,
            reasoning_tokens=spent.usage.reasoning_tokens,
            cached_tokens=spent.usage.cache_read_tokens,
            cost_usd=spent.cost,
            telemetry_id=spent.telemetry_id,
        )


def _caused(error: Exception, cause: Exception) -> Exception:
    """The error, as `raise … from` would make it."""
    error.__cause__ = cause
    return error
