"""Services described in a few lines, run through the shipped rules by promtool, minute by minute.

A `Service` says how much it does, what goes wrong when, and how Prometheus sees it: replicas, restarts, failed scrapes,
outages of Prometheus itself. `simulate` turns services into series, has promtool evaluate every alert (and the
recording rules that alerts rest on) over them, and returns what fired from when to when. Alerts that another one
inhibits in the shipped Alertmanager configuration are told apart, so that pages can be counted.

Services of one run differ in their label `job`; each is judged by itself.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from _servers import require_binary

from taskpilot_obs import semconv
from taskpilot_obs.rules.folders import render
from taskpilot_obs.rules.settings import RuleSettings

OBSERVABILITY: Final = Path(__file__).resolve().parent.parent / "observability"
HOUR: Final = 60
DAY: Final = 24 * HOUR
ALWAYS: Final = 10**9
MODEL, PROVIDER = "gpt-4o", "openai"


class Kind(StrEnum):
    """What goes wrong."""

    PROVIDER = "the provider fails"
    RATE_LIMIT = "the provider refuses with 429"
    BUG = "runs fail by themselves"
    SLOW = "runs and LLM calls take 20 s"
    BYPASS = "a guardrail fails and lets pass"
    GUARDRAIL = "a guardrail raises"
    CRITICAL_VIOLATION = "single violations at severity critical"
    ATTACK = "policies block runs"
    DEAR = "calls cost 3000 times as much"
    DENIALS = "a policy denies, in monitor mode"
    DROPPED = "an exporter loses records"
    LOOP = "runs make 250 tool calls"
    COLD = "the provider's prompt cache no longer answers"
    WRONG = "users reject answers"
    STUCK = "runs never end"
    TIMEOUT = "the provider answers nothing for 20 s, and runs fail"
    FLAKY = "calls fail, and retries cope"
    BUDGET = "a budget is spent and refuses"
    EXPERIMENT = "a variant breaks a guardrail of its experiment"


class Fault(NamedTuple):
    """One thing that goes wrong for some minutes, in a share of the runs (for single events: how many a minute)."""

    kind: Kind
    start: float
    minutes: float
    share: float = 1.0


class Gap(NamedTuple):
    """Minutes without a scrape: failed ones (`up` is 0), or no Prometheus at all."""

    start: float
    minutes: float
    replica: int | None = None
    """Only this one; None: all."""
    server: bool = False
    """Prometheus is away, so nothing is marked as stale."""


class Life(NamedTuple):
    """A process: from when to when it lives, and since when Prometheus knows its address."""

    begin: float = 0.0
    end: float = ALWAYS
    known: float = 0.0


Rate = Callable[[float], float]
"""Runs an hour at a minute after the start."""


@dataclass(frozen=True)
class Service:
    """One scrape job."""

    job: str
    rate: float | Rate
    """Runs an hour, over all replicas and workflows."""
    faults: tuple[Fault, ...] = ()
    gaps: tuple[Gap, ...] = ()
    lives: tuple[tuple[Life, ...], ...] = ((Life(),),)
    """By replica: its processes, one after the other."""
    workflows: tuple[str, ...] = ("support",)
    failing: float = 0.003
    """Share of runs that fail in ordinary times."""
    feedback: float = 0.2
    """Share of runs that a user judges."""
    price: float = 0.0001
    """USD a call."""
    calls: int = 2
    """LLM calls of a run; one that fails ends its run halfway."""
    even: bool = False
    """Runs come at equal distances; otherwise at random."""
    seed: int = 1

    def at(self, minute: float) -> float:
        """Runs an hour."""
        return self.rate(minute) if callable(self.rate) else self.rate


def replicas(count: int) -> tuple[tuple[Life, ...], ...]:
    """So many processes that live throughout."""
    return ((Life(),),) * count


def restarting(*minutes: float, count: int = 1, down: float = 0.5) -> tuple[tuple[Life, ...], ...]:
    """Replicas whose processes are replaced at these minutes, one replica after the other, five minutes apart."""
    return tuple(tuple(_lives([minute + 5 * index for minute in minutes], down)) for index in range(count))


def _lives(minutes: Sequence[float], down: float) -> Iterator[Life]:
    begin = 0.0
    for minute in minutes:
        yield Life(begin, minute, begin)
        begin = minute + down
    yield Life(begin, ALWAYS, begin)


def nightly(days: int, *, at: float = 2 * HOUR, minutes: float = 10) -> tuple[tuple[Life, ...], ...]:
    """A job that runs once a night."""
    return (tuple(Life(day * DAY + at, day * DAY + at + minutes, day * DAY + at) for day in range(days)),)


# --- series ----------------------------------------------------------------------------------------------------------

STALE: Final = "stale"
Values = list[tuple[str, int]]
"""Run-length encoded: a value in promtool's notation, how often."""


class _Process:
    """What one process counts."""

    def __init__(self, service: Service, random_: random.Random, began: float) -> None:
        self.service, self.random = service, random_
        self.counts: defaultdict[str, float] = defaultdict(float)
        self.gauges = {
            semconv.START_TIME.name: 60 * began,
            f'{semconv.INFO.name}{{version="1",service="{service.job}",service_version="1"}}': 1.0,
        }
        self.carry = 0.0
        self.stuck = 0
        for workflow in service.workflows:
            self._declare(workflow)

    def _declare(self, workflow: str) -> None:
        for status in semconv.FIXED_VALUES["status"]:
            self.counts[f'workflow_runs_total{{workflow="{workflow}",status="{status}"}}'] += 0
            self.counts[f'agent_runs_total{{agent="{workflow}.agent",status="{status}"}}'] += 0
        for verdict in semconv.VERDICTS:
            self.counts[f'llm_feedback_total{{verdict="{verdict}"}}'] += 0
        for result in semconv.FIXED_VALUES["result"]:
            self.counts[f'guardrail_checks_total{{guardrail="pii",stage="output",result="{result}"}}'] += 0
        self._durations("workflow_duration_seconds", f'workflow="{workflow}"', semconv.WORKFLOW_BUCKETS, 0, 0)
        self.gauges[f'agent_active_runs{{agent="{workflow}.agent"}}'] = 0.0

    def step(self, minute: float, length: float) -> None:
        """What happens in so many minutes; `minute` is their end."""
        for workflow in self.service.workflows:
            share = self.service.at(minute) / 60 * length / len(self.service.workflows) / len(self.service.lives)
            runs = self._arrivals(share)
            self._run(workflow, runs, minute)
        self._events(minute, length)

    def _arrivals(self, expected: float) -> int:
        if self.service.even or expected > 200:
            self.carry += expected
            whole = int(self.carry + 1e-9)
            self.carry -= whole
            return whole
        return self._poisson(expected)

    def _poisson(self, expected: float) -> int:
        if expected > 30:
            return max(0, round(self.random.gauss(expected, expected**0.5)))
        limit, product, count = 2.718281828459045**-expected, self.random.random(), 0
        while product > limit:
            product *= self.random.random()
            count += 1
        return count

    def _of(self, runs: int, share: float) -> int:
        """How many of the runs something happens to."""
        if runs > 200:
            return round(runs * share)
        return sum(self.random.random() < share for _ in range(runs))

    def _share(self, kind: Kind, minute: float) -> float:
        return max(
            (f.share for f in self.service.faults if f.kind is kind and f.start < minute <= f.start + f.minutes),
            default=0.0,
        )

    def _run(self, workflow: str, runs: int, minute: float) -> None:
        if not runs:
            return
        count, agent = self.counts, f"{workflow}.agent"
        timeout = self._of(runs, self._share(Kind.TIMEOUT, minute))
        provider = timeout + self._of(runs - timeout, self._share(Kind.PROVIDER, minute))
        limited = self._of(runs - provider, self._share(Kind.RATE_LIMIT, minute))
        left = runs - provider - limited
        denied = self._of(left, self._share(Kind.ATTACK, minute))
        refused = self._refused(left - denied, minute)
        blocked = denied + refused
        bugs = self._of(left - blocked, max(self._share(Kind.BUG, minute), self.service.failing))
        if self._share(Kind.STUCK, minute):
            self.gauges[f'agent_active_runs{{agent="{agent}"}}'] += 1
            return
        bad = provider + limited + bugs
        for status, ended in (("success", runs - bad - blocked), ("error", bad), ("blocked", blocked)):
            count[f'workflow_runs_total{{workflow="{workflow}",status="{status}"}}'] += ended
            count[f'agent_runs_total{{agent="{agent}",status="{status}"}}'] += ended
        self._llm(agent, runs, provider, limited, minute)
        slow = timeout + self._of(runs - timeout, self._share(Kind.SLOW, minute))
        self._durations("workflow_duration_seconds", f'workflow="{workflow}"', semconv.WORKFLOW_BUCKETS, runs, slow)
        self._durations("agent_run_duration_seconds", f'agent="{agent}"', semconv.RUN_BUCKETS, runs, slow)
        loops = self._of(runs, self._share(Kind.LOOP, minute))
        self._calls(agent, runs, loops)
        denied += self._of(runs, self._share(Kind.DENIALS, minute))
        if denied:
            violation = f'workflow="{workflow}",agent="{agent}",policy="topic",severity="high"'
            count[f"policy_violations_total{{{violation}}}"] += denied
        self._checks(runs, minute)
        self._judged(runs, minute)

    def _refused(self, runs: int, minute: float) -> int:
        share = self._share(Kind.BUDGET, minute)
        if not share and not any(fault.kind is Kind.BUDGET for fault in self.service.faults):
            return 0
        refused, budget = self._of(runs, share), 'budget="team",period="day"'
        self.gauges[f"llm_budget_used_ratio{{{budget}}}"] = 1.0 if share else 0.6
        self.counts[f"llm_budget_refusals_total{{{budget}}}"] += refused
        return refused

    def _llm(self, agent: str, runs: int, provider: int, limited: int, minute: float) -> None:
        count = self.counts
        call = f'agent="{agent}",model="{MODEL}",provider="{PROVIDER}"'
        for status in semconv.FIXED_VALUES["status"]:
            count[f'llm_requests_total{{{call},status="{status}"}}'] += 0
        made, bad = self.service.calls * runs, provider + limited
        flaky = self._of(made, self._share(Kind.FLAKY, minute))
        good = made - bad * (self.service.calls - self.service.calls // 2)
        count[f'llm_requests_total{{{call},status="success"}}'] += good
        count[f'llm_requests_total{{{call},status="error"}}'] += bad + flaky
        if bad or flaky:
            for category in semconv.ERROR_CATEGORIES:
                count[f'llm_errors_total{{{call},error_type="{category}"}}'] += 0
            count[f'llm_errors_total{{{call},error_type="server"}}'] += provider + flaky
            count[f'llm_errors_total{{{call},error_type="rate_limit"}}'] += limited
            count[f'llm_retries_total{{model="{MODEL}",provider="{PROVIDER}"}}'] += 2 * limited
        price = self.service.price * (3000 if self._share(Kind.DEAR, minute) else 1)
        count[f"llm_cost_usd_total{{{call}}}"] += price * good
        count[f'llm_tokens_total{{{call},token_type="input"}}'] += 1000 * good
        cached = 100 if self._share(Kind.COLD, minute) else 600
        detail = f'model="{MODEL}",provider="{PROVIDER}",detail="cache_read"'
        count[f"llm_token_details_total{{{detail}}}"] += cached * good
        slow = self._of(2 * runs, self._share(Kind.SLOW, minute))
        labels = f'model="{MODEL}",provider="{PROVIDER}"'
        self._durations("llm_request_duration_seconds", labels, semconv.RUN_BUCKETS, 2 * runs, slow)

    def _durations(self, name: str, labels: str, bounds: Sequence[float], runs: int, slow: int) -> None:
        for bound in (*bounds, float("inf")):
            reached = (runs - slow if bound >= 0.5 else 0) + (slow if bound >= 30 else 0)
            edge = "+Inf" if bound == float("inf") else f"{bound}"
            self.counts[f'{name}_bucket{{{labels},le="{edge}"}}'] += reached

    def _calls(self, agent: str, runs: int, loops: int) -> None:
        for bound in (*semconv.CALL_BUCKETS, float("inf")):
            reached = (runs - loops if bound >= 3 else 0) + (loops if bound >= 250 else 0)
            edge = "+Inf" if bound == float("inf") else f"{bound}"
            self.counts[f'agent_run_tool_calls_bucket{{agent="{agent}",le="{edge}"}}'] += reached

    def _checks(self, runs: int, minute: float) -> None:
        bypassed = self._of(runs, self._share(Kind.BYPASS, minute))
        failed = self._of(runs - bypassed, self._share(Kind.GUARDRAIL, minute))
        check = 'guardrail_checks_total{guardrail="pii",stage="output",result='
        for result, checks in (("passed", runs - bypassed - failed), ("bypassed", bypassed), ("error", failed)):
            self.counts[f'{check}"{result}"}}'] += checks
        if bypassed or failed:
            self.counts['taskpilot_obs_internal_errors_total{where="check"}'] += bypassed + failed

    def _judged(self, runs: int, minute: float) -> None:
        judged = self._of(runs, self.service.feedback)
        wrong = self._of(judged, max(0.01, self._share(Kind.WRONG, minute)))
        self.counts['llm_feedback_total{verdict="correct"}'] += judged - wrong
        self.counts['llm_feedback_total{verdict="incorrect"}'] += wrong

    def _events(self, minute: float, length: float) -> None:
        for kind, series in (
            (
                Kind.CRITICAL_VIOLATION,
                'policy_violations_total{workflow="support",agent="support.agent",policy="pii",severity="critical"}',
            ),
            (Kind.DROPPED, 'taskpilot_obs_records_dropped_total{exporter="audit_log",reason="queue_full"}'),
            (
                Kind.EXPERIMENT,
                'experiment_guardrails_broken_total{experiment="planner",variant="v2",measure="cost"}',
            ),
        ):
            for fault in self.service.faults:
                if fault.kind is kind and fault.start < minute <= fault.start + max(fault.minutes, length):
                    self.counts[series] += fault.share

    def samples(self) -> Iterator[tuple[str, float]]:
        """Every series and its value."""
        yield from self.counts.items()
        yield from self.gauges.items()


class Recorder:
    """Values of series, run-length encoded as they come."""

    def __init__(self) -> None:
        self.values: dict[str, Values] = {}
        self.lengths: dict[str, int] = {}

    def put(self, series: str, step: int, value: str) -> None:
        """A value at a step; what was missed before it is missing."""
        known = self.values.setdefault(series, [])
        missed = step - self.lengths.get(series, 0)
        if missed:
            known.append(("_", missed))
        if known and known[-1][0] == value:
            known[-1] = (value, known[-1][1] + 1)
        else:
            known.append((value, 1))
        self.lengths[series] = step + 1


def _series(service: Service, steps: int, step_s: int) -> dict[str, str]:
    """Every series of a service in promtool's notation."""
    found = Recorder()
    for number, lives in enumerate(service.lives):
        _replica(service, number, lives, (steps, step_s), found)
    return {name: notation(values) for name, values in found.values.items()}


def _replica(service: Service, number: int, lives: tuple[Life, ...], grid: tuple[int, int], found: Recorder) -> None:
    steps, step_s = grid
    target = f'job="{service.job}",instance="10.0.0.{number}:9464"'
    shuffled = random.Random(f"{service.job}/{service.seed}/{number}")
    process: _Process | None = None
    life: Life | None = None
    shown: set[str] = set()
    for step in range(steps):
        minute = step * step_s / 60
        now = next((each for each in lives if each.begin <= minute < each.end), None)
        if now is not life:
            life, process = now, None if now is None else _Process(service, shuffled, now.begin)
        elif process is not None:
            process.step(minute, step_s / 60)
        gap = next((each for each in service.gaps if _applies(each, number, minute)), None)
        if gap is not None and gap.server:
            continue
        listed = any(each.known <= minute < each.end + 2 for each in lives if each.known <= minute)
        scraped = process is not None and gap is None and life is not None and life.known <= minute
        if listed:
            found.put(f"up{{{target}}}", step, "1" if scraped else "0")
        current = set()
        if scraped and process is not None:
            for name, value in process.samples():
                full = f"{name[:-1]},{target}}}" if name.endswith("}") else f"{name}{{{target}}}"
                current.add(full)
                found.put(full, step, f"{value:.10g}")
        for gone in shown - current:
            found.put(gone, step, STALE)
        if not listed and f"up{{{target}}}" in found.values and found.values[f"up{{{target}}}"][-1][0] != STALE:
            found.put(f"up{{{target}}}", step, STALE)
        shown = current


def _applies(gap: Gap, replica: int, minute: float) -> bool:
    return gap.start <= minute < gap.start + gap.minutes and gap.replica in {None, replica}


def notation(values: Values) -> str:
    """The values of a series as promtool reads them."""
    parts = []
    for value, times in values:
        if value == "_":
            parts.append(f"_x{times}")
        elif value == STALE or times == 1:
            parts += [value] * times
        else:
            parts.append(f"{value}+0x{times - 1}")
    return " ".join(parts)


# --- rules -----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[a-z_]+:[a-z_0-9]+:[a-z_0-9]+")


@cache
def alerting_rules(pages_only: bool = False) -> str:
    """Every alert, or every critical one, and the recording rules that those rest on, as one rule file."""
    groups = [group for text in render(RuleSettings()).values() for group in yaml.safe_load(text)["groups"]]
    if pages_only:
        for group in groups:
            group["rules"] = [rule for rule in group["rules"] if "record" in rule or _pages(rule)]
    groups.sort(key=lambda group: group["name"].endswith("-alerts"))
    recordings = {rule["record"]: rule for group in groups for rule in group["rules"] if "record" in rule}
    needed: set[str] = set()
    waiting = [rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule]
    while waiting:
        for name in set(_NAME.findall(waiting.pop())) & set(recordings) - needed:
            needed.add(name)
            waiting.append(recordings[name]["expr"])
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if "alert" in rule or rule["record"] in needed]
        group.pop("interval", None)
    return json.dumps({"groups": [group for group in groups if group["rules"]]})


def _pages(alert: dict[str, Any]) -> bool:
    """Whether an alert calls somebody. It then has to last no minute, because evaluations are further apart."""
    if alert.get("for") == RuleSettings().lasting_critical:
        del alert["for"]
    return bool(alert["labels"]["severity"] == "critical")


# --- results ---------------------------------------------------------------------------------------------------------


class Episode(NamedTuple):
    """An alert that fired, from when until when, in minutes."""

    alert: str
    labels: Mapping[str, str]
    start: float
    end: float
    """The first evaluation at which it did not fire any more; `ALWAYS` where it fired to the end."""
    inhibited: bool
    """Whether another alert silenced it all the time."""

    @property
    def page(self) -> bool:
        """Whether somebody was called."""
        return self.labels["severity"] == "critical" and not self.inhibited

    def __str__(self) -> str:
        labels = ", ".join(f"{k}={v}" for k, v in self.labels.items() if k not in {"job", "severity", "signal"})
        note = "inhibited" if self.inhibited else self.labels["severity"]
        end = "end" if self.end == ALWAYS else f"{self.end:g}"
        return f"{self.alert}({labels}) {self.start:g}..{end} {note}"


@dataclass
class Outcome:
    """What came of one service."""

    episodes: list[Episode] = field(default_factory=list)
    values: dict[tuple[str, float], dict[str, float]] = field(default_factory=dict)

    @property
    def pages(self) -> list[tuple[str, float, float]]:
        """(alert, start, end) of each notification group that called somebody: alerts of one name are one page."""
        found: list[tuple[str, float, float]] = []
        pages = sorted((e for e in self.episodes if e.page), key=lambda e: (e.alert, e.start))
        for alert, group in groupby(pages, key=lambda e: e.alert):
            start = end = -1.0
            for episode in group:
                if episode.start <= end:
                    end = max(end, episode.end)
                    continue
                if end >= 0:
                    found.append((alert, start, end))
                start, end = episode.start, episode.end
            found.append((alert, start, end))
        return sorted(found, key=lambda page: page[1])


def simulate(
    folder: Path,
    services: Sequence[Service],
    *,
    minutes: float,
    step_s: int = 60,
    evaluation_s: int = 60,
    judged_every_s: int | None = None,
    queries: Mapping[str, Sequence[float]] | None = None,
    pages_only: bool = False,
) -> dict[str, Outcome]:
    """What fires for each service.

    Args:
        folder: where promtool's files are written.
        services: of different jobs.
        minutes: how long.
        step_s: time between two scrapes.
        evaluation_s: time between two evaluations.
        judged_every_s: time between two looks at what fires; the default is every evaluation.
        queries: expressions and the minutes at which to ask them, by the label job of their results.
        pages_only: leave out the warnings, which is faster; critical alerts fire the moment their condition holds.
    """
    steps = int(minutes * 60 / step_s) + 1
    series = {name: text for service in services for name, text in _series(service, steps, step_s).items()}
    every = judged_every_s or evaluation_s
    times = [float(second) for second in range(0, int(minutes * 60) + 1, every)]
    asked = [(FIRING, time) for time in times]
    asked += [(query, 60 * minute) for query, moments in (queries or {}).items() for minute in moments]
    answers = _promtool(folder, series, asked, step_s, evaluation_s, pages_only)
    outcomes = {service.job: Outcome() for service in services}
    firing = [_firing(answers[asked[0][0], time]) for time in times]
    for service in services:
        _pause(service, firing, times)
    for episode in _episodes(firing, times):
        job = episode.labels.get("job", "")
        for name in [job] if job in outcomes else outcomes:
            outcomes[name].episodes.append(episode)
    for query, time in asked[len(times) :]:
        for labels, value in answers[query, time]:
            found = outcomes[labels["job"]].values.setdefault((query, time / 60), {})
            found[",".join(f"{k}={v}" for k, v in labels.items() if k not in {"job", "__name__"})] = value
    return outcomes


def judged(folder: Path, series: Mapping[str, str], *, minutes: float, step_s: int, evaluation_s: int = 60) -> Outcome:
    """What fires over series that are given as they are.

    Args:
        folder: where promtool's files are written.
        series: names with labels, and values in promtool's notation.
        minutes: how long.
        step_s: time between two scrapes.
        evaluation_s: time between two evaluations.
    """
    times = [float(second) for second in range(0, int(minutes * 60) + 1, evaluation_s)]
    asked = [(FIRING, time) for time in times]
    answers = _promtool(folder, series, asked, step_s, evaluation_s)
    return Outcome(list(_episodes([_firing(answers[question]) for question in asked], times)))


FIRING: Final = 'ALERTS{alertstate="firing"}'
Sample = tuple[dict[str, str], float]
_SAMPLE = re.compile(r'\{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\} (\S+?)(?:,|\s|$)')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def _promtool(
    folder: Path,
    series: Mapping[str, str],
    asked: Sequence[tuple[str, float]],
    step_s: int,
    evaluation_s: int,
    pages_only: bool = False,
) -> dict[tuple[str, float], list[Sample]]:
    """Answers of promtool: it tells them when they differ from what is expected, and nothing here expects the truth."""
    rules = json.loads(alerting_rules(pages_only))
    (folder / "rules.yml").write_text(alerting_rules(pages_only), encoding="utf-8")
    impossible = [{"labels": '{impossible="yes"}', "value": 0}]
    tests = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{evaluation_s}s",
        "group_eval_order": [group["name"] for group in rules["groups"]],
        "tests": [
            {
                "interval": f"{step_s}s",
                "input_series": [{"series": name, "values": text} for name, text in series.items()],
                "promql_expr_test": [
                    {"expr": query, "eval_time": f"{int(time)}s", "exp_samples": impossible} for query, time in asked
                ],
            }
        ],
    }
    (folder / "tests.yml").write_text(json.dumps(tests), encoding="utf-8")
    command = [require_binary("promtool"), "test", "rules", str(folder / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return _answers(done.stdout + done.stderr, asked)


def _answers(text: str, asked: Sequence[tuple[str, float]]) -> dict[tuple[str, float], list[Sample]]:
    blocks = re.split(r"\n(?=    expr: )", text)[1:]
    assert len(blocks) == len(asked), text[:2000]
    found: dict[tuple[str, float], list[Sample]] = {}
    for question, block in zip(asked, blocks, strict=True):
        got = block.partition("got:")[2]
        found[question] = [_sample(*parts) for parts in _SAMPLE.findall(got)]
    return found


def _sample(labels: str, value: str) -> Sample:
    return {name: json.loads(f'"{text}"') for name, text in _LABEL.findall(labels)}, float(value)


Fingerprint = tuple[tuple[str, str], ...]


def _firing(samples: Sequence[Sample]) -> set[Fingerprint]:
    return {
        tuple(sorted((k, v) for k, v in labels.items() if k not in {"__name__", "alertstate"})) for labels, _ in samples
    }


def _pause(service: Service, firing: list[set[Fingerprint]], times: Sequence[float]) -> None:
    """While Prometheus is away it evaluates nothing: what fired for a job before goes on."""
    for index, time in enumerate(times):
        if index and any(gap.server and _applies(gap, -1, time / 60) for gap in service.gaps):
            others = {alert for alert in firing[index] if ("job", service.job) not in alert}
            firing[index] = others | {alert for alert in firing[index - 1] if ("job", service.job) in alert}


FLUSH_S: Final = 300
"""`group_interval`: what is silenced at first is told when it goes on for so long after that."""


def _silenced(alert: Fingerprint, moments: Sequence[set[Fingerprint]], every_s: float) -> bool:
    """Whether an alert that fires at all these moments is not delivered."""
    states = [_inhibited(alert, moment) for moment in moments]
    if not states[0]:
        return False
    longest = max((len(list(group)) for inhibited, group in groupby(states) if not inhibited), default=0)
    return (longest - 1) * every_s < FLUSH_S


def _episodes(firing: Sequence[set[Fingerprint]], times: Sequence[float]) -> Iterator[Episode]:
    for alert in {each for moment in firing for each in moment}:
        states = [alert in moment for moment in firing]
        index = 0
        for fires, group in groupby(states):
            length = len(list(group))
            if fires:
                moments = firing[index : index + length]
                labels = dict(alert)
                inhibited = _silenced(alert, moments, times[1] - times[0])
                end = times[index + length] / 60 if index + length < len(times) else ALWAYS
                yield Episode(labels.pop("alertname"), labels, times[index] / 60, end, inhibited)
            index += length


@cache
def _inhibit_rules() -> list[dict[str, Any]]:
    config = yaml.safe_load((OBSERVABILITY / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8"))
    rules: list[dict[str, Any]] = config["inhibit_rules"]
    return rules


@cache
def _inhibited_by(target: Fingerprint, source: Fingerprint) -> bool:
    mine, other = dict(target), dict(source)
    for rule in _inhibit_rules():
        equal = all(mine.get(label, "") == other.get(label, "") for label in rule.get("equal", ()))
        both = _matches(rule["source_matchers"], mine) and _matches(rule["target_matchers"], other)
        if equal and not both and _matches(rule["source_matchers"], other) and _matches(rule["target_matchers"], mine):
            return True
    return False


def _inhibited(alert: Fingerprint, moment: set[Fingerprint]) -> bool:
    return any(_inhibited_by(alert, other) for other in moment if other != alert)


def _matches(matchers: Sequence[str], labels: Mapping[str, str]) -> bool:
    return all(_match(matcher, labels) for matcher in matchers)


def _match(matcher: str, labels: Mapping[str, str]) -> bool:
    parsed = re.fullmatch(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"(.*)"\s*', matcher)
    assert parsed is not None, matcher
    name, operator, value = parsed.groups()
    mine = labels.get(name, "")
    alike = bool(re.fullmatch(value, mine)) if "~" in operator else mine == value
    return alike is not operator.startswith("!")
