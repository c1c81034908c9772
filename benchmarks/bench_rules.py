"""How long a real Prometheus takes to evaluate each group of the shipped rules, over 200 agents and 10 models.

Run: python benchmarks/bench_rules.py (needs `prometheus` and `promtool`; takes about four minutes)

An hour of scrapes, 15 s apart, is written as blocks for promtool, of a service with 100 workflows, 200 agents and 10
models. Prometheus then evaluates the shipped rules, twice as often as usual to be done sooner; a group is judged by the
median of three evaluations that follow a first one.
A machine that does other work meanwhile shows it: nothing else should run.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from taskpilot_obs import semconv
from taskpilot_obs._support.assets import observability_dir
from taskpilot_obs.rules.folders import write
from taskpilot_obs.rules.settings import load_settings

AGENTS, MODELS, WORKFLOWS = 200, 10, 100
SCRAPE_S, SPAN_S, EVALUATIONS, INTERVAL = 15, 3_900, 3, "30s"
LIMIT_S = 1.0
READY_S, EVALUATED_S = 60.0, 600.0
AGENT_NAMES = [f"team{index % 8}.agent{index}" for index in range(AGENTS)]
MODEL_NAMES = [f"model-{index}" for index in range(MODELS)]
WORKFLOW_NAMES = [f"workflow-{index}" for index in range(WORKFLOWS)]
TARGET = 'job="bench",instance="127.0.0.1:9464"'

Series = tuple[str, float]
"""Labels, and what a scrape adds."""


def calls() -> Iterator[str]:
    """Labels of every agent and model."""
    for agent, model in product(AGENT_NAMES, MODEL_NAMES):
        yield f'agent="{agent}",model="{model}",provider="p{model[-1]}"'


def families() -> Iterator[tuple[semconv.Metric, list[Series]]]:
    """Every family that is large, as large as it gets."""
    statuses = ((status, 1.0 if status == "success" else 0.02) for status in semconv.FIXED_VALUES["status"])
    by_status = list(statuses)
    yield semconv.WORKFLOW_RUNS, [(f'workflow="{w}",status="{s}"', n) for w in WORKFLOW_NAMES for s, n in by_status]
    yield semconv.WORKFLOW_COST, [(f'workflow="{w}",status="{s}"', n) for w in WORKFLOW_NAMES for s, n in by_status]
    yield semconv.WORKFLOW_DURATION, [(f'workflow="{name}"', 1.0) for name in WORKFLOW_NAMES]
    yield semconv.AGENT_RUNS, [(f'agent="{a}",status="{s}"', n) for a in AGENT_NAMES for s, n in by_status]
    yield semconv.AGENT_DURATION, [(f'agent="{name}"', 1.0) for name in AGENT_NAMES]
    yield (
        semconv.TOOL_CALLS,
        [(f'agent="{a}",tool="t{n}",status="success"', 1.0) for a in AGENT_NAMES for n in range(10)],
    )
    yield semconv.LLM_REQUESTS, [(f'{labels},status="success"', 2.0) for labels in calls()]
    yield semconv.LLM_DURATION, [(f'model="{m}",provider="p{m[-1]}"', 9.0) for m in MODEL_NAMES]
    yield semconv.LLM_TOKENS, [(f'{labels},token_type="input"', 900.0) for labels in calls()]
    yield semconv.LLM_COST, [(labels, 0.01) for labels in calls()]
    yield semconv.LLM_CACHE_HITS, [(f'agent="{a}",model="{m}"', 1.0) for a, m in product(AGENT_NAMES, MODEL_NAMES)]
    yield semconv.LLM_CACHE_MISSES, [(f'agent="{a}",model="{m}"', 1.0) for a, m in product(AGENT_NAMES, MODEL_NAMES)]
    yield semconv.LLM_ERRORS, [(f'{labels},error_type="rate_limit"', 0.01) for labels in calls()]
    yield (
        semconv.POLICY_VIOLATIONS,
        [
            (f'workflow="{w}",agent="{AGENT_NAMES[n]}",policy="p{n}",severity="low"', 0.01)
            for w in WORKFLOW_NAMES
            for n in range(20)
        ],
    )


def lines(metric: semconv.Metric, series: list[Series], times: list[int]) -> Iterator[str]:
    """One family in OpenMetrics text."""
    histogram = metric.kind is semconv.Kind.HISTOGRAM
    base = metric.name.removesuffix("_total")
    yield f"# TYPE {base} {'histogram' if histogram else 'counter'}\n"
    for labels, step in series:
        if not histogram:
            yield from (f"{metric.name}{{{TARGET},{labels}}} {step * n:.6g} {t}\n" for n, t in enumerate(times))
            continue
        for n, t in enumerate(times):
            for index, bound in enumerate((*metric.buckets, float("inf"))):
                le = "+Inf" if bound == float("inf") else str(bound)
                count = int(step * n * (index + 1) / (len(metric.buckets) + 1))
                yield f'{metric.name}_bucket{{{TARGET},{labels},le="{le}"}} {count} {t}\n'


def backfill(home: Path) -> int:
    """Write the blocks; returns how many series they hold."""
    end = int(time.time())
    times = list(range(end - SPAN_S, end, SCRAPE_S))
    count = 0
    text = home / "data.om"
    with text.open("w", encoding="utf-8") as out:
        for metric, series in families():
            out.writelines(lines(metric, series, times))
            count += len(series) * (len(metric.buckets) + 1)
        out.write("# EOF\n")
    subprocess.run(  # noqa: S603  our own file, no shell
        [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(text), str(home / "data")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    text.unlink()
    return count


def program(name: str) -> str:
    """Path of an installed program."""
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not installed (Debian: apt-get install prometheus)")
    return path


def ask(url: str) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """An answer of Prometheus."""
    with urlopen(url, timeout=10) as answer:  # noqa: S310  our own loopback address
        found: dict[str, dict[str, list[dict[str, Any]]]] = json.load(answer)
    return found


def evaluated(url: str) -> list[dict[str, Any]]:
    """The groups after each was evaluated so many times, with the `times` that it took, the first left out."""
    seen: dict[str, dict[str, float]] = {}
    deadline = time.monotonic() + EVALUATED_S
    while time.monotonic() < deadline:
        time.sleep(2)
        try:
            groups = ask(f"{url}/api/v1/rules")["data"]["groups"]
        except (URLError, OSError):
            continue
        for group in groups:
            seen.setdefault(group["name"], {})[group["lastEvaluation"]] = group["evaluationTime"]
        if groups and all(len(times) > EVALUATIONS for times in seen.values()):
            return [{**group, "times": list(seen[group["name"]].values())[1:]} for group in groups]
    sys.exit("Prometheus did not evaluate the rules in time")


def measure(home: Path) -> list[dict[str, Any]]:
    """Start Prometheus over the blocks, and wait for its figures."""
    settings = load_settings(observability_dir() / "prometheus" / "slo.yml")
    rules = write(settings.model_copy(update={"evaluation_interval": INTERVAL}), home / "rules")
    config = home / "prometheus.yml"
    config.write_text("rule_files:\n" + "".join(f"  - {path}\n" for path in rules), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(  # noqa: S603  no shell
        [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        return evaluated(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()


def main() -> int:
    """Print a line a group; 1 if one is over the limit or a rule fails."""
    with tempfile.TemporaryDirectory(prefix="bench-rules-") as home:
        print(f"{backfill(Path(home)):,} series, {SCRAPE_S} s apart, {AGENTS} agents x {MODELS} models")
        groups = measure(Path(home))
    print(f"{'group':45} {'rules':>6} {'seconds':>9}")
    worst = 0.0
    for group in groups:
        rules = group["rules"]
        unhealthy = [rule["name"] for rule in rules if rule["health"] != "ok"]
        took = median(group["times"])
        worst = max(worst, took)
        print(f"{group['name']!s:45} {len(rules):6} {took:9.3f} {', '.join(unhealthy)}")
        if unhealthy:
            return 1
    rules = sorted((rule["evaluationTime"], rule["name"]) for group in groups for rule in group["rules"])
    print("slowest rules: " + ", ".join(f"{name} {took:.3f} s" for took, name in reversed(rules[-8:])))
    print(f"slowest {worst:.3f} s, limit {LIMIT_S} s")
    return int(worst > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
