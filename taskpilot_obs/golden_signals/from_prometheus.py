"""Golden signals of a fleet, from the Prometheus server that scrapes it.

The queries return counts, not ratios, because `assess` defines the signals. For windows of the shipped recording rules
their records are read; for others the server evaluates the expression.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from math import isfinite
from typing import Final, NamedTuple, Unpack
from urllib.parse import urlencode

from taskpilot_obs.exceptions import ConfigurationError, RulesNotLoadedError, SourceError
from taskpilot_obs.exporters.prometheus.reading import Sample
from taskpilot_obs.golden_signals.assess import JudgeOptions, assess
from taskpilot_obs.golden_signals.durations import parse_window
from taskpilot_obs.golden_signals.from_exposition import BOUND, BUCKETS, evidence_from_exposition, exposition
from taskpilot_obs.golden_signals.http import Access, get
from taskpilot_obs.golden_signals.model import GoldenSignals
from taskpilot_obs.rules.promql import DIRECT_S, RuleScope, seconds
from taskpilot_obs.semconv import (
    FEEDBACK,
    FEEDBACK_REVISIONS,
    LLM_BILLABLE,
    LLM_COST,
    LLM_PARTIALLY_PRICED,
    LLM_REQUESTS,
    LLM_UNPRICED,
    POLICY_VIOLATIONS,
    START_TIME,
    WORKFLOW_COST,
    WORKFLOW_RUNS,
    WORKFLOW_VIOLATION_RUNS,
    Label,
)

JOB: Final = "job"
"""The label that a server adds to scraped series; recording rules keep it."""


class CountQuery(NamedTuple):
    """One count behind the signals."""

    series: str
    labels: tuple[str, ...] = ()
    recorded: str = ""
    """`level:metric` of the recording rule that holds it, if there is one."""

    def record(self, window: str) -> str:
        """The name of the recorded series for this window."""
        return f"{self.recorded}:increase{window}"

    def expression(self, window: str, scope: RuleScope) -> str:
        """How much the count grew in this window, by its labels, in PromQL."""
        return scope.increase(scope.select(self.series), window, *self.labels)

    def total(self, scope: RuleScope) -> str:
        """The count as it stands, by its labels, in PromQL."""
        return f"sum by ({scope.by(*self.labels)}) ({scope.select(self.series)})"


COUNTS: Final = (
    CountQuery(WORKFLOW_RUNS.name, (Label.WORKFLOW, Label.STATUS), "workflow_status:workflow_runs"),
    CountQuery(BUCKETS, (Label.WORKFLOW, BOUND), "workflow:workflow_duration_seconds_bucket"),
    CountQuery(WORKFLOW_COST.name, (Label.WORKFLOW,), "workflow:workflow_cost_usd"),
    CountQuery(WORKFLOW_VIOLATION_RUNS.name, (Label.WORKFLOW,), "workflow:workflow_runs_with_violations"),
    CountQuery(LLM_COST.name, (), "job:llm_cost_usd"),
    CountQuery(LLM_BILLABLE.name, (), "job:llm_billable_requests"),
    CountQuery(LLM_UNPRICED.name, (), "job:llm_unpriced_requests"),
    CountQuery(LLM_PARTIALLY_PRICED.name, (), "job:llm_partially_priced_requests"),
    CountQuery(POLICY_VIOLATIONS.name, (), "job:policy_violations"),
    CountQuery(FEEDBACK.name, (Label.VERDICT,)),
    CountQuery(FEEDBACK_REVISIONS.name, (Label.VERDICT,)),
)


def signals_from_prometheus(
    url: str,
    window: timedelta | str | None = None,
    *,
    job: str | None = None,
    access: Access | None = None,
    **judged: Unpack[JudgeOptions],
) -> GoldenSignals:
    """The golden signals of one service over every replica that a Prometheus server scrapes.

    All figures rest on the same instant, that of the server. `history_s` of the result says how much of the window the
    server knows.

    Args:
        url: base URL of the server, with its path prefix if it has one.
        window: how far back, such as "1h"; None: the counters as they stand, each since its process started.
        job: the scrape job to ask about; may be left out where the server knows only one.
        access: credentials, certificates and time limit.
        judged: see `JudgeOptions`.

    Raises:
        ConfigurationError: the URL or the window is not readable, or the server knows several jobs and none is named.
        RulesNotLoadedError: the server answers, but the recording rules of this library are not loaded.
        SourceError: the server cannot be reached, refuses, or answers something else.
    """
    length = None if window is None else parse_window(window)
    server = PrometheusServer(url, access)
    records = server.records()
    if job is None:
        _require_one(server.jobs(length))
    return _signals(server, records, length, job, judged)


def signals_of_all_jobs(
    url: str,
    window: timedelta | str | None = None,
    *,
    access: Access | None = None,
    **judged: Unpack[JudgeOptions],
) -> dict[str, GoldenSignals]:
    """The golden signals of each service that a Prometheus server knows, by its scrape job, at one instant.

    Args:
        url: base URL of the server, with its path prefix if it has one.
        window: how far back, such as "1h"; None: the counters as they stand, each since its process started.
        access: credentials, certificates and time limit.
        judged: see `JudgeOptions`.

    Raises:
        ConfigurationError: the URL or the window is not readable.
        RulesNotLoadedError: the server answers, but the recording rules of this library are not loaded.
        SourceError: the server cannot be reached, refuses, or answers something else.
    """
    length = None if window is None else parse_window(window)
    server = PrometheusServer(url, access)
    records = server.records()
    return {job: _signals(server, records, length, job, judged) for job in server.jobs(length)}


def _signals(
    server: PrometheusServer,
    records: frozenset[str],
    length: timedelta | None,
    job: str | None,
    judged: JudgeOptions,
) -> GoldenSignals:
    scope = RuleScope("" if job is None else f"{JOB}={json.dumps(job)}", (JOB,))  # PromQL escapes strings as JSON does
    samples = [sample for count in COUNTS for sample in _counted(server, count, _promql(length), scope, records)]
    signals = assess(
        evidence_from_exposition(exposition(samples)),
        scope="fleet",
        window_s=None if length is None else length.total_seconds(),
        **judged,
    )
    return _with_history(signals, server.history_s(length, scope))


def _require_one(jobs: Sequence[str]) -> None:
    if len(jobs) > 1:
        raise ConfigurationError(
            f"job: the server knows several services ({', '.join(jobs)}), whose figures cannot be combined; name one"
        )


def _with_history(signals: GoldenSignals, history_s: float | None) -> GoldenSignals:
    """Return the signals with their length of history, and a note if it is shorter than the window."""
    window_s = signals.window_s
    if history_s is None or window_s is None or history_s >= _ENOUGH * window_s:
        return signals.model_copy(update={"history_s": history_s})
    note = f"the server knows {history_s / 60:.3g} of the {window_s / 60:.3g} minutes that were asked for"
    return signals.model_copy(update={"history_s": history_s, "notes": (*signals.notes, note)})


_ENOUGH: Final = 0.95
"""Share of a window that counts as all of it: the first scrape in it is not at its very beginning."""
_STEPS: Final = 60
"""Number of steps in a window in which the server searches for the first sample."""
_OURS: Final = f'__name__=~"{WORKFLOW_RUNS.name}|{LLM_REQUESTS.name}|{FEEDBACK.name}|{START_TIME.name}"'


class PrometheusServer:
    """The HTTP API of a Prometheus server.

    Args:
        url: base URL.
        access: credentials, certificates and time limit of each request.
    """

    def __init__(self, url: str, access: Access | None = None) -> None:
        self._api = f"{url.rstrip('/')}/api/v1"
        self._access = access
        self._at: str | None = None

    @property
    def at(self) -> str:
        """The instant of all queries: the server's time at the first of them, in seconds."""
        if self._at is None:
            result = self._ask("query", query="time()").get("result")
            scalar = isinstance(result, list) and len(result) == 2 and isinstance(result[1], str)  # noqa: PLR2004  time and value
            self._at = result[1] if isinstance(result, list) and scalar else f"{time.time()}"
        return self._at

    def jobs(self, length: timedelta | None) -> list[str]:
        """The scrape jobs that have series of this library, now or within the window.

        Raises:
            SourceError: see `signals_from_prometheus`.
        """
        window = "5m" if length is None else f"{max(300, round(length.total_seconds()))}s"
        asked = f"group by ({JOB}) (last_over_time({{{_OURS}}}[{window}]))"
        result = self._ask("query", query=asked, time=self.at).get("result")
        metrics = [entry.get("metric") for entry in _mappings(result)]
        return sorted(str(labels[JOB]) for labels in metrics if isinstance(labels, dict) and JOB in labels)

    def history_s(self, length: timedelta | None, scope: RuleScope) -> float | None:
        """How many seconds of the window, or since the oldest process began, the server knows; None if nothing.

        Raises:
            SourceError: see `signals_from_prometheus`.
        """
        if length is None:
            asked = f"{self.at} - min({scope.select(START_TIME.name)})"
        else:
            length_s = max(_STEPS, round(length.total_seconds()))
            ours = f"{{{_OURS}, {scope.matchers}}}" if scope.matchers else f"{{{_OURS}}}"
            first = f"min_over_time(min(timestamp({ours}))[{length_s}s:{length_s // _STEPS}s])"
            asked = f"{self.at} - {first}"
        found = self.query(asked, START_TIME.name)
        return max(0.0, found[0].value) if found else None

    def records(self) -> frozenset[str]:
        """Names of the loaded recording rules of the golden signals.

        Raises:
            RulesNotLoadedError: there is none.
            SourceError: see `signals_from_prometheus`.
        """
        groups = self._ask("rules", type="record").get("groups")
        loaded = {str(rule.get("name")) for group in _mappings(groups) for rule in _mappings(group.get("rules"))}
        ours = {count.recorded for count in COUNTS if count.recorded}
        names = frozenset(name for name in loaded if name.rpartition(":")[0] in ours)
        if not names:
            raise RulesNotLoadedError(
                f"the server at {self._api.removesuffix('/api/v1')} has none of the recording rules of the golden "
                "signals: write them with `taskpilot-obs export-assets DIR`, name them under rule_files in "
                "prometheus.yml and reload"
            )
        return names

    def query(self, expression: str, name: str) -> list[Sample]:
        """The vector that an expression gives now, as samples of this name."""
        result = self._ask("query", query=expression, time=self.at).get("result")
        return [_sample(entry, name) for entry in _mappings(result)]

    def _ask(self, path: str, **parameters: str) -> Mapping[str, object]:
        text, _ = get(f"{self._api}/{path}?{urlencode(parameters)}", self._access, accept="application/json")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{self._api} is not a Prometheus server: it does not answer JSON ({error})") from error
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
            raise SourceError(f"{self._api} is not a Prometheus server: its answer has no data")
        return dict(answer["data"])


def _counted(
    server: PrometheusServer, count: CountQuery, window: str | None, scope: RuleScope, records: frozenset[str]
) -> list[Sample]:
    if window is None:
        return server.query(count.total(scope), count.series)
    if count.record(window) in records:
        recorded = server.query(_recorded(count.record(window), window, scope), count.series)
        if recorded:
            return recorded
    # There is no such record, or it does not cover the window yet.
    return server.query(count.expression(window, scope), count.series)


def _recorded(record: str, window: str, scope: RuleScope) -> str:
    """Return the recorded count, if it covers the window.

    Long windows are recorded as sums of earlier records, which fall short until the rules have run for that long.
    """
    selector = scope.select(record)
    if seconds(window) <= DIRECT_S:
        return selector
    return f"{selector} and on () (count({selector} offset {window}) > 0)"


def _promql(length: timedelta | None) -> str | None:
    """Format a duration in PromQL in its largest whole unit, as in the names of records."""
    if length is None:
        return None
    length_s = max(1, round(length.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if length_s % size == 0:
            return f"{length_s // size}{unit}"
    return f"{length_s}s"


def _mappings(given: object) -> Iterator[Mapping[str, object]]:
    for entry in given if isinstance(given, list) else ():
        if isinstance(entry, dict):
            yield entry


def _sample(entry: Mapping[str, object], name: str) -> Sample:
    labels, value = entry.get("metric"), entry.get("value")
    if not isinstance(labels, dict) or not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004  time and value
        raise SourceError(f"a Prometheus server answered a vector that cannot be read: {str(entry)[:200]}")
    own = {str(label): str(text) for label, text in labels.items() if label not in {"__name__", JOB}}
    return Sample(name, own, _number(value[1]))


def _number(text: object) -> float:
    try:
        value = float(str(text))
    except ValueError as error:
        raise SourceError(f"a Prometheus server answered {text!r} where a number belongs") from error
    return value if isfinite(value) else 0.0
