"""Running a benchmark from beginning to end: connect the arms, keep the cap, make the calls, report."""

from __future__ import annotations

import asyncio
import platform
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from taskpilot_obs._support.event_loops import in_event_loop
from taskpilot_obs._support.guarded import run_to_completion
from taskpilot_obs._support.version import library_version
from taskpilot_obs.compare.bench.arms import Ask, ConnectedArm, connected, spec_of, unconnected
from taskpilot_obs.compare.bench.calls import BenchCall, Collector
from taskpilot_obs.compare.bench.figures import BenchmarkReport, arm_report, findings
from taskpilot_obs.compare.bench.keeping import Folder, StoreKeeper
from taskpilot_obs.compare.bench.plan import Plan, Planned, made_plan, planned_calls
from taskpilot_obs.compare.bench.recording import SERVICE, collecting, recorder_for
from taskpilot_obs.compare.bench.runner import Reporter, Runner
from taskpilot_obs.compare.bench.tasks import Task, load_task
from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from taskpilot_obs._recording.recorder import Recorder

MakeRecorder = Callable[[Decimal | None], "Recorder"]


class Result(NamedTuple):
    """A run that ended: its report, and every call."""

    report: BenchmarkReport
    calls: tuple[BenchCall, ...]


class Session:
    """One run of a plan, new or resumed. `close` it, also where it was never run.

    Args:
        plan: what to do.
        functions: callables by the name under which `plan.arms` has them.
        make_recorder: makes the recorder from the USD that may still be spent; one of its own by default.
        out: the folder that keeps the run.
        store: the URL of a store that keeps it too.
        prices: files of own prices, for the recorder that is made by default.

    Raises:
        ConfigurationError: a task or an arm cannot be used.
        StoreError: the store cannot be used.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        functions: Mapping[str, Ask] | None = None,
        make_recorder: MakeRecorder | None = None,
        out: Path | None = None,
        store: str | None = None,
        prices: Sequence[Path] = (),
    ) -> None:
        self.plan = plan
        self.tasks: tuple[Task, ...] = tuple(load_task(name, plan.items) for name in plan.tasks)
        self.folder = None if out is None else Folder(out)
        self.done = [] if self.folder is None else self.folder.read_calls()
        self.collector = Collector(plan.run_id)
        self._closing = ExitStack()
        spent = sum((call.cost_usd or Decimal(0) for call in self.done), Decimal(0))
        left = None if plan.max_cost_usd is None else plan.max_cost_usd - spent
        if left is not None and left <= 0:
            raise ConfigurationError(f"${spent:f} of ${plan.max_cost_usd:f} are spent; resume with a higher --max-cost")
        make = make_recorder or (lambda rest: recorder_for(rest, store=store, prices=prices))
        self.recorder = make(left)
        self._closing.callback(self.recorder.shutdown)
        self.arms: dict[str, ConnectedArm] = {}
        self.failed: dict[str, str] = {}
        self.unconnected: dict[str, ConnectedArm] = {}
        """The failed arms, which can be priced and not asked."""
        for text in plan.arms:
            self._connect(text, functions or {})
        self._store_url = store

    def _connect(self, text: str, functions: Mapping[str, Ask]) -> None:
        """Connect an arm; one that fails is kept with its reason, and the others go on."""
        if text in functions:
            self.arms[text] = ConnectedArm(text, functions[text])
            return
        spec = spec_of(text)
        if spec.name in self.arms:
            raise ConfigurationError(f"arm {spec.name!r} is given twice; write NAME={text} to give it another name")
        try:
            self.arms[spec.name] = connected(spec, self.recorder, self.plan.timeout_s)
        except (ConfigurationError, MissingExtraError) as error:
            self.failed[spec.name] = str(error)
            self.unconnected[spec.name] = unconnected(spec)

    @property
    def calls(self) -> tuple[Planned, ...]:
        """The calls that are left to do.

        Raises:
            ConfigurationError: no arm could be connected.
        """
        if not self.arms:
            told = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
            raise ConfigurationError(f"no arm can be asked: {told}")
        done = {call.call_id for call in self.done}
        return tuple(
            planned for planned in planned_calls(self.plan, [*self.arms], self.tasks) if planned.call_id not in done
        )

    def run(self, reporters: Iterable[Reporter] = ()) -> Result:
        """Make the calls that are left, and report on all.

        Args:
            reporters: notified of every call.

        Returns:
            The report on all calls.

        Raises:
            ConfigurationError: no arm could be connected.
            KeyboardInterrupt: Ctrl-C; what was complete is kept, with the status `cancelled`.
        """
        calls, kept = self.calls, _CallsInMemory(self.done)
        keeper = self._keeper()
        keepers = [each for each in (self.folder, keeper) if each is not None]
        if self.folder is not None:
            self.folder.write_plan(self.plan)
        status, stopped = "cancelled", None
        try:
            with collecting(self.collector, self.recorder) as recorders:
                heard = [kept, *keepers, *reporters]
                runner = Runner(self.plan, self.arms, self.collector, recorders, heard)
                _run_to_end(self._run(runner, calls))
                stopped = runner.stopped
            status = "finished" if stopped is None else "stopped"
        finally:
            report = self.report(kept.calls, status, stopped)
            if keeper is not None:
                keeper.finish(report)
        return Result(report, tuple(kept.calls))

    async def _run(self, runner: Runner, calls: Sequence[Planned]) -> None:
        try:
            await runner.run(calls)
        finally:
            for arm in self.arms.values():
                if arm.close is not None:
                    await arm.close()

    def _keeper(self) -> StoreKeeper | None:
        if self._store_url is None:
            return None
        from taskpilot_obs.store import Store

        store = Store(self._store_url, create=True)
        self._closing.callback(store.close)
        return StoreKeeper(store, self.plan, SERVICE)

    def report(self, calls: Sequence[BenchCall], status: str, stopped: str | None) -> BenchmarkReport:
        """What these calls come to.

        Args:
            calls: of this plan.
            status: how the run ended.
            stopped: why it ended early.
        """
        measured: defaultdict[str, list[BenchCall]] = defaultdict(list)
        for call in calls:
            if not call.warm_up:
                measured[call.arm].append(call)
        start, end = _span([call for found in measured.values() for call in found])
        took = (end - start).total_seconds()
        described = {name: arm.described._asdict() for name, arm in self.arms.items()}
        return BenchmarkReport(
            run_id=self.plan.run_id,
            name=self.plan.name,
            status=status,
            stopped=stopped,
            start_time=start,
            end_time=end,
            benchmark_duration_s=took,
            plan=self.plan,
            load=self.plan.load,
            retry_rule=self.plan.retry_rule,
            cache_state=self.plan.cache_state,
            versions={"taskpilot-obs": library_version(), "python": platform.python_version()},
            failed_arms=self.failed,
            arms={
                name: arm_report(found, took, self.plan.objectives, described.get(name, {}))
                for name, found in sorted(measured.items(), key=lambda one: [*self.arms].index(one[0]))
            },
            findings=findings(measured),
        )

    def close(self) -> None:
        """End the recorder and the store."""
        self._closing.close()


class _CallsInMemory(Reporter):
    """The calls in memory."""

    def __init__(self, done: Iterable[BenchCall]) -> None:
        self.calls = [*done]

    def saved(self, calls: Sequence[BenchCall]) -> None:
        """Keep further calls."""
        self.calls += calls


def _run_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine; in a notebook, whose event loop runs already, in a thread that Ctrl-C cancels."""
    if not in_event_loop():
        asyncio.run(work)
        return
    pressed = threading.Event()
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def noted() -> None:
        task = asyncio.ensure_future(work)
        begun.append((asyncio.get_running_loop(), task))
        if pressed.is_set():
            task.cancel()
        await task

    def cancel() -> None:
        pressed.set()
        for loop, task in begun:
            with suppress(RuntimeError):  # it is over, and its loop closed
                loop.call_soon_threadsafe(task.cancel)

    with ThreadPoolExecutor(1) as pool:
        try:  # around `submit` as well: what it begins goes on whether or not it returns
            pool.submit(copy_context().run, asyncio.run, noted()).result()
        except KeyboardInterrupt:
            run_to_completion(cancel)
            raise


def _span(calls: Sequence[BenchCall]) -> tuple[datetime, datetime]:
    """From the first call's begin to the last one's end."""
    if not calls:
        now = datetime.now(UTC)
        return now, now
    ends = (call.created_at + timedelta(milliseconds=call.latency_ms) for call in calls)
    return min(call.created_at for call in calls), max(ends)


def benchmark(
    arms: Sequence[str] | Mapping[str, Ask | str],
    *,
    out: str | Path | None = None,
    store: str | None = None,
    prices: Sequence[str | Path] = (),
    reporters: Iterable[Reporter] = (),
    **options: Any,
) -> BenchmarkReport:
    """Compare models, agents, chains or prompts on the same tasks.

    Each arm is asked each item of each task, `iterations` times, in turns. A callable takes the prompt, and
    `max_tokens` if it has such a parameter; it returns the answer, or yields its pieces, so that the time to the first
    one is known. It may be a coroutine function or a plain one, which then runs in a thread.

    Args:
        arms: `openai/gpt-4o-mini` and its like, or callables by name.
        out: a folder that keeps the run: `calls.jsonl`, `plan.json`.
        store: the URL of a store that keeps it.
        prices: files of own prices.
        reporters: notified of every call.
        options: the fields of `Plan`: `tasks`, `iterations`, `concurrency` or `rate_per_s`, `warm_up`, `seed`,
            `max_cost_usd`, `retries`, `objectives`, ….

    Returns:
        The report, with the figures of each arm and the findings.

    Raises:
        ConfigurationError: an option, a task or every arm cannot be used.
        StoreError: the store cannot be used.
    """
    functions = {name: given for name, given in arms.items() if callable(given)} if isinstance(arms, Mapping) else {}
    specs = arms if not isinstance(arms, Mapping) else [_named(name, given) for name, given in arms.items()]
    session = Session(
        made_plan(arms=tuple(specs), **options),
        functions=functions,
        out=None if out is None else Path(out),
        store=store,
        prices=[*map(Path, prices)],
    )
    try:
        return session.run(reporters).report
    finally:
        session.close()


def _named(name: str, given: Ask | str) -> str:
    return f"{name}={given}" if isinstance(given, str) else name
