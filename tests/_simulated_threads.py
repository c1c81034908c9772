"""A scheduler, a clock, and threads, locks and events that run on it: one real thread, one random seed.

Simulated threads are greenlets. Each operation that could let another thread run (a lock, a wait, a file, a statement)
is a step, at which the scheduler may switch. Time passes only when every thread waits, so hours cost nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from heapq import heappop, heappush
from random import Random
from types import ModuleType
from typing import Any, Final
from zlib import crc32

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # it has no type hints

SECOND: Final = 1_000_000_000
LONGEST_NAP: Final = SECOND // 20
"""Loops of short sleeps sleep up to this long: a sleep may always last longer than asked."""
STRETCHED: Final = 250 * SECOND
"""How long a thread that polls for nothing sleeps while nothing else happens; each time in a row it doubles."""
LONGEST_STRETCH: Final = 3_600 * SECOND
IDLE_POLLS: Final = 1
MOST_STEPS: Final = 400_000


def _nothing(_number: int) -> None:
    """Looks at nothing."""


class Violation(AssertionError):  # noqa: N818  what the simulator looks for
    """An invariant does not hold."""


class Died(BaseException):
    """Ends the threads of a process that was killed."""


class Process:
    """A simulated process: its identifier and its clock."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.is_dead = False
        self.skew = 0
        """Nanoseconds from the true time to its wall clock."""


class Task:
    """One simulated thread."""

    def __init__(self, process: Process, name: str, number: int, *, is_active: bool) -> None:
        self.process = process
        self.name = name
        self.number = number
        self.is_active = is_active
        """Whether it does the work of the application, and does not poll for it."""
        self.greenlet: greenlet = getcurrent()
        self.token = 0
        self.is_done = False
        self.was_woken = False
        self.idle = 0
        self.nap = (0, 0)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Task:
        """A forked child knows which thread of its parent held a lock."""
        return self


class Scheduler:
    """Runs simulated threads, one at a time, in an order that its seed decides."""

    def __init__(self, seed: int, start_unix_ns: int) -> None:
        self.random = Random(seed)
        self.now = 0
        self.base = start_unix_ns
        self.switching = self.random.choice((0.02, 0.1, 0.3, 0.6))
        """How likely a switch is at a step."""
        self.steps = 0
        self.trace = 0
        """A checksum of everything that happened, in order."""
        self.log: list[str] | None = None
        self.watch: Callable[[int], None] = _nothing
        """Called with the number of each step, between threads."""
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self._ready: list[Task] = []
        self._timers: list[tuple[int, int, Task, int]] = []
        self._stretched: dict[Task, int] = {}
        self._numbers = 0

    def note(self, what: str) -> None:
        """Add to the trace what happens now."""
        who = "-" if self.current is None else f"{self.current.process.pid} {self.current.name}"
        line = f"{self.now} {who} {what}"
        self.trace = crc32(line.encode(), self.trace)
        if self.log is not None:
            self.log.append(line)

    def spawn(self, process: Process, name: str, work: Callable[[], object], *, is_active: bool = False) -> Task:
        """Start a thread."""
        self._numbers += 1
        task = Task(process, name, self._numbers, is_active=is_active)

        def body() -> None:
            try:
                work()
            except Died:
                pass
            finally:
                task.is_done = True

        task.greenlet = greenlet(body, self._main)
        self.tasks.append(task)
        self._ready.append(task)
        return task

    def run(self, process: Process, director: Callable[[], None]) -> None:
        """Run `director` and all threads until it returns.

        Raises:
            Violation: every thread waits for ever, or a thread ended with an exception.
        """
        self._main = getcurrent()
        first = self.spawn(process, "director", director, is_active=True)
        while not first.is_done:
            task = self._next()
            self.current = task
            if task.is_active and self._stretched:
                self._wake_pollers()
            try:
                task.greenlet.switch()
            except Violation:
                raise
            except Exception as error:
                raise Violation(f"the thread {task.name} ended with {error!r}") from error
            finally:
                self.current = None
        self.tasks = [task for task in self.tasks if not task.is_done]

    def _next(self) -> Task:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Violation("it goes on for ever: a loop of threads that wake each other")
        self.watch(self.steps)
        while not self._ready:
            if not self._timers:
                waiting = ", ".join(f"{task.process.pid} {task.name}" for task in self.tasks if not task.is_done)
                raise Violation(f"it hangs: every thread waits for ever ({waiting})")
            moment, _, task, token = heappop(self._timers)
            if token == task.token and not task.is_done:
                self.now = max(self.now, moment)
                self._awake(task)
        last = len(self._ready) - 1
        chosen = int(self.random.random() * (last + 1)) if last else 0
        self._ready[chosen], self._ready[last] = self._ready[last], self._ready[chosen]
        self.now += 1_000
        return self._ready.pop()

    def _awake(self, task: Task) -> None:
        task.token += 1
        self._stretched.pop(task, None)
        self._ready.append(task)

    def wake(self, task: Task) -> None:
        """End the wait of a thread."""
        if not task.is_done and not task.was_woken:
            task.was_woken = True
            self._awake(task)

    def _wake_pollers(self) -> None:
        for task, timeout in self._stretched.items():
            task.token += 1
            task.idle = 0
            self._at(self.now + timeout, task)
        self._stretched.clear()

    def _at(self, moment: int, task: Task) -> None:
        self._numbers += 1
        heappush(self._timers, (moment, self._numbers, task, task.token))

    # --- called by the simulated threads -----------------------------------------------------------------------------

    def step(self, what: str) -> None:
        """Maybe let another thread run, before an operation."""
        task = self.current
        if task is None:
            return
        if task.process.is_dead:
            raise Died
        task.nap = (0, 0)
        self.note(what)
        if self.random.random() < self.switching:
            self._ready.append(task)
            self._switch(task)

    def sleep(self, duration: int) -> None:
        """Let time pass for the calling thread."""
        task = self.current
        if task is None or task.process.is_dead:
            raise Died
        asked, times = task.nap
        times = times + 1 if asked == duration else 0
        task.nap = (duration, times)
        self._at(self.now + min(duration << min(times, 20), max(duration, LONGEST_NAP)), task)
        self._switch(task)

    def wait(self, timeout: int | None) -> bool:
        """Wait until another thread calls `wake`; False where the time is up."""
        task = self.current
        if task is None or task.process.is_dead:
            raise Died
        task.nap, task.was_woken = (0, 0), False
        if timeout is not None:
            polls = task.idle >= IDLE_POLLS and not task.is_active
            if polls:
                self._stretched[task] = timeout
            self._at(self.now + (max(timeout, _stretch(task.idle)) if polls else timeout), task)
        self._switch(task)
        task.idle = 0 if task.was_woken else task.idle + 1
        return task.was_woken

    def _switch(self, task: Task) -> None:
        self._main.switch()
        if task.process.is_dead:
            raise Died

    def kill(self, process: Process) -> None:
        """End a process as `kill -9` does: none of its threads does another operation."""
        process.is_dead = True
        me, self._ready = self.current, [task for task in self._ready if task.process is not process]
        for task in [task for task in self.tasks if task.process is process and not task.is_done]:
            task.token += 1
            self._stretched.pop(task, None)
            if not task.greenlet:  # it has not begun
                task.is_done = True
                continue
            task.greenlet.parent, self.current = getcurrent(), task
            try:
                task.greenlet.throw(Died)
            except Exception:  # noqa: S110  whatever else falls apart in a process that was killed
                pass
            task.is_done = True
        self.current = me
        self.tasks = [task for task in self.tasks if not task.is_done]


class World:
    """The scheduler that runs now."""

    scheduler: Scheduler


def scheduler() -> Scheduler:
    """The scheduler that runs now."""
    return World.scheduler


def _stretch(idle: int) -> int:
    """How long a thread that has polled so often for nothing sleeps."""
    return min(LONGEST_STRETCH, STRETCHED << min(idle - IDLE_POLLS, 8))


def _ns(timeout: float | None) -> int | None:
    return None if timeout is None or timeout < 0 else int(timeout * SECOND)


class Lock:
    """As `threading.Lock`."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock."""
        run = scheduler()
        run.step("lock")
        limit = _ns(timeout)
        deadline = None if limit is None else run.now + limit
        while self._is_held:
            if not blocking or run.current is None:
                return False
            left = None if deadline is None else deadline - run.now
            if left is not None and left <= 0:
                return False
            task = run.current
            self._waiting.append(task)
            try:
                run.wait(left)
            finally:
                if task in self._waiting:
                    self._waiting.remove(task)
        self._is_held = True
        return True

    def release(self) -> None:
        """Let it go."""
        if not self._is_held:
            raise RuntimeError("release unlocked lock")
        self._is_held = False
        if self._waiting:
            run = scheduler()
            run.wake(self._waiting.pop(int(run.random.random() * len(self._waiting))))

    def locked(self) -> bool:
        """Whether a thread holds it."""
        return self._is_held

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __deepcopy__(self, _memo: dict[int, Any]) -> Lock:
        """A forked child has it as it is, and none of the threads that wait for it."""
        made = copy(self)
        made._waiting = []
        return made


class RLock(Lock):
    """As `threading.RLock`."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: Task | None = None
        self._times = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, once more where this thread has it."""
        me = scheduler().current
        if self._times and self._owner is me:
            self._times += 1
            return True
        if not super().acquire(blocking, timeout):
            return False
        self._owner, self._times = me, 1
        return True

    def release(self) -> None:
        """Let it go."""
        self._times -= 1
        if not self._times:
            self._owner = None
            super().release()


class BoundedSemaphore:
    """As `threading.BoundedSemaphore`."""

    def __init__(self, value: int = 1) -> None:
        self._value = value
        self._freed = Event()

    def __enter__(self) -> None:
        scheduler().step("semaphore")
        while not self._value:
            self._freed.clear()
            self._freed.wait()
        self._value -= 1

    def __exit__(self, *_: object) -> None:
        self._value += 1
        self._freed.set()


class Event:
    """As `threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[Task] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set the event."""
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            scheduler().wake(task)

    def clear(self) -> None:
        """Clear the event."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""
        run = scheduler()
        run.step("event")
        if self._is_set or run.current is None:
            return self._is_set
        self._waiting.append(run.current)
        run.wait(_ns(timeout))
        if run.current in self._waiting:
            self._waiting.remove(run.current)
        return self._is_set

    def __deepcopy__(self, _memo: dict[int, Any]) -> Event:
        """As `Lock`'s."""
        made = copy(self)
        made._waiting = []
        return made


class Thread:
    """As `threading.Thread`."""

    def __init__(
        self,
        target: Callable[..., object],
        args: Sequence[object] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str = "thread",
        daemon: bool | None = None,
    ) -> None:
        self._work: Callable[[], object] = partial(target, *args, **(kwargs or {}))
        self._ended = Event()
        self.name = name
        self.daemon = daemon

    def start(self) -> None:
        """Start it in the process of the calling thread."""
        run = scheduler()
        if run.current is None:
            raise RuntimeError("can't start new thread")
        run.spawn(run.current.process, self.name, self._body)

    def _body(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def __deepcopy__(self, _memo: dict[int, Any]) -> Thread:
        """A forked child has it as a thread that has ended."""
        made = copy(self)
        made._ended = Event()
        made._ended.set()
        return made

    def is_alive(self) -> bool:
        """Whether it runs."""
        return not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._ended.wait(timeout)


class ThreadingModule(ModuleType):
    """Takes the place of `threading` in modules of the library."""

    Lock, RLock, Event, Thread, BoundedSemaphore = Lock, RLock, Event, Thread, BoundedSemaphore

    @staticmethod
    def get_ident() -> int:
        """The number of the running thread."""
        task = scheduler().current
        return threading.get_ident() if task is None else task.number

    @staticmethod
    def current_thread() -> Any:
        """The running thread, of which the library reads the name only."""
        task = scheduler().current
        return threading.current_thread() if task is None else task

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


class TimeModule(ModuleType):
    """Takes the place of `time` in modules of the library."""

    @staticmethod
    def monotonic() -> float:
        """Seconds of simulated time."""
        return scheduler().now / SECOND

    @staticmethod
    def monotonic_ns() -> int:
        """Nanoseconds of simulated time."""
        return scheduler().now

    perf_counter = monotonic
    perf_counter_ns = monotonic_ns

    @staticmethod
    def time_ns() -> int:
        """The wall clock of the simulated process."""
        run = scheduler()
        return run.base + run.now + (0 if run.current is None else run.current.process.skew)

    @classmethod
    def time(cls) -> float:
        """The wall clock of the simulated process."""
        return cls.time_ns() / SECOND

    @staticmethod
    def sleep(duration_s: float) -> None:
        """Let simulated time pass."""
        scheduler().sleep(int(duration_s * SECOND))

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
