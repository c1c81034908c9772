"""Checks of a running `/metrics`: whether it answers for all processes, and what the library reports about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from taskpilot_obs.doctor.environment import DISTRIBUTION
from taskpilot_obs.doctor.finding import Finding, ok, problem, warning
from taskpilot_obs.exceptions import SourceError
from taskpilot_obs.exporters.prometheus.reading import ACCEPT, Sample, parse_text
from taskpilot_obs.exporters.prometheus.worker_files import VARIABLE
from taskpilot_obs.golden_signals.http import get
from taskpilot_obs.semconv import (
    EXPORT_ERRORS,
    INFO,
    INTERNAL_ERRORS,
    LABEL_OVERFLOW,
    LLM_UNPRICED,
    RECORDS,
    RECORDS_DROPPED,
    DropReason,
    Label,
    Metric,
)

if TYPE_CHECKING:
    from taskpilot_obs.golden_signals.http import Access

SCRAPES: Final = 6
"""How many scrapes: with several processes behind one port, another one answers sooner or later."""
_SHOWN: Final = 5
_PROCESS_START: Final = "process_start_time_seconds"
_MEND: Final[dict[str, str]] = {
    DropReason.QUEUE_FULL: "make the exporter faster, raise queue_capacity, or let callers wait: on_full='block'",
    DropReason.EXPORT_FAILED: "see the log for why the exporter failed, and fix its target",
    DropReason.SHUTDOWN: "raise exit_timeout_s, or flush before the end",
}


def check_endpoint(url: str, access: Access | None) -> list[Finding]:
    """Scrape a few times and check the answers."""
    try:
        scrapes = [parse_text(*get(url, access, accept=ACCEPT)) for _ in range(SCRAPES)]
    except SourceError as error:
        remedy = "is the service up, is this its address, and does it serve taskpilot_obs.exposition?"
        return [problem("metrics", f"{error}", remedy)]
    last = scrapes[-1]
    if not any(sample.name == INFO.name for sample in last):
        text = f"{url} answers, but has no metric of this library"
        return [problem("metrics", text, "call configure() in the service, and serve the registry that it was given")]
    found = [ok("metrics", f"{url} answers"), *_versions(last), *_apart(scrapes)]
    return [*found, *_dropped(last), *_failures(last), *_overflow(last), *_unpriced(last)]


def _sums(samples: Iterable[Sample], metric: Metric, *labels: str) -> Counter[tuple[str, ...]]:
    """Values above 0, by these labels."""
    sums: Counter[tuple[str, ...]] = Counter()
    for sample in samples:
        if sample.name == metric.name and sample.value > 0:
            sums[tuple(sample.labels.get(label, "") for label in labels)] += int(sample.value)
    return sums


def _versions(samples: Iterable[Sample]) -> Iterator[Finding]:
    from taskpilot_obs._support.version import library_version

    running = sorted({version for (version,) in _sums(samples, INFO, Label.VERSION)})
    if running != [library_version()]:
        text = f"{DISTRIBUTION} {', '.join(running)} runs there, {library_version()} is installed here"
        yield warning("versions", text, "bring both to the same version")


def _apart(scrapes: Sequence[Sequence[Sample]]) -> Iterator[Finding]:
    starts = {sample.value for scrape in scrapes for sample in scrape if sample.name == _PROCESS_START}
    totals = [_totals(scrape) for scrape in scrapes]
    back = any(after.get(key, 0.0) < value for before, after in pairwise(totals) for key, value in before.items())
    if len(starts) > 1 or back:
        yield problem(
            "processes",
            "the answers come from several processes, and each keeps its own metrics",
            f"set {VARIABLE} to a directory that exists and is empty before the service starts",
        )


def _totals(samples: Iterable[Sample]) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for sample in samples
        if sample.name == RECORDS.name
    }


def _dropped(samples: Iterable[Sample]) -> Iterator[Finding]:
    for (exporter, reason), amount in _sums(samples, RECORDS_DROPPED, Label.EXPORTER, Label.REASON).items():
        text = f"{exporter} did not get {amount:,} records ({reason})"
        yield problem("dropped records", text, _MEND.get(reason, "see the log"))


def _failures(samples: Sequence[Sample]) -> Iterator[Finding]:
    for (exporter,), amount in _sums(samples, EXPORT_ERRORS, Label.EXPORTER).items():
        text = f"{exporter} failed {amount:,} times"
        yield warning("exporters", text, "the log of `taskpilot_obs` says with what, once a minute")
    for (where,), amount in _sums(samples, INTERNAL_ERRORS, Label.WHERE).items():
        yield warning("internal errors", f"{where}: {amount:,}", "the log of `taskpilot_obs` says with what; report it")


def _overflow(samples: Iterable[Sample]) -> Iterator[Finding]:
    for (metric,), amount in _sums(samples, LABEL_OVERFLOW, Label.METRIC).items():
        yield warning(
            "label overflow",
            f"{metric}: {amount:,} times a name was folded into `__other__`",
            "give agents, tools and workflows fixed names, and put what varies into attributes",
        )


def _unpriced(samples: Iterable[Sample]) -> Iterator[Finding]:
    unpriced = _sums(samples, LLM_UNPRICED, Label.MODEL)
    if unpriced:
        most = ", ".join(f"{model} ({amount:,})" for (model,), amount in unpriced.most_common(_SHOWN))
        yield warning(
            "unpriced models",
            f"{unpriced.total():,} LLM calls have no known cost: {most}",
            "where `taskpilot-obs price MODEL` knows none, name the model in model_aliases or give prices=[your table];"
            " where it does, those calls stated no usage: they were cut short, or their stream has none",
        )
