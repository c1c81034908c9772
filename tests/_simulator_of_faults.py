"""Runs services through faults that a seed chooses, and checks what must hold at the end.

`simulate(seed)` is one run: processes start, work, are stopped and killed; the disk, the database and the clock fail;
then everything heals, a last process starts and writes what was left behind, and the books must balance.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from _simulated_books import Books
from _simulated_database import Database, compiled_once, served
from _simulated_disk import Disk
from _simulated_failures import KINDS, Failures, failing
from _simulated_fork import forked
from _simulated_service import Machine, Service, installed
from _simulated_threads import SECOND, Process, Scheduler, Task, Violation, World
from _simulated_watch import Watch

from taskpilot_obs._pipeline import lifecycle
from taskpilot_obs._support import fork
from taskpilot_obs._support.guarded import forget_causes
from taskpilot_obs._telemetry import stores
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.budgets import Budget
from taskpilot_obs.store import Store, upgrade

ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati", "Asia/Kolkata")
STARTS: Final = (
    datetime(2026, 3, 10, 12, tzinfo=UTC),
    datetime(2026, 3, 28, 20, tzinfo=UTC),  # the night in which summer time begins in Berlin
    datetime(2026, 10, 31, 20, tzinfo=UTC),  # and that in which it ends in New York, with a month
    datetime(2027, 12, 31, 9, tzinfo=UTC),
    datetime(2028, 2, 28, 23, 30, tzinfo=UTC),
)
LATE_NS: Final = 60 * SECOND
"""How much later than its time limit a shutdown may return: an operation on a slow disk or server is not cut off."""
HOUR_NS: Final = 3_600 * SECOND


class Outcome(NamedTuple):
    """One run."""

    seed: int
    trace: int
    """A checksum of all that happened; equal for equal seeds."""
    simulated_s: float
    steps: int
    calls: int
    faults: Counter[str]
    looks: int
    """How often all that must hold at each moment was checked."""


@cache
def _tables() -> Path:
    """A file with the store's tables, because making them takes longer than a run."""
    folder = Path(tempfile.mkdtemp(prefix="simulator-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "telemetry.db"
    with closing(Store(f"sqlite:///{path}", create=True)) as made:
        upgrade(made)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


class Simulation:
    """One run from one seed."""

    def __init__(self, seed: int, home: Path) -> None:
        self.seed = seed
        self.start_of_time = STARTS[seed // len(ZONES) % len(STARTS)]
        self.run = Scheduler(seed, int(self.start_of_time.timestamp()) * SECOND)
        World.scheduler = self.run
        self.chance = self.run.random
        self.home = home
        shutil.copy(_tables(), home / "telemetry.db")
        self.outside = Process(1)
        self.database = Database(home / "telemetry.db")
        self.disk = Disk(home)
        self.failures = Failures()
        self.may_fail = seed % 2 == 1
        """Whether single operations may fail, and zones change: not in all seeds, because that hides other faults."""
        self.services: list[Service] = []
        self.faults: Counter[str] = Counter()
        self.lost_rows: set[str] = set()
        """Calls that a failover has lost."""
        self.lost_tokens: Counter[str] = Counter()
        """By budget, what a failover has taken from the ledger."""
        self.is_exact = True
        """Whether each reservation lives until its call is charged."""
        self.lost_power = False
        self.honest = self.chance.random() < 0.7
        self.machine = self._machine()
        self.chosen = self._chosen()
        self.watch = Watch(self)
        self.run.watch = self.watch.step

    def _machine(self) -> Machine:
        pick = self.chance.choice
        limit, zone = pick((300, 2_000, 100_000)), pick(ZONES)
        budgets = (
            Budget(
                "all", limit_tokens=limit, period="total", action="enforce", when_store_down=pick(("open", "closed"))
            ),
            Budget(
                "each",
                limit_tokens=limit,
                period=pick(("day", "hour")),
                timezone=zone,
                scope={"tenant": "*"},
                action=pick(("enforce", "shadow", "alert")),
            ),
        )
        return Machine(
            self.home,
            self.disk,
            self.database,
            budgets,
            AuditOptions(
                max_bytes=pick((4_096, 1_000_000)),
                durability=pick(("flush", "fsync")),
                anchor_every=pick((1, 5, 1_000)),
            ),
            pick((4, 64, 65_536)),
            pick(("drop", "block")),
            pick((3_000, 1_000_000)),
            pick((None, None, 60.0, 600.0)),
        )

    def _chosen(self) -> list[Callable[[], None]]:
        """The kinds of events of this run: few at a time find more than all at once."""
        events = [
            self.kill, self.stop, self.start, self.burst, self.database_away, self.database_slow, self.answers_lost,
            self.failover, self.disk_full, self.disk_slow, self.power, self.clock_step, self.idle, self.stall,
        ]  # fmt: skip
        own = [self.operations_fail, self.zone_changes, self.fork] if self.may_fail else []
        return [self.start, self.burst, *own, *self.chance.sample(events, self.chance.randint(1, 8))]

    # --- events ------------------------------------------------------------------------------------------------------

    def failing(self) -> AbstractContextManager[None]:
        """While the block runs, operations may fail."""
        return failing(self.failures, self.disk, self.database) if self.may_fail else nullcontext()

    def living(self) -> list[Service]:
        """The processes that work."""
        return [each for each in self.services if not each.is_stopped and each.is_ready]

    def start(self) -> None:
        """Start a process."""
        if len(self.living()) < 3:
            self._started()

    def _started(self) -> Service:
        process = Process(1_000 + len(self.services))
        service = Service(self.machine, process)
        self.services.append(service)

        def main() -> None:
            for _ in range(1_000):
                try:
                    service.start()
                except Exception as error:
                    self.run.note(f"start failed: {type(error).__name__}")
                    service.let_go()
                    self.run.sleep(5 * SECOND)
                else:
                    return

        self.run.spawn(process, "main", main, is_active=True)
        return service

    def burst(self) -> None:
        """Callers of a process call."""
        for service in self.living():
            for number in range(self.chance.randint(1, 3)):
                amount = self.chance.randint(1, 4)
                work = lambda service=service, amount=amount: service.calls_in_a_row(amount, honest=self.honest)  # noqa: E731
                self.run.spawn(service.process, f"caller {number}", work, is_active=True)

    def fork(self) -> None:
        """A process forks, and both go on."""
        living = self.living()
        if 0 < len(living) < 3:
            self.services.append(forked(self.chance.choice(living), 1_000 + len(self.services)))
            self.faults["a process forked"] += 1

    def kill(self) -> None:
        """Kill a process."""
        if living := self.living():
            self.chance.choice(living).die()
            self.faults["a process killed"] += 1

    def stop(self) -> None:
        """Shut a process down, with little time or much."""
        if living := self.living():
            self._stopped(self.chance.choice(living), self.chance.choice((0.0, 0.5, 5.0, 30.0)))

    def _stopped(self, service: Service, timeout_s: float) -> None:
        service.is_stopped = True
        self.faults["a process stopped"] += 1
        limit = int(timeout_s * SECOND) + LATE_NS

        def main() -> None:
            service.stop(timeout_s)
            if service.took_ns > limit:
                raise Violation(f"a shutdown with {timeout_s} s took {service.took_ns / SECOND:.1f} s")
            service.stopped_well = True

        self.run.spawn(service.process, "stopping", main, is_active=True)

    def database_away(self) -> None:
        """The database is away for a while."""
        self.database.is_away = True
        self.faults["the database away"] += 1
        long = self.chance.random() < 0.2
        self.is_exact = self.is_exact and not long
        self.run.sleep(int(self.chance.random() * (2_000 if long else 200) * SECOND))
        self.database.is_away = False

    def database_slow(self) -> None:
        """Statements take long."""
        self.database.slow_ns = self.chance.choice((SECOND // 10, SECOND, 3 * SECOND))
        self.faults["the database slow"] += 1
        self.run.sleep(30 * SECOND)
        self.database.slow_ns = 0

    def answers_lost(self) -> None:
        """Commits happen, and the connection breaks before the answer."""
        self.database.loses_answers = self.chance.choice((0.1, 0.5, 1.0))
        self.faults["answers to commits lost"] += 1
        self.run.sleep(20 * SECOND)
        self.database.loses_answers = 0.0

    def failover(self) -> None:
        """A replica that lags takes over."""
        self.database.replica_stops()
        self.run.sleep(int(self.chance.random() * 20 * SECOND))
        books = Books(self)
        rows, spent = books.rows(), books.spent()
        self.database.fail_over()
        self.lost_rows |= rows.keys() - books.rows().keys()
        self.lost_tokens.update(spent - books.spent())
        self.is_exact = False
        self.faults["a failover"] += 1

    def disk_full(self) -> None:
        """The disk is full for a while."""
        self.disk.is_full = True
        self.faults["the disk full"] += 1
        self.run.sleep(int(self.chance.random() * 30 * SECOND))
        self.disk.is_full = False

    def disk_slow(self) -> None:
        """Operations on files take long."""
        self.disk.slow_ns = self.chance.choice((SECOND // 10, 2 * SECOND))
        self.faults["the disk slow"] += 1
        self.run.sleep(20 * SECOND)
        self.disk.slow_ns = 0

    def power(self) -> None:
        """The machine loses power: its processes die, and what was not synced is lost."""
        for service in [each for each in self.services if not each.process.is_dead]:
            if not service.stopped_well:
                service.die()
        self.disk.lose_power()
        self.lost_power = True
        self.faults["power lost"] += 1

    def clock_step(self) -> None:
        """The wall clock of a process is set."""
        if living := self.living():
            step = self.chance.choice((-86_400, -3_600, -1, 1, 600, 3_600))
            self.chance.choice(living).process.skew += step * SECOND
            self.is_exact = False
            self.faults["a clock set"] += 1

    def operations_fail(self) -> None:
        """Some or all operations of a few kinds fail for a while, in which processes work."""
        kinds = self.chance.sample(list(KINDS), self.chance.randint(1, 4))
        rate = self.chance.choice((0.1, 0.5, 1.0))
        for kind in kinds:
            self.failures.rates[kind] = rate
        self.burst()
        self.run.sleep(int(self.chance.random() * 60 * SECOND))
        for kind in kinds:
            self.failures.rates.pop(kind, None)

    def zone_changes(self) -> None:
        """The machine is in another time zone from now on."""
        os.environ["TZ"] = self.chance.choice(ZONES)
        time.tzset()
        self.faults["a time zone changed"] += 1

    def stall(self) -> None:
        """Everything stands still for a moment, as when a machine is suspended."""
        self.run.now += int(self.chance.random() * 100 * SECOND)
        self.faults["a stall"] += 1

    def idle(self) -> None:
        """Nothing happens for a while."""
        self.run.sleep(int(self.chance.random() * HOUR_NS))

    # --- a run -------------------------------------------------------------------------------------------------------

    def direct(self) -> None:
        """Let events happen, then heal everything, stop, and let a last process clear up."""
        run = self.run
        self.start()
        run.sleep(SECOND)
        self.burst()
        besides: list[Task] = []
        for _ in range(self.chance.randint(2, 6)):
            event = self.chance.choice(self.chosen)
            run.note(event.__name__)
            if self.chance.random() < 0.5:
                event()
            else:  # beside those that follow
                besides.append(run.spawn(self.outside, event.__name__, event, is_active=True))
            run.sleep(self._pause_ns())
        self._wait(lambda: all(each.is_done for each in besides), "events to end")
        run.sleep(60 * SECOND)
        for service in self.living():
            self._stopped(service, 30.0)
        self._wait(lambda: all(map(_has_ended, self.services)), "the processes to stop")
        self._clear_up()

    def _pause_ns(self) -> int:
        """Seconds or minutes until the next event, at times a night."""
        if self.chance.random() < 0.15:
            return int((6 + 10 * self.chance.random()) * HOUR_NS)
        return int(self.chance.random() ** 3 * 600 * SECOND)

    def _clear_up(self) -> None:
        """A last process starts, works, and writes what was left behind."""
        run, last = self.run, self._started()
        self._wait(lambda: last.is_ready, "the last process to start")
        run.spawn(last.process, "caller", lambda: last.calls_in_a_row(2, honest=True), is_active=True)
        run.sleep(60 * SECOND)
        flushed: list[bool] = []
        run.spawn(last.process, "flushing", lambda: flushed.append(last.pipeline.flush(120.0)), is_active=True)
        self._wait(lambda: flushed, "a flush")
        if not flushed[0]:
            raise Violation("with everything healed, a flush of two minutes did not write what waited")
        self._stopped(last, 30.0)
        self._wait(lambda: last.stopped_well, "the last process to stop")

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        deadline, me = self.run.now + 2 * HOUR_NS, self.run.current
        assert me is not None
        me.is_active = False  # who only looks keeps no thread from sleeping
        while not condition():
            if self.run.now > deadline:
                raise Violation(f"it hangs: two simulated hours of waiting for {what}")
            self.run.sleep(SECOND)
        me.is_active = True


def _has_ended(service: Service) -> bool:
    """Whether a process is gone, unless it never began."""
    return service.stopped_well or service.process.is_dead or not service.is_ready


@contextmanager
def _quiet(zone: str) -> Iterator[None]:
    """No log lines, no collector, and a time zone, while a run lasts."""
    logger, before = logging.getLogger("taskpilot_obs"), os.environ.get("TZ")
    was_disabled, logger.disabled = logger.disabled, True
    os.environ["TZ"] = zone
    time.tzset()
    gc.disable()
    try:
        with compiled_once():
            yield
    finally:
        gc.enable()
        logger.disabled = was_disabled
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()
        forget_causes()


@contextmanager
def _unregistered() -> Iterator[None]:
    """Forget at the end what a run registered for real forks, the real exit, and questions that name no store.

    The simulator closed the files of killed processes, but their objects keep the numbers of the descriptors, and a
    real child would close whatever has these numbers by then.
    """
    registered: tuple[WeakSet[Any], ...] = (lifecycle.pipelines, fork._renewables, stores.filled)
    before = [{*each} for each in registered]
    try:
        yield
    finally:
        for each, kept in zip(registered, before, strict=True):
            each.intersection_update(kept)


def simulate(seed: int, log: list[str] | None = None) -> Outcome:
    """One run.

    Args:
        seed: decides everything.
        log: gets a line for each step.

    Raises:
        Violation: something that must always hold does not.
    """
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    with (
        tempfile.TemporaryDirectory(prefix="simulated-", dir=memory) as home,
        _quiet(ZONES[seed % len(ZONES)]),
        _unregistered(),
    ):
        simulation = Simulation(seed, Path(home))
        run = simulation.run
        run.log = log
        with closing(simulation.database):
            with installed(simulation.disk, seed):
                try:
                    with served(simulation.database), simulation.failing():
                        run.run(simulation.outside, simulation.direct)
                finally:
                    for service in simulation.services:
                        if not service.process.is_dead:
                            service.die()
            for service in simulation.services:
                service.counters.take()  # of records that came after a shutdown
            Books(simulation).check()
    calls = sum(len(service.calls) for service in simulation.services)
    looks = simulation.watch.looks
    failed = Counter({f"{kind} failed": times for kind, times in simulation.failures.happened.items()})
    return Outcome(seed, run.trace, run.now / SECOND, run.steps, calls, simulation.faults + failed, looks)


def kept_seeds() -> dict[int, str]:
    """The seeds that found a fault, and which."""
    kept = tomllib.loads((Path(__file__).parent / "kept_seeds.toml").read_text())
    return {each["number"]: each["found"] for each in kept["seed"]}
