"""A fleet of processes behind one HTTP server, scraped by one real Prometheus: what the rules count, and what is true.

Each target is one address of an exposition and has processes of its own: one that has lived for long, one that is
replaced in place, one that is new, or a job that is seen by a single scrape. Expositions are rendered by the library
after each step of a process's work, and carry times that lie 15 s apart; the next step is shown when Prometheus has
this one of every target. All times lie on one grid, so that `increase()` over exactly these steps has nothing to
extrapolate, and counts can be compared with what was booked.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import yaml
from _http import Reply, answering
from _servers import prometheus_server
from prometheus_client import CollectorRegistry

from taskpilot_obs import semconv
from taskpilot_obs.exporters.prometheus import PrometheusExporter
from taskpilot_obs.exporters.prometheus.scrape import render
from taskpilot_obs.records import (
    CheckResult,
    Decision,
    DecisionKind,
    Invocation,
    Operation,
    Origin,
    Rollup,
    Started,
    Status,
    Usage,
    Verdict,
)
from taskpilot_obs.rules import folders
from taskpilot_obs.rules.settings import RuleSettings

EVALUATED_EVERY: Final = "2s"
WINDOW: Final = "5m"
STEP_S: Final = 15
STEPS: Final = 300 // STEP_S
PROFILES: Final = 3
"""How many fleets' worth of different counts there are."""
_REPLACED_AT, _BORN_AT = STEPS // 2, STEPS // 4
_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_ALL: Final = 'label_replace(vector(1), "le", "+Inf", "", "")'
_START: Final = f"{semconv.START_TIME.name} "
COUNTS: Final = {
    "workflow runs": ("workflow:workflow_runs_counted", "workflow"),
    "successful runs": ("workflow:workflow_runs_success", "workflow"),
    "durations of runs": ("workflow:workflow_duration_seconds_bucket", "workflow"),
    "USD of runs": ("workflow:workflow_cost_usd", "workflow"),
    "agent runs": ("agent:agent_runs_counted", "agent"),
    "LLM calls": ("agent_model:llm_requests_counted", "agent"),
    "tokens": ("agent_model:llm_tokens", "agent"),
    "USD of LLM calls": ("agent_model:llm_cost_usd", "agent"),
    "policy violations": ("workflow:policy_violations", "workflow"),
}
"""What is compared: the record of the shipped rules, and its label besides the job."""


class Sort(StrEnum):
    """What becomes of the processes behind one target."""

    LASTING = "lived before, and lives on"
    REPLACED = "is replaced in place"
    NEW = "began within the window"
    JOB = "is seen by one scrape"


SORTS: Final = tuple(Sort)
Kind = tuple[Sort, int]
"""A sort and a profile."""


class Step(NamedTuple):
    """A target after some steps: what it exposes, and what it has counted within the window."""

    exposition: str
    counted: Counter[str]


class Process:
    """One process of the library, and what it did."""

    def __init__(self, profile: int, agents: int) -> None:
        self.registry = CollectorRegistry()
        self.exporter = PrometheusExporter(self.registry, service="fleet", version="1")
        self.done: Counter[str] = Counter()
        self.profile, self.agents = profile, agents
        self.exporter.declare(Operation.WORKFLOW, "support")
        for number in range(agents):
            self.exporter.declare(Operation.AGENT, f"agent-{number}")
        self._decide(Verdict.ALLOW)

    def work(self, step: int, *, calls: bool = True) -> None:
        """A few runs, more with each profile; `calls` are LLM calls."""
        for number in range(self.agents):
            agent = f"agent-{number}"
            for turn in range(1 + self.profile):
                self._run(agent, Status.ERROR if (step + turn) % 5 == 0 else Status.SUCCESS)
            if calls:
                self.call(agent)
        if step % 3 == 0:
            self._decide(Verdict.DENY)

    def call(self, agent: str) -> None:
        """One LLM call."""
        cost = Decimal(self.profile + 1).scaleb(-3)
        usage = Usage(100 + self.profile, 20)
        asked = {"request_model": "gpt-4o", "provider": "openai", "cost": cost, "usage": usage}
        self._book(Operation.CHAT, "chat", agent, **asked)
        self.done += Counter({"LLM calls": 1, "tokens": 120 + self.profile})
        self.done["USD of LLM calls"] += cost  # type: ignore[assignment]  # a sum of whatever can be added

    def _run(self, agent: str, status: Status) -> None:
        cost = Decimal(self.profile + 1).scaleb(-4)
        self._book(Operation.AGENT, agent, agent, status=status)
        self._book(Operation.WORKFLOW, "support", None, status=status, is_task=True, rollup=Rollup(cost=cost))
        self.done += Counter({"workflow runs": 1, "durations of runs": 1, "agent runs": 1})
        self.done["successful runs"] += status is Status.SUCCESS
        self.done["USD of runs"] += cost  # type: ignore[assignment]  # likewise

    def _book(self, operation: Operation, name: str, agent: str | None, **fields: Any) -> None:
        is_task = fields.get("is_task", False)
        start = Started(operation, name, "request", "run", None, "support", agent, 1)._replace(is_task=is_task)
        end = Invocation(Status.SUCCESS, 0.5, operation, name, "request", "run", None, "support", agent, 1)
        self.exporter.export([start, end._replace(**fields)])

    def _decide(self, verdict: Verdict) -> None:
        origin = Origin(workflow="support", agent="agent-0")
        result = CheckResult.PASSED if verdict is Verdict.ALLOW else CheckResult.WOULD_BLOCK
        self.exporter.export([Decision(DecisionKind.POLICY, "topic", verdict, result, origin, 1)])
        self.done["policy violations"] += verdict is Verdict.DENY

    def exposition(self) -> str:
        """What a scrape of it shows."""
        return render(self.registry, _TYPE)[0].decode()


def _steps(sort: Sort, profile: int, agents: int) -> Iterator[Step]:
    """A target after each step in which it is seen."""
    process = Process(profile, agents)
    if sort is Sort.LASTING or sort is Sort.REPLACED:
        for step in range(STEPS):  # so that the counts of what replaces it are less
            process.work(step)
    before = process.done.copy()
    earlier: Counter[str] = Counter()
    if sort is Sort.JOB:
        process.work(0)
        process.work(1)
        yield Step(process.exposition(), process.done)
        return
    if sort is Sort.NEW:
        process.call("agent-0")
    for step in range(_BORN_AT if sort is Sort.NEW else 0, STEPS + 1):
        yield Step(process.exposition(), _difference(process.done, before) + earlier)
        if sort is Sort.REPLACED and step == _REPLACED_AT:
            earlier = _difference(process.done, before)
            process, before = Process(profile, agents), Counter()
        process.work(step, calls=sort is not Sort.NEW)


def _difference(after: Counter[str], before: Counter[str]) -> Counter[str]:
    return Counter({name: value - before[name] for name, value in after.items()})


@cache
def _target(kind: Kind, agents: int) -> list[Step]:
    return list(_steps(*kind, agents))


class Fleet:
    """Targets that Prometheus scrapes; all show the same step, until the next one.

    Args:
        size: how many.
        agents: of each process.
        lasts_s: how long it is expected to take until all steps are scraped.
    """

    def __init__(self, size: int, agents: int = 1, lasts_s: float = 0.0) -> None:
        self.size = size
        self.step = 0
        self.end = int(time.time() + lasts_s) // STEP_S * STEP_S
        """Time of the last step."""
        self._kinds = [(SORTS[number % len(SORTS)], number // len(SORTS) % PROFILES) for number in range(size)]
        self._steps = {kind: _target(kind, agents) for kind in set(self._kinds)}
        self._bodies: dict[tuple[Kind, int], tuple[str, str]] = {}

    @property
    def now(self) -> int:
        """Time of this step."""
        return self.end - (STEPS - self.step) * STEP_S

    def truth(self) -> Counter[str]:
        """What all processes counted within the window."""
        total: Counter[str] = Counter()
        for kind in self._kinds:
            total += self._steps[kind][-1].counted
        return total

    def processes(self) -> int:
        """How many process lives there are."""
        return self.size + sum(sort is Sort.REPLACED for sort, _ in self._kinds)

    def series(self) -> int:
        """How many series all targets show."""
        shown = {kind: _series(steps[-1].exposition) for kind, steps in self._steps.items()}
        return sum(shown[kind] for kind in self._kinds)

    def shown(self) -> int:
        """How many targets have something new to show at this step."""
        return sum(
            sort in (Sort.LASTING, Sort.REPLACED)
            or self.step == _BORN_AT
            or (sort is Sort.NEW and self.step > _BORN_AT)
            for sort, _ in self._kinds
        )

    def answer(self, request: BaseHTTPRequestHandler) -> Reply:
        """The list of the targets, or what one shows at this step."""
        if request.path == "/targets":
            return 200, "application/json", json.dumps(self._listed(request.headers["Host"])).encode()
        number = int(request.path.rpartition("/")[2])
        place = self.step - _first(self._kinds[number][0])
        return (200, _TYPE, self._body(number, place)) if place >= 0 else (503, "text/plain", b"not there yet\n")

    def _listed(self, address: str) -> list[dict[str, Any]]:
        return [
            {"targets": [address], "labels": {"__metrics_path__": f"/{number}", "instance": f"replica-{number}"}}
            for number in range(self.size)
        ]

    def _body(self, number: int, place: int) -> bytes:
        kind = self._kinds[number]
        steps = self._steps[kind]
        place = min(place, len(steps) - 1)
        at = self.end - (STEPS - _first(kind[0]) - place) * STEP_S
        if (kind, place) not in self._bodies:
            self._bodies[kind, place] = _dated(steps[place].exposition, at)
        before, after = self._bodies[kind, place]
        return f"{before}{_START}{self._began(kind[0], place) + number / 1e4} {at}\n{after}".encode()

    def _began(self, sort: Sort, place: int) -> float:
        """When the process behind a target began."""
        begin = self.end - STEPS * STEP_S
        if sort is Sort.REPLACED and place > _REPLACED_AT:
            return begin + _REPLACED_AT * STEP_S + 5
        return begin + (_BORN_AT * STEP_S - 10 if _first(sort) else -3_600)


def _first(sort: Sort) -> int:
    """The first step at which a target is there."""
    return _BORN_AT if sort in (Sort.NEW, Sort.JOB) else 0


def _series(exposition: str) -> int:
    return sum(not line.startswith("#") for line in exposition.splitlines())


def _dated(exposition: str, at: int) -> tuple[str, str]:
    """The exposition with a time for each sample, around the start time of its process."""
    lines = [line if line.startswith("#") else f"{line} {at}" for line in exposition.splitlines()]
    place = next(number for number, line in enumerate(lines) if line.startswith(_START))
    return "\n".join(lines[:place]) + "\n", "\n".join(lines[place + 1 :]) + "\n"


def hurried_rules(folder: Path, interval: str) -> list[Path]:
    """All shipped rules, evaluated more often than once a minute."""
    return folders.write(RuleSettings(evaluation_interval=interval), folder)


class Scraped(NamedTuple):
    """A Prometheus that has seen all of a fleet."""

    url: str
    fleet: Fleet

    def ask(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The answer to an instant query, at the end of the fleet's time by default."""
        asked = urlencode({"query": expression, "time": self.fleet.end if at is None else at})
        with urlopen(f"{self.url}/api/v1/query?{asked}", timeout=60) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def sum_of(self, expression: str, at: float | None = None) -> float:
        """The sum over all series of an answer; 0 where there is none."""
        return sum(float(each["value"][1]) for each in self.ask(expression, at))

    def all_scraped(self) -> bool:
        """Whether Prometheus has this step of every target."""
        now = self.fleet.now
        return self.sum_of(f"count(timestamp({semconv.START_TIME.name}) == {now})", now) == self.fleet.shown()

    def counted(self) -> dict[str, float]:
        """What the shipped rules count."""
        return {what: self.sum_of(_shipped(record)) for what, (record, _) in COUNTS.items()}

    def groups(self) -> list[dict[str, Any]]:
        """The groups of rules, with how long the last evaluation of each took."""
        with urlopen(f"{self.url}/api/v1/rules", timeout=60) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["groups"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with what became of the last evaluation of each."""
        return [rule for group in self.groups() for rule in group["rules"]]


@cache
def _recordings() -> dict[str, str]:
    rendered = (yaml.safe_load(text) for text in folders.render(RuleSettings()).values())
    rules = [rule for each in rendered for group in each["groups"] for rule in group["rules"]]
    return {rule["record"]: rule["expr"] for rule in rules if "record" in rule}


def _shipped(record: str) -> str:
    """The expression of a shipped rule; of a histogram the bucket that has all."""
    expression = _recordings()[f"{record}:increase{WINDOW}"]
    return f"({expression}) and on (le) {_ALL}" if record.endswith("_bucket") else expression


@contextmanager
def scraped(fleet: Fleet, folder: Path, *, step_within_s: float = 60, interval_s: float = 1.0) -> Iterator[Scraped]:
    """One Prometheus that has scraped every step of a fleet from every target, and evaluates the shipped rules since.

    Args:
        fleet: what it scrapes.
        folder: for configuration and rules.
        step_within_s: how long it may take until all targets were scraped once.
        interval_s: between two scrapes of a target.
    """
    config = folder / "prometheus.yml"
    with answering(fleet.answer) as address:
        config.write_text(_config(address, f"{interval_s * 1_000:.0f}ms", ()), encoding="utf-8")
        with prometheus_server(config) as url:
            seen = Scraped(url, fleet)
            for fleet.step in range(STEPS + 1):
                await_(seen.all_scraped, step_within_s, f"step {fleet.step} was not scraped in time")
            # One after the other: rules that are evaluated every few seconds would hold the scrapes up.
            rules = hurried_rules(folder / "rules", EVALUATED_EVERY)
            config.write_text(_config(address, "1h", rules), encoding="utf-8")
            urlopen(Request(f"{url}/-/reload", method="POST"), timeout=60).close()
            yield seen


def _config(address: str, interval: str, rules: Sequence[Path]) -> str:
    listed = ", ".join(f"'{path}'" for path in rules)
    return (
        f"rule_files: [{listed}]\n"
        f"scrape_configs: [{{job_name: fleet, scrape_interval: {interval}, scrape_timeout: {interval}, "
        f"http_sd_configs: [{{url: '{address}/targets'}}]}}]\n"
    )


def await_(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
