"""The dashboards' queries, asked of a real Prometheus: data, the agreed formulas, and silence without evidence."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _dashboards import (
    RULES,
    Target,
    ask,
    back_fill,
    dashboards,
    generate,
    panels,
    recording_rules,
    selectors,
    substituted,
    targets,
)
from _servers import prometheus_server, require_binary

TARGETS = targets()
SIGNALS = (
    "Success rate",
    "p95 latency",
    "Cost per successful task (all workflows)",
    "User-confirmed correctness (all workflows)",
    "Policy violations per 100 runs",
)


def _expr(title: str) -> str:
    """The query of a panel of the golden signals."""
    golden = next(dashboard for dashboard in dashboards() if dashboard["uid"] == "taskpilot-golden-signals")
    expr: str = next(panel for panel in panels(golden) if panel["title"] == title)["targets"][0]["expr"]
    return expr


@pytest.fixture(scope="module")
def sample_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A Prometheus with three hours of every family, up to now, in which the shipped rules have been evaluated."""
    require_binary("promtool")
    folder = tmp_path_factory.mktemp("sample")
    generate("sample", str(folder / "sample.om"), "--end", str(int(time.time())), "--hours", "3")
    back_fill(folder / "sample.om", folder / "data")
    with prometheus_server(rules_dir=_hurried_rules(folder / "rules"), data_dir=folder / "data") as url:
        _wait_for_rules(url)
        # The next whole second: the last rule may have got its value within this one.
        yield url, int(time.time()) + 1


def _hurried_rules(out: Path) -> Path:
    """The shipped recording rules, evaluated each second instead of each minute."""
    for path in RULES.glob("*/recording.yml"):
        (out / path.parent.name).mkdir(parents=True)
        text = re.sub(r"^    interval: .*$", "    interval: 1s", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (out / path.parent.name / path.name).write_text(text, encoding="utf-8")
    return out


def _wait_for_rules(url: str) -> None:
    """Until each recording rule that a panel names has a value; the test that asks reports those that never get one."""
    waiting = {selector.name or "" for target in TARGETS for selector in selectors(substituted(target.expr))}
    waiting &= set(recording_rules())
    deadline = time.monotonic() + 60
    while waiting and time.monotonic() < deadline:
        waiting = {name for name in waiting if not ask(url, "query", query=name)["result"]}
        time.sleep(0.2)


def test_every_query_returns_data(sample_server: tuple[str, int]) -> None:
    """With every family present, no panel and no mark is empty, and no figure is NaN."""
    url, end = sample_server
    empty = [str(target) for target in TARGETS if not _series(url, target, end)]
    assert not empty, "\n".join(empty)


def _series(url: str, target: Target, end: int) -> list[dict[str, Any]]:
    """The series of a target that hold a number; every placeholder of its legend is one of their labels."""
    expr = substituted(target.expr)
    if target.instant:
        result = ask(url, "query", query=expr, time=str(end))["result"]
        found = [series for series in result if not math.isnan(float(series["value"][1]))]
    else:
        result = ask(url, "query_range", query=expr, start=str(end - 3 * 3600), end=str(end), step="60")["result"]
        found = [series for series in result if any(not math.isnan(float(value)) for _, value in series["values"])]
    for label in re.findall(r"{{(\w+)}}", target.legend):
        assert all(label in series["metric"] for series in found), target
    return found


SMALL = """\
# TYPE workflow_runs counter
workflow_runs_total{{workflow="w",status="success",job="j",instance="i"}} 0 {start}
workflow_runs_total{{workflow="w",status="success",job="j",instance="i"}} 90 {end}
workflow_runs_total{{workflow="w",status="error",job="j",instance="i"}} 0 {start}
workflow_runs_total{{workflow="w",status="error",job="j",instance="i"}} 6 {end}
workflow_runs_total{{workflow="w",status="blocked",job="j",instance="i"}} 0 {start}
workflow_runs_total{{workflow="w",status="blocked",job="j",instance="i"}} 4 {end}
workflow_runs_total{{workflow="w",status="cancelled",job="j",instance="i"}} 0 {start}
workflow_runs_total{{workflow="w",status="cancelled",job="j",instance="i"}} 50 {end}
# TYPE workflow_duration_seconds histogram
workflow_duration_seconds_bucket{{workflow="w",job="j",instance="i",le="1"}} 0 {start}
workflow_duration_seconds_bucket{{workflow="w",job="j",instance="i",le="1"}} 90 {end}
workflow_duration_seconds_bucket{{workflow="w",job="j",instance="i",le="2"}} 0 {start}
workflow_duration_seconds_bucket{{workflow="w",job="j",instance="i",le="2"}} 100 {end}
workflow_duration_seconds_bucket{{workflow="w",job="j",instance="i",le="+Inf"}} 0 {start}
workflow_duration_seconds_bucket{{workflow="w",job="j",instance="i",le="+Inf"}} 100 {end}
# TYPE llm_cost_usd counter
llm_cost_usd_total{{agent="a",model="m",provider="p",job="j",instance="i"}} 0 {start}
llm_cost_usd_total{{agent="a",model="m",provider="p",job="j",instance="i"}} 27 {end}
# TYPE llm_feedback counter
llm_feedback_total{{verdict="correct",job="j",instance="i"}} 0 {start}
llm_feedback_total{{verdict="correct",job="j",instance="i"}} 15 {end}
llm_feedback_total{{verdict="incorrect",job="j",instance="i"}} 0 {start}
llm_feedback_total{{verdict="incorrect",job="j",instance="i"}} 5 {end}
# TYPE llm_feedback_revisions counter
llm_feedback_revisions_total{{verdict="correct",job="j",instance="i"}} 0 {start}
llm_feedback_revisions_total{{verdict="correct",job="j",instance="i"}} 1 {end}
llm_feedback_revisions_total{{verdict="incorrect",job="j",instance="i"}} 0 {start}
llm_feedback_revisions_total{{verdict="incorrect",job="j",instance="i"}} 3 {end}
# TYPE taskpilot_obs_start_time_seconds gauge
taskpilot_obs_start_time_seconds{{job="j",instance="i"}} {start} {start}
taskpilot_obs_start_time_seconds{{job="j",instance="i"}} {start} {end}
taskpilot_obs_start_time_seconds{{job="old",instance="o"}} 1 {middle}
taskpilot_obs_start_time_seconds{{job="old",instance="o"}} 1 {end}
# TYPE policy_violations counter
policy_violations_total{{workflow="w",agent="a",policy="p",severity="high",job="old",instance="o"}} 500 {middle}
policy_violations_total{{workflow="w",agent="a",policy="p",severity="high",job="old",instance="o"}} 500 {end}
policy_violations_total{{workflow="w",agent="a",policy="p",severity="high",job="j",instance="i"}} 1 {middle}
policy_violations_total{{workflow="w",agent="a",policy="p",severity="high",job="j",instance="i"}} 1 {end}
# EOF
"""
"""An hour with known figures: 90 good and 10 bad runs, 50 cancelled ones, and one violation, the first ever.

The 500 violations of the job "old" happened before anybody scraped it, so they are none of this hour's.
"""

EXPECTED = {
    "Success rate": 90.0,
    "p95 latency": 1.5,
    "Cost per successful task (all workflows)": 0.30,
    "User-confirmed correctness (all workflows)": 65.0,
    "Policy violations per 100 runs": 1.0,
    "Violations": 1.0,
    "Runs counted": 100.0,
}


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A Prometheus that holds `SMALL`, then an hour in which nothing happens."""
    require_binary("promtool")
    folder = tmp_path_factory.mktemp("small")
    end = 1_790_000_000
    text = SMALL.format(start=end - 3_600, middle=end - 1_800, end=end)
    quiet = re.sub(r"^# EOF\n|(^\w+\{.*\}) (\S+) (\d+)$", _repeated, text, flags=re.MULTILINE)
    (folder / "small.om").write_text(quiet + "# EOF\n", encoding="utf-8")
    back_fill(folder / "small.om", folder / "data")
    with prometheus_server(data_dir=folder / "data") as url:
        yield url, end


def _repeated(line: re.Match[str]) -> str:
    """The last sample of a series, again each minute for the hour after it."""
    if line.group(1) is None:
        return ""
    end = 1_790_000_000
    if int(line.group(3)) != end:
        return line.group(0)
    return "\n".join(f"{line.group(1)} {line.group(2)} {end + offset}" for offset in range(0, 3_601, 60))


@pytest.mark.parametrize("title", EXPECTED)
def test_the_five_signals_are_the_agreed_formulas(small_server: tuple[str, int], title: str) -> None:
    """Figures worked out by hand come out of the panels' own queries, the first violation ever included."""
    url, end = small_server
    (series,) = ask(url, "query", query=substituted(_expr(title), whole_range="3601s"), time=str(end))["result"]
    assert float(series["value"][1]) == pytest.approx(EXPECTED[title], rel=0.01)


@pytest.mark.promise("no-evidence")
@pytest.mark.parametrize("title", SIGNALS)
def test_without_evidence_a_signal_has_no_value(small_server: tuple[str, int], title: str) -> None:
    """In an hour without a run or a verdict a signal is absent, neither 0 nor 100 nor NaN."""
    url, end = small_server
    assert ask(url, "query", query=substituted(_expr(title), whole_range="30m"), time=str(end + 3_600))["result"] == []
