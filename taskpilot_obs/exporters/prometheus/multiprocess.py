"""The metrics of many processes: the values in the files of PROMETHEUS_MULTIPROC_DIR, summed by series."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.utils import floatToGoString

from taskpilot_obs._support.guarded import guarded
from taskpilot_obs.exceptions import SourceError
from taskpilot_obs.exporters.prometheus.worker_files import (
    DAMAGE,
    VARIABLE,
    exact_sum,
    files_of,
    locked,
    read,
    sweep,
)

_ADDED: Final = ("counter", "histogram", "summary")
_BUCKET: Final = "_bucket"
_BOUND: Final = "le"

Labels = tuple[tuple[str, str], ...]


class Workers:
    """A collector of all processes, living and dead, that share the directory.

    prometheus_client's own collector reads the same files. It adds floats in the order in which the directory lists
    them, so a sum may change in its last digit when a file comes or goes, which Prometheus takes for a restart.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> list[Metric]:
        """Return the families of all processes.

        Raises:
            SourceError: the directory is gone, another process keeps it locked, or a file is damaged.
        """
        values: dict[str, list[tuple[str, float]]] = {}
        with locked(self._directory):
            with guarded("multiprocess.sweep"):  # a directory that this process may only read
                sweep(self._directory)
            files = files_of(self._directory)
            for kind in _ADDED:
                values[kind] = [(key, value) for path in files.pop(kind, ()) for key, value, _ in read(path)]
            gauges = [str(path) for paths in files.values() for path in paths]
            merged = _merged(gauges)
        return [*merged, *(family for kind in _ADDED for family in _families(kind, values[kind]))]


def workers() -> Workers:
    """Return the collector of the directory that the environment names.

    Raises:
        SourceError: the environment names no directory.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        raise SourceError(f"{VARIABLE} was set when this process started, but is not set any more")
    return Workers(Path(name))


def _merged(gauges: list[str]) -> list[Metric]:
    try:
        return list(MultiProcessCollector.merge(gauges))  # type: ignore[no-untyped-call]  # it has no types
    except DAMAGE as error:
        raise SourceError(f"a file of gauges of {VARIABLE} is damaged: {error}") from error


def _parsed_key(key: str) -> tuple[str, str, dict[str, str], str]:
    """The family, the name, the labels and the help of a series.

    Raises:
        SourceError: the key is none that prometheus_client writes.
    """
    try:
        family_name, name, labels, text = json.loads(key)
        texts = (family_name, name, text, *labels, *labels.values())
    except (*DAMAGE, RecursionError) as error:
        raise SourceError(f"a file of metric values is damaged, because it has the series {key[:100]!r}") from error
    if not all(isinstance(each, str) for each in texts):
        raise SourceError(f"a file of metric values is damaged, because it has the series {key[:100]!r}")
    return family_name, name, labels, text


def _parsed_bound(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise SourceError(f"a file of metric values is damaged, because it has the bound {text[:100]!r}") from error


def _families(kind: str, values: Iterable[tuple[str, float]]) -> Iterator[Metric]:
    sums: defaultdict[str, list[float]] = defaultdict(list)
    for key, value in values:
        sums[key].append(value)
    families: dict[str, Metric] = {}
    buckets: defaultdict[tuple[str, Labels], dict[float, float]] = defaultdict(dict)
    for key, parts in sums.items():
        family_name, name, labels, text = _parsed_key(key)
        family = families.get(family_name)
        if family is None:
            family = families[family_name] = Metric(family_name, text, kind)
        bound = labels.pop(_BOUND, None) if name.endswith(_BUCKET) else None
        if bound is None:
            family.add_sample(name, labels, exact_sum(parts))
        else:
            buckets[family_name, tuple(labels.items())][_parsed_bound(bound)] = exact_sum(parts)
    for (family_name, fixed), counts in buckets.items():
        _add_buckets(families[family_name], dict(fixed), counts)
    for family in families.values():
        family.samples.sort(key=lambda sample: [pair for pair in sample.labels.items() if pair[0] != _BOUND])
        yield family


def _add_buckets(family: Metric, labels: dict[str, str], counts: dict[float, float]) -> None:
    """Add cumulative buckets: files count each bucket separately, an exposition adds all lower ones."""
    total = 0.0
    for bound, count in sorted(counts.items()):
        total += count
        shown = floatToGoString(bound)  # type: ignore[no-untyped-call]  # it has no types
        family.add_sample(family.name + _BUCKET, {**labels, _BOUND: shown}, total)
    family.add_sample(family.name + "_count", labels, total)
