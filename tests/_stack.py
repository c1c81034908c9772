"""The shipped Prometheus and Alertmanager configuration, made fit for a test: what is changed, and nothing else.

Prometheus runs the exported `prometheus.yml` with the addresses in its target files, and the rules that `taskpilot-obs
rules render` writes. Against the shipped files three things differ, for a test cannot wait for minutes: how often is
scraped and evaluated, how long a condition must last (`for`), and how long Alertmanager waits to group. Every
expression, window, threshold, label and annotation is the shipped one; `differences` finds out.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from _dashboards import RULES, back_fill
from _servers import alertmanager_server, prometheus_server
from _steered import SUPPORT, Application, running_application
from _webhook import Webhook, receiving

from taskpilot_obs._support.assets import export_assets
from taskpilot_obs.semconv import WORKFLOW_BUCKETS

FAST_RULES = "evaluation_interval: 1s\nlasting: 2s\nlasting_critical: 1s\n"
FAST_PROMETHEUS = {
    "scrape_interval: 15s": "scrape_interval: 500ms",
    "evaluation_interval: 1m": "evaluation_interval: 1s",
}
FAST_ALERTMANAGER = {
    "group_wait: 30s": "group_wait: 3s",
    "group_wait: 10s": "group_wait: 1s",
    "group_wait: 1m": "group_wait: 3s",
    "group_interval: 5m": "group_interval: 2s",
}
JOB = "taskpilot"
"""Of the shipped prometheus.yml."""
DAY_S, HOUR_S = 86_400, 3_600
GONE_S = 6 * 60
"""So long ago the deployment before this one was scraped last."""
STEP_S = 15
RUNS_AN_HOUR = 800
SILENT_AGENT = "nightly.reporter"


class Stack(NamedTuple):
    """The running parts."""

    application: Application
    prometheus: str
    """Base URL."""
    alertmanager: str
    """Base URL."""
    webhook: Webhook
    rules: Path
    """The rules that are loaded."""
    began: float
    """Unix time; the history ends `GONE_S` before it."""


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Application, Prometheus, Alertmanager and the receiver of its notifications, all on loopback."""
    export_assets(folder)
    rules = folder / "prometheus" / "rules"
    render(folder / "fast.yml", rules)
    began = time.time()
    write_history(folder / "history.om", int(began))
    back_fill(folder / "history.om", folder / "data")
    with (
        running_application() as application,
        receiving() as webhook,
        alertmanager_server(alertmanager_config(folder, webhook)) as alertmanager,
        prometheus_server(
            prometheus_config(folder, application.address, alertmanager), data_dir=folder / "data"
        ) as prometheus,
    ):
        yield Stack(application, prometheus, alertmanager, webhook, rules, began)


def render(settings: Path, out: Path) -> None:
    """Write the rules with fast settings, as a user does."""
    settings.write_text(FAST_RULES, encoding="utf-8")
    command = [sys.executable, "-c", "from taskpilot_obs.cli import main; main()", "rules", "render"]
    subprocess.run(
        [*command, "--settings", str(settings), "--out", str(out)], check=True, capture_output=True, text=True
    )


def differences(rules: Path) -> set[str]:
    """The kinds of lines in which the rules differ from the shipped ones: the word before their colon."""
    kinds = set()
    for shipped in sorted(RULES.glob("*/[ar]*.yml")):
        ours = (rules / shipped.relative_to(RULES)).read_text(encoding="utf-8").splitlines()
        theirs = shipped.read_text(encoding="utf-8").splitlines()
        pairs = zip(ours, theirs, strict=True)
        kinds |= {f"{a.partition(':')[0].strip(' -')}" for a, b in pairs if a != b}
    return kinds


def _replaced(text: str, replacements: dict[str, str]) -> str:
    for shipped, fast in replacements.items():
        assert shipped in text, shipped
        text = text.replace(shipped, fast)
    return text


def prometheus_config(folder: Path, application: str, alertmanager: str) -> Path:
    """Write the addresses and the pace into the exported prometheus.yml; returns its path."""
    path = folder / "prometheus" / "prometheus.yml"
    path.write_text(_replaced(path.read_text(encoding="utf-8"), FAST_PROMETHEUS), encoding="utf-8")
    targets = folder / "prometheus" / "targets"
    for name, shipped, here in (
        ("application.yml", "127.0.0.1:9464", application),
        ("alertmanager.yml", "127.0.0.1:9093", alertmanager.removeprefix("http://")),
    ):
        text = (targets / name).read_text(encoding="utf-8")
        (targets / name).write_text(_replaced(text, {shipped: here}), encoding="utf-8")
    return path


def alertmanager_config(folder: Path, webhook: Webhook) -> Path:
    """Give the exported alertmanager.yml the receiver and the pace; returns its path."""
    path = folder / "alertmanager" / "alertmanager.yml"
    hook = f"    webhook_configs: [{{url: '{webhook.url}', send_resolved: true}}]\n"
    receivers = {f"  - name: {name}\n": f"  - name: {name}\n{hook}" for name in ("on-call", "team")}
    path.write_text(_replaced(path.read_text(encoding="utf-8"), {**FAST_ALERTMANAGER, **receivers}), encoding="utf-8")
    return path


# --- what Prometheus knew before -------------------------------------------------------------------------------------


def write_history(path: Path, now: int) -> None:
    """Blocks for an hour of a healthy deployment that is gone, and for an agent that was busy at this time yesterday.

    The first gives the windows of an hour, of which the alerts speak, something to be about. The second is a recorded
    series, as the rules left it behind yesterday.
    """
    moments = range(now - 2 * HOUR_S, now - GONE_S, STEP_S)
    target = f'job="{JOB}",instance="10.0.0.7:9464"'
    run = f'{target},workflow="{SUPPORT}"'
    start = "taskpilot_obs_start_time_seconds"
    lines = [f"# TYPE {start} gauge"]
    lines += [f"{start}{{{target}}} {moments[0]} {moment}" for moment in moments]
    seen = "job:taskpilot_obs_first_seen:timestamp_seconds"
    lines += [f"# TYPE {seen} gauge", f'{seen}{{job="{JOB}"}} {now - 40 * DAY_S} {moments[-1]}']
    lines += ["# TYPE workflow_runs counter"]
    for status, share in (("success", 0.995), ("error", 0.005)):
        lines += _growing(f'workflow_runs_total{{{run},status="{status}"}}', share, moments)
    lines += ["# TYPE llm_requests counter"]
    call = 'agent="support.triage",model="gpt-4o-2024-08-06",provider="openai",status="success"'
    lines += _growing(f"llm_requests_total{{{target},{call}}}", 2.0, moments)
    lines += ["# TYPE workflow_duration_seconds histogram"]
    for bound in (*map(str, WORKFLOW_BUCKETS), "+Inf"):
        share = 0.0 if float(bound) < 0.1 else 0.9 if float(bound) < 0.5 else 1.0
        lines += _growing(f'workflow_duration_seconds_bucket{{{run},le="{bound}"}}', share, moments)
    record = "agent:agent_runs:increase1h"
    lines += [f"# TYPE {record} gauge"]
    yesterday = range(now - DAY_S - HOUR_S, now - DAY_S + HOUR_S, STEP_S)
    lines += [f'{record}{{job="{JOB}",agent="{SILENT_AGENT}"}} 40 {moment}' for moment in yesterday]
    path.write_text("\n".join([*lines, "# EOF", ""]), encoding="utf-8")


def _growing(series: str, share: float, moments: range) -> list[str]:
    return [f"{series} {int(share * RUNS_AN_HOUR * (at - moments[0]) / HOUR_S)} {at}" for at in moments]
