"""The metric families of one registry: created once, their children bound once, their labels bounded."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, product
from math import prod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, values

from taskpilot_obs import semconv
from taskpilot_obs._support.fork import HeldOverFork, call_in_child
from taskpilot_obs._support.fork_hooks import around_forks, each_of
from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.exporters.prometheus.histogram import BulkHistogram, HistogramFollower
from taskpilot_obs.exporters.prometheus.labels import Admission, clean
from taskpilot_obs.exporters.prometheus.worker_files import require_directory
from taskpilot_obs.semconv import LABEL_BOUNDS, LABEL_OVERFLOW, METRICS, OTHER, Kind, Label, Metric, fixed_values

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal, Protocol

    from prometheus_client.metrics_core import Metric as Collected

    class Drainable(Protocol):
        """A pipeline whose queued records a scrape should include."""

        def drain(self) -> None:
            """Book everything handed over so far."""


Follow = Callable[[Metric, tuple[str, ...]], HistogramFollower]
"""Creates the follower of one series of a histogram."""
M = TypeVar("M", Counter, Gauge, BulkHistogram)

MULTIPROCESS: bool = getattr(values.ValueClass, "_multiprocess", False)
"""Whether prometheus_client keeps its values in files, which it decides once, when it is imported."""
BORN_TOGETHER = frozenset(
    {Label.STATUS, Label.TOKEN_TYPE, Label.DECISION, Label.RESULT, Label.ERROR_TYPE, Label.VERDICT, Label.REASON}
)
"""Labels whose values are all created together, at 0, because a series that starts at 1 has `increase()` = 0, which
would hide the first failure. They are the last labels of a family."""
SUMMED_GAUGES = frozenset(
    {
        semconv.WORKFLOW_ACTIVE,
        semconv.AGENT_ACTIVE,
        semconv.LLM_ACTIVE,
        semconv.LLM_CACHE_SIZE,
        semconv.QUEUE_SIZE,
    }
)


class ActiveGauges:
    """The gauges of runs of one kind in progress, and the change to apply to them."""

    __slots__ = ("change", "gauges", "overflows")

    def __init__(self, gauges: tuple[Gauge, ...], overflows: tuple[Counter, ...]) -> None:
        self.gauges = gauges
        self.overflows = overflows
        """Rise with each start, because a label of these gauges is full."""
        self.change = 0


logger = logging.getLogger("taskpilot_obs")


class Family(Generic[M]):
    """One metric family, and its children by label values.

    At most `semconv.MAX_CHILDREN` combinations exist. Beyond that, the bounded labels of a new combination become
    `__other__` for good, because admitted combinations are never removed.
    """

    def __init__(self, metric: Metric, collector: M, owner: Families) -> None:
        self.metric = metric
        self._collector: M = collector
        self._owner = owner
        together = tuple(label for label in metric.labels if label in BORN_TOGETHER)
        self._own = len(metric.labels) - len(together)
        self._siblings = tuple(product(*(fixed_values(metric.name, label) for label in together)))
        kept = prod(len(fixed_values(metric.name, label)) or 1 for label in metric.labels[: self._own])
        self._room = semconv.MAX_CHILDREN // len(self._siblings) - kept
        self._groups: set[tuple[str, ...]] = set()
        self.children: dict[tuple[str, ...], M] = {}

    def child(self, *label_values: str) -> M:
        """Return the child for the values of all labels; values that must be folded count as overflow."""
        child = self.children.get(label_values)
        return self._resolve(label_values) if child is None else child

    def init_child(self, *label_values: str) -> None:
        """Create, at 0, the children for these values of the labels that are not born together."""
        if label_values not in self._groups:
            self._admit(label_values)

    def forget(self, *label_values: str) -> None:
        """Remove one child; in multi-process mode prometheus_client cannot, and warns."""
        labels = self._admit(label_values)
        self._collector.remove(*labels)
        self.children.pop(labels, None)
        self._groups.discard(labels[: self._own])

    def _resolve(self, label_values: tuple[str, ...]) -> M:
        labels = self._admit(label_values)
        if any(new == OTHER != old for new, old in zip(labels, label_values, strict=True)):
            self._owner.count_folded(self.metric)
        child = self.children.get(labels)
        if child is None:
            child = self.children[labels] = self._collector.labels(*labels) if labels else self._collector
            self._owner.follow(self.metric, labels, child)
        return child

    def _admit(self, label_values: tuple[str, ...]) -> tuple[str, ...]:
        admit = self._owner.admission.admit
        family, names = self.metric.name, self.metric.labels
        labels = tuple([admit(family, name, clean(value)) for name, value in zip(names, label_values, strict=False)])
        group, rest = labels[: self._own], labels[self._own :]
        if group not in self._groups:
            if len(self._groups) >= self._room:
                group = tuple(OTHER if name in LABEL_BOUNDS else kept for name, kept in zip(names, group, strict=False))
            self._bear(group)
        return group + rest

    def _bear(self, group: tuple[str, ...]) -> None:
        if group in self._groups:
            return
        self._groups.add(group)
        if not self.metric.labels:  # prometheus_client has already created the only child
            return
        for sibling in self._siblings:
            self._collector.labels(*group, *sibling)


class Families:
    """All families of the contract in one registry, and the state that its exporters share.

    It is the only collector in the registry: a scrape, of all families or of some, drains first and reads them between
    two batches, never in the middle of one.
    """

    def __init__(self, registry: CollectorRegistry, namespace: str = "") -> None:
        self.namespace = namespace
        self.admission = Admission()
        self.sources: weakref.WeakSet[Drainable] = weakref.WeakSet()
        self.active: dict[str, ActiveGauges] = {}
        """Gauges raised by a run in progress, by invocation ID, so that only raised gauges are lowered."""
        self.followed_by: Follow | None = None
        self._overflows: list[Counter] | None = None
        self._counters: dict[str, Family[Counter]] = {}
        self._gauges: dict[str, Family[Gauge]] = {}
        self._histograms: dict[str, Family[BulkHistogram]] = {}
        self._collectors = [self._create(metric) for metric in METRICS]
        self.gauge(semconv.START_TIME).child().set(time.time())
        self._over_fork = HeldOverFork()
        self._reset()
        _unregister_earlier_import(registry)
        try:
            registry.register(self)
        except ValueError as error:
            raise ConfigurationError(
                f"the registry already has a metric named like one of this library's ({error}): rename yours, "
                "put a prefix before ours with configure(namespace=…), or give configure() a registry of its own"
            ) from error
        registry.__dict__.setdefault(_MARK, []).append(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._aside = threading.RLock()
        self._owner = 0
        self._late: deque[Callable[[], None]] = deque()

    def run(self, action: Callable[[], None]) -> None:
        """Run an action while no other thread changes the families.

        A signal handler or a finalizer may interrupt this thread in the middle of another action, while it holds a
        lock of prometheus_client: the action is then queued and runs right after that one.
        """
        me = threading.get_ident()
        if self._owner == me:
            self._late.append(action)
            return
        with self._lock:
            self._owner = me
            try:
                action()
                while self._late:
                    with guarded("prometheus.late"):
                        self._late.popleft()()
            finally:
                self._owner = 0

    def run_aside(self, action: Callable[[], None]) -> None:
        """Like `run`, for actions that the pipeline's lock does not cover: a fork waits for them.

        Otherwise the child could inherit a lock of prometheus_client that is never released.
        """
        with self._aside:
            self.run(action)

    def drain(self) -> None:
        """Export everything recorded so far."""
        for source in list(self.sources):
            source.drain()

    def describe(self) -> Iterable[Collected]:
        """Return names and types for the registry to detect clashes; without this method, registering would drain."""
        return [family for collector in self._collectors for family in collector.describe()]

    def collect(self) -> Iterable[Collected]:
        """Return all families, after a drain."""
        self.drain()
        collected: list[Collected] = []
        self.run_aside(lambda: collected.extend(chain.from_iterable(each.collect() for each in self._collectors)))
        return collected

    def values(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Return the values of all counters and gauges by family, without a drain. The caller is within `run_aside`."""
        found = {}
        for collector in self._collectors:
            for family in () if isinstance(collector, BulkHistogram) else collector.collect():
                name = family.name + ("_total" if family.type == Kind.COUNTER else "")
                found[name] = [(sample.labels, sample.value) for sample in family.samples if sample.name == name]
        return found

    def follow_histograms(self, follow: Follow | None) -> None:
        """Let another metrics system receive every observation of every histogram; None ends that."""
        self.followed_by = follow
        for family in self._histograms.values():
            for labels, child in family.children.items():
                self.follow(family.metric, labels, child)

    def follow(self, metric: Metric, labels: tuple[str, ...], child: Counter | Gauge | BulkHistogram) -> None:
        """Connect one new child of a histogram."""
        if isinstance(child, BulkHistogram):
            child.follower = None if self.followed_by is None else self.followed_by(metric, labels)

    def before_fork(self) -> None:
        """Wait for a scrape or a declaration in progress (milliseconds)."""
        self._over_fork.hold(self._aside)

    def after_fork_in_parent(self) -> None:
        """Allow scrapes again."""
        self._over_fork.let_go(self._aside)

    def after_fork_in_child(self) -> None:
        """Reset locks and gauges of runs in the parent; prometheus_client's files keep values by process."""
        self._reset()
        if not MULTIPROCESS:
            for gauge in chain.from_iterable(level.gauges for level in self.active.values()):
                gauge.set(0)
        self.active.clear()

    def _create(self, metric: Metric) -> Counter | Gauge | BulkHistogram:
        name, text, labels = metric.name, metric.help, metric.labels
        if metric.kind is Kind.COUNTER:
            counter = Counter(name, text, labels, namespace=self.namespace, registry=None)
            self._counters[name] = Family(metric, counter, self)
            return counter
        if metric.kind is Kind.HISTOGRAM:
            histogram = BulkHistogram(
                name, text, labels, namespace=self.namespace, registry=None, buckets=metric.buckets
            )
            self._histograms[name] = Family(metric, histogram, self)
            return histogram
        gauge = Gauge(name, text, labels, namespace=self.namespace, registry=None, multiprocess_mode=_mode(metric))
        self._gauges[name] = Family(metric, gauge, self)
        return gauge

    def of(self, metric: Metric) -> Family[Any]:
        """Return the family of a metric of the contract, whatever its kind."""
        families: dict[str, Family[Any]] = {**self._counters, **self._gauges, **self._histograms}
        return families[metric.name]

    def counter(self, metric: Metric) -> Family[Counter]:
        """Return the family of a counter of the contract."""
        return self._counters[metric.name]

    def gauge(self, metric: Metric) -> Family[Gauge]:
        """Return the family of a gauge of the contract."""
        return self._gauges[metric.name]

    def histogram(self, metric: Metric) -> Family[BulkHistogram]:
        """Return the family of a histogram of the contract."""
        return self._histograms[metric.name]

    def count_folded(self, metric: Metric) -> None:
        """Count an observation whose labels were folded as overflow."""
        overflow = self.counter(LABEL_OVERFLOW).child(metric.name)
        if self._overflows is None:
            overflow.inc()
        else:
            self._overflows.append(overflow)

    @contextmanager
    def overflows(self) -> Iterator[list[Counter]]:
        """Collect the counters of what is folded inside, and raise none: the caller does, once per observation."""
        found = self._overflows = []
        try:
            yield found
        finally:
            self._overflows = None


def _mode(metric: Metric) -> Literal["livesum", "livemax", "min"]:
    """How the values of a gauge from several workers are combined."""
    if metric is semconv.START_TIME:  # dead workers' counts stay in the sums, so their start times do too
        return "min"
    return "livesum" if metric in SUMMED_GAUGES else "livemax"


_MARK = "taskpilot_obs_families"
"""The attribute of a registry that holds our collectors, so that a second import of this module finds them."""


def _unregister_earlier_import(registry: CollectorRegistry) -> None:
    """Unregister collectors of an earlier import of this module, because a reloading server imports all again."""
    found = registry.__dict__.get(_MARK, ())
    for earlier in [each for each in found if type(each) is not Families]:
        message = "taskpilot_obs was imported a second time: its metrics begin again at 0 [%s]"
        logger.warning(message, semconv.WarningCode.IMPORTED_TWICE)
        registry.unregister(earlier)
        found.remove(earlier)


_shared: weakref.WeakKeyDictionary[CollectorRegistry, dict[str, Families]] = weakref.WeakKeyDictionary()
_shared_lock = threading.Lock()
namespaces: set[str] = set()
"""Prefixes of families that this process has used."""


def _all() -> list[Families]:
    return [families for named in list(_shared.values()) for families in named.values()]


def families_of(registry: CollectorRegistry | None = None, namespace: str = "") -> Families:
    """Return the families of a registry (default: prometheus_client's own), created at the first call.

    Args:
        registry: the registry.
        namespace: the prefix of every name, without the underscore that follows it; empty for none.

    Raises:
        ConfigurationError: the registry has a metric of the same name, or PROMETHEUS_MULTIPROC_DIR is not a directory.
    """
    registry = REGISTRY if registry is None else registry
    with _shared_lock:
        named = _shared.setdefault(registry, {})
        if namespace not in named:
            if MULTIPROCESS:
                require_directory()
            named[namespace] = Families(registry, namespace)
            namespaces.add(namespace)
        return named[namespace]


def drain_all() -> None:
    """Export everything recorded so far, to all registries of this process."""
    with _shared_lock:
        every = _all()
    for families in every:
        families.drain()


def _renew_locks() -> None:
    global _shared_lock  # noqa: PLW0603  another thread may have held it at the fork
    _shared_lock = threading.Lock()
    for registry in list(_shared):  # prometheus_client does not renew these locks either
        registry._lock = threading.Lock()  # noqa: SLF001  it offers no other way


around_forks(
    before=each_of(_all, "before_fork"),
    in_parent=each_of(_all, "after_fork_in_parent"),
    in_child=each_of(_all, "after_fork_in_child"),
)
call_in_child(_renew_locks)
