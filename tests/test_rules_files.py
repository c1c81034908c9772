"""The shipped rules: what is committed, what promtool and amtool say, what names they use, what their runbooks hold."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import promql_parser
import pytest
import yaml
from _servers import require_binary

from taskpilot_obs import semconv
from taskpilot_obs._pipeline.batched import Batched
from taskpilot_obs._support.assets import RULES, SETTINGS
from taskpilot_obs.rules.cases import REQUIRED, Case, Scenario, scenarios_of
from taskpilot_obs.rules.folders import differing, folders, render
from taskpilot_obs.rules.listing import with_table
from taskpilot_obs.rules.model import CRITICAL, NONE, WARNING, Alert, AlertKind
from taskpilot_obs.rules.settings import RuleSettings, load_settings

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "observability"
FOLDERS = [folder.name for folder in folders(RuleSettings())]
ALERTS = [(folder.name, alert) for folder in folders(RuleSettings()) for alert in folder.alerts]
SCENARIOS: dict[str, tuple[Scenario, ...]] = {name: scenarios_of(name) for name in FOLDERS}
FROM_PROMETHEUS: dict[str, set[str]] = {
    "up": set(),
    "scrape_duration_seconds": set(),
    "process_start_time_seconds": set(),
    "prometheus_rule_evaluation_failures_total": {"rule_group"},
    "prometheus_rule_group_last_evaluation_timestamp_seconds": {"rule_group"},
    "prometheus_rule_group_last_duration_seconds": {"rule_group"},
    "prometheus_rule_group_iterations_missed_total": {"rule_group"},
    "prometheus_notifications_dropped_total": set(),
    "prometheus_notifications_queue_length": set(),
    "prometheus_notifications_alertmanagers_discovered": set(),
    "alertmanager_notifications_failed_total": {"integration"},
    "ALERTS": {"alertname"},
}
"""Series that are scraped beside ours, with the labels that they have of their own."""
TARGET_LABELS = {"job", "instance"}
RULE_LABELS = {"slice", "born", "slo"}
"""Labels that the rules themselves set for a moment, and the one that tells objectives apart."""
RECORDED = re.compile(r"[a-z_]+:[a-z_0-9]+:[a-z_0-9]+")


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, check=False)


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((SHIPPED / RULES).glob("*/[ar]*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found += group["rules"]
    return found


@pytest.fixture(scope="module", autouse=True)
def verdicts() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """`promtool test rules` of each folder, which takes half a minute: runs while the other tests here do."""
    path = shutil.which("promtool")
    commands = {name: [path, "test", "rules", SHIPPED / RULES / name / "tests.yml"] for name in FOLDERS if path}
    running = {
        name: subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for name, command in commands.items()
    }
    yield running
    for process in running.values():
        with process:
            process.kill()


def test_the_committed_rules_are_those_of_the_shipped_settings() -> None:
    """Rendering the shipped settings file gives the committed files, byte for byte."""
    assert differing(load_settings(SHIPPED / SETTINGS), SHIPPED / RULES) == []


def test_the_shipped_settings_are_the_defaults() -> None:
    """The settings file spells out every default and changes none."""
    given = yaml.safe_load((SHIPPED / SETTINGS).read_text())
    assert load_settings(SHIPPED / SETTINGS) == RuleSettings()
    assert set(given) == set(RuleSettings.model_fields)
    for section in ("slo", "agents", "llm", "safety", "budget", "telemetry", "evidence"):
        assert set(given[section]) == set(type(getattr(RuleSettings(), section)).model_fields)


def test_the_queue_capacity_of_the_settings_is_that_of_the_exporters() -> None:
    """The default capacity is the real one, or the percentage of TaskpilotQueueNearlyFull would be wrong."""
    capacity = inspect.signature(Batched).parameters["capacity"].default
    assert RuleSettings().telemetry.queue_capacity == capacity


def write_rules(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`scripts/write_rules.py` as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return import_module("write_rules")


def test_the_settings_file_has_every_threshold_with_its_description(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds in slo.yml are those of the groups of rules, byte for byte; a missing one is written."""
    text = (SHIPPED / SETTINGS).read_text()
    written = write_rules(monkeypatch).settings_text
    assert written(text) == text
    lines = [line for line in text.splitlines(keepends=True) if "surge_factor" not in line and "A surge is" not in line]
    assert written("".join(lines)) == text


def test_the_committed_unit_tests_are_those_of_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tests.yml is what the cases say, byte for byte."""
    texts = write_rules(monkeypatch).texts()
    assert {name: (SHIPPED / RULES / name / "tests.yml").read_text() for name in FOLDERS} == texts


@pytest.mark.conformance
def test_promtool_finds_nothing_to_lint() -> None:
    """`promtool check rules --lint=all --lint-fatal` passes on every rule file."""
    files = sorted((SHIPPED / RULES).glob("*/[ar]*.yml"))
    assert len(files) == 2 * len(FOLDERS)
    result = run(require_binary("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *files)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.conformance
def test_prometheus_takes_the_shipped_configuration() -> None:
    """`promtool check config` passes on prometheus.yml and finds every rule file through its globs."""
    config = SHIPPED / "prometheus" / "prometheus.yml"
    result = run(require_binary("promtool"), "check", "config", config)
    assert result.returncode == 0, result.stdout + result.stderr
    for folder in FOLDERS:
        for name in ("recording.yml", "alerts.yml"):
            assert f"rules/{folder}/{name}" in result.stdout
    assert yaml.safe_load(config.read_text())["storage"]["exemplars"]["max_exemplars"] > 0


@pytest.mark.conformance
def test_alertmanager_takes_the_shipped_configuration() -> None:
    """`amtool check-config` passes, and alerts reach the receiver of their severity."""
    config = SHIPPED / "alertmanager" / "alertmanager.yml"
    result = run(require_binary("amtool"), "check-config", config)
    assert result.returncode == 0, result.stdout + result.stderr
    for severity, receiver in ((CRITICAL, "on-call"), (WARNING, "team")):
        routed = run("amtool", "config", "routes", "test", f"--config.file={config}", f"severity={severity}")
        assert routed.stdout.split() == [receiver]


def test_a_critical_alert_has_the_labels_by_which_it_silences_its_warning() -> None:
    """Each signal with both severities is inhibited by a rule whose labels both alerts have in common."""
    config = yaml.safe_load((SHIPPED / "alertmanager" / "alertmanager.yml").read_text())
    equal = set(config["inhibit_rules"][0]["equal"])
    pairs: dict[str, set[str]] = {}
    for _, alert in ALERTS:
        pairs.setdefault(alert.signal, set()).add(alert.severity)
    assert sum(len(severities) == 2 for severities in pairs.values()) == 10
    assert {"signal", "job", "workflow", "provider", "budget"} <= equal
    assert "severity" not in equal


@pytest.mark.parametrize(("folder", "alert"), ALERTS, ids=[alert.name for _, alert in ALERTS])
def test_every_alert_has_the_cases_of_its_kind(folder: str, alert: Alert) -> None:
    """No alert lacks a unit test that its kind must have."""
    found = {scenario.case for scenario in SCENARIOS[folder] if alert.name in scenario.alerts}
    assert REQUIRED[alert.kind] <= found


@pytest.mark.parametrize(("folder", "alert"), ALERTS, ids=[alert.name for _, alert in ALERTS])
def test_a_case_proves_what_its_name_says(folder: str, alert: Alert) -> None:
    """A case named "fires" has the alert fire, "resolves" has it fire and end, a silent one never has it fire."""
    for scenario in SCENARIOS[folder]:
        if alert.name not in scenario.alerts:
            continue
        states = [
            any(fired.alert == alert.name for fired in check.fired)
            for check in scenario.checks
            if alert.name in check.quiet or any(fired.alert == alert.name for fired in check.fired)
        ]
        if scenario.case in {Case.THIN, Case.HEALTHY}:
            assert not any(states), scenario.title
        if scenario.case is Case.RESOLVES and True in states:
            assert states[-1] is False, scenario.title
    proven = {s.case for s in SCENARIOS[folder] if any(alert.name == f.alert for c in s.checks for f in c.fired)}
    assert {Case.FIRES, Case.RESOLVES} & REQUIRED[alert.kind] <= proven


FIRST_EVENTS = {
    "workflow_runs_total",
    "agent_runs_total",
    "llm_requests_total",
    "llm_cost_usd_total",
    "llm_feedback_total",
    "policy_violations_total",
    "llm_errors_total",
    "llm_retries_total",
    "llm_unpriced_requests_total",
    "llm_usage_missing_total",
    "guardrail_checks_total",
    "taskpilot_obs_records_dropped_total",
    "taskpilot_obs_export_errors_total",
    "taskpilot_obs_internal_errors_total",
    "taskpilot_obs_label_overflow_total",
}
"""Counters behind alerts whose series may be born with their first event."""


def test_the_first_event_ever_fires_for_every_family_that_may_be_born_with_it() -> None:
    """For each such counter a case shows a series that did not exist, appears above 0, and makes an alert fire."""
    shown = set()
    for scenarios in SCENARIOS.values():
        for scenario in scenarios:
            if scenario.case is Case.FIRST_EVENT and any(check.fired for check in scenario.checks):
                born = [name for name, values in scenario.series.items() if re.match(r"_x\d+ [1-9]", values)]
                shown |= {name.split("{")[0] for name in born}
    assert shown >= FIRST_EVENTS


@pytest.mark.parametrize(("folder", "alert"), ALERTS, ids=[alert.name for _, alert in ALERTS])
def test_every_alert_is_complete(folder: str, alert: Alert) -> None:
    """An alert has a severity, a signal, a one-line summary, a description with values, and both links."""
    rule = next(rule for rule in rules() if rule.get("alert") == alert.name)
    labels, annotations = rule["labels"], rule["annotations"]
    assert labels["severity"] in ({NONE} if alert.kind is AlertKind.HEARTBEAT else {CRITICAL, WARNING})
    assert labels["signal"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert "\n" not in annotations["summary"]
    assert annotations["runbook_url"].endswith(f"/{folder}/runbook.md#{alert.name.lower()}")
    dashboard, _, chosen = annotations["dashboard_url"].partition("?")
    assert dashboard.endswith(f"/taskpilot-{folder.replace('_', '-')}")
    assert chosen == "var-job={{ $labels.job | urlquery }}"
    if alert.name not in {"TaskpilotTelemetryAbsent", "TaskpilotWatchdog"}:
        assert "$value" in annotations["summary"]
        assert "$value" in annotations["description"] or alert.kind is AlertKind.META


# Names


def families() -> dict[str, set[str]]:
    """Every series that a rule may read: its name, and the labels that it has of its own."""
    found: dict[str, set[str]] = dict(FROM_PROMETHEUS)
    for metric in semconv.METRICS:
        if metric.kind is semconv.Kind.HISTOGRAM:
            found[f"{metric.name}_bucket"] = {*metric.labels, "le"}
            found |= {f"{metric.name}_{part}": set(metric.labels) for part in ("sum", "count")}
        else:
            found[metric.name] = set(metric.labels)
    return found


def nodes(query: str) -> list[object]:
    """Every node of a query's tree."""
    found: list[object] = []
    promql_parser.walk(promql_parser.parse(query), pre_visit=found.append)
    return found


def selectors(query: str) -> Iterator[promql_parser.VectorSelector]:
    for node in nodes(query):
        if isinstance(node, promql_parser.MatrixSelector):
            yield node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            yield node


def grouping(query: str) -> set[str]:
    """Labels that aggregations and matchings name."""
    found: set[str] = set()
    for node in nodes(query):
        modifier = getattr(node, "modifier", None)
        matching = getattr(modifier, "matching", None) if isinstance(node, promql_parser.BinaryExpr) else modifier
        found |= set(getattr(matching, "labels", None) or ())
    return found


def check_names(query: str, recorded: set[str]) -> None:
    """Fails when a query names a series or a label that is never written."""
    known = families()
    labels = set(TARGET_LABELS | RULE_LABELS)
    for selector in selectors(query):
        name = selector.name
        if name is None:
            (name_matcher,) = [m for m in selector.matchers.matchers if m.name == "__name__"]
            assert any(re.fullmatch(name_matcher.value, each) for each in recorded), query
            continue
        assert name in known or name in recorded, f"{name} in {query}"
        if name in known:
            own = known[name]
            assert {m.name for m in selector.matchers.matchers} <= own | TARGET_LABELS, query
            labels |= own
        else:
            labels |= {label for family in known.values() for label in family}
    assert grouping(query) <= labels, query


def test_rules_name_only_series_and_labels_that_somebody_writes() -> None:
    """Each name in an expression is one of the contract's, a recording rule, or Prometheus' own; so is each label."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        check_names(rule["expr"], recorded)


def test_a_wrong_name_is_found() -> None:
    """The check of names is not blind: a misspelt series, a foreign label matcher and a foreign grouping fail."""
    for query in (
        "sum(rate(workflow_runs[5m]))",
        'workflow_runs_total{agent="x"}',
        "sum by (agent) (workflow_runs_total)",
        "job:no_such:rule",
    ):
        with pytest.raises(AssertionError):
            check_names(query, set())


def test_recording_rules_are_named_by_level_metric_and_operations() -> None:
    """Every recorded name has three parts, and nothing is recorded twice."""
    names = [(rule["record"], str(rule.get("labels"))) for rule in rules() if "record" in rule]
    assert len(names) == len(set(names))
    assert all(RECORDED.fullmatch(name) for name, _ in names)


def test_recording_rules_drop_the_instance_and_keep_the_job() -> None:
    """What a rule sums up at last has the label job and not the label instance."""
    for rule in rules():
        outer = promql_parser.parse(rule["expr"])
        if isinstance(outer, promql_parser.AggregateExpr) and outer.modifier is not None:
            assert outer.modifier.type == promql_parser.AggModifierType.By
            assert "job" in outer.modifier.labels
            assert "instance" not in outer.modifier.labels


def test_the_windows_that_are_promised_are_recorded() -> None:
    """Each golden signal exists per workflow and overall over 5m, 30m, 1h, 6h, 1d and 3d."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    signals = (
        "workflow_runs:success_ratio_rate",
        "workflow_duration_seconds:p95_rate",
        "workflow_runs:cost_per_success_usd_rate",
        "policy_violations:per_run_ratio_rate",
    )
    for window in ("5m", "30m", "1h", "6h", "1d", "3d"):
        assert f"job:llm_feedback:correct_ratio_rate{window}" in recorded
        for level in ("workflow", "job"):
            assert {f"{level}:{signal}{window}" for signal in signals} <= recorded


# Runbooks

PARTS = ("**What it means.**", "**How bad.**", "**Look first.**", "**How to fix.**", "**How to silence.**")


@pytest.mark.parametrize(("folder", "alert"), ALERTS, ids=[alert.name for _, alert in ALERTS])
def test_every_alert_has_a_runbook(folder: str, alert: Alert) -> None:
    """Under a heading of its name: what it means, how bad, three queries that parse, fix, silence."""
    text = (SHIPPED / RULES / folder / "runbook.md").read_text()
    _, _, rest = text.partition(f"\n## {alert.name}\n")
    section = rest.partition("\n## ")[0]
    assert all(part in section for part in PARTS)
    queries = re.findall(r"```promql\n(.*?)```", section, re.DOTALL)
    assert len(queries) == 3
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for query in queries:
        check_names(query.strip(), recorded)
    assert f"alertname={alert.name}" in section


def test_runbooks_have_no_heading_without_an_alert() -> None:
    """A runbook has headings only for alerts that exist."""
    for folder in FOLDERS:
        headings = re.findall(r"^## (\S+)$", (SHIPPED / RULES / folder / "runbook.md").read_text(), re.MULTILINE)
        assert headings == [alert.name for name, alert in ALERTS if name == folder]


def test_the_page_lists_every_alert_as_it_is() -> None:
    """docs/alerts.md holds the table that `taskpilot-obs rules list` prints; all budget alerts are in it."""
    page = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert page == with_table(page, RuleSettings())
    assert all(f"[{alert.name}]" in page for _, alert in ALERTS)


def test_a_page_without_marks_is_refused() -> None:
    """A page that has no place for the table is an error, not a page without it."""
    with pytest.raises(ValueError, match="lacks"):
        with_table("# Alerts", RuleSettings())


LABELS = {metric.name: set(metric.labels) for metric in semconv.METRICS}


@pytest.mark.parametrize(("folder", "alert"), ALERTS, ids=[alert.name for _, alert in ALERTS])
def test_runbook_queries_look_at_what_fired(folder: str, alert: Alert) -> None:
    """Each query selects by those labels of the alert that its series have, and shows a series that was just born."""
    text = (SHIPPED / RULES / folder / "runbook.md").read_text()
    section = text.partition(f"\n## {alert.name}\n")[2].partition("\n## ")[0]
    (silence,) = re.findall(rf"alertname={alert.name}((?: [a-z]+=[A-Z]+)*) --duration", section)
    mine = dict(re.findall(r" ([a-z]+)=([A-Z]+)", silence))
    for query in re.findall(r"```promql\n(.*?)```", section, re.DOTALL):
        for selector in selectors(query.strip()):
            name = (selector.name or "").removesuffix("_bucket")
            chosen = {matcher.name for matcher in selector.matchers.matchers}
            wanted = set(mine) & (LABELS[name] | {"job"}) if name in LABELS else set(mine) & {"job"}
            assert wanted <= chosen, query
        assert not re.search(r"increase\(\w+_total", query), query


def test_rendering_is_deterministic() -> None:
    """The same settings give the same bytes."""
    assert render(RuleSettings()) == render(RuleSettings.model_validate(RuleSettings().model_dump()))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_alert_does_what_its_cases_say(folder: str, verdicts: dict[str, subprocess.Popen[str]]) -> None:
    """`promtool test rules`: alerts fire, stay silent, resolve, survive resets, and say exactly what was expected."""
    require_binary("promtool")
    said, _ = verdicts[folder].communicate()
    assert verdicts[folder].returncode == 0, said
