"""Settings of the rules: what is refused and how, and that whatever is accepted renders to valid rules."""

from __future__ import annotations

import builtins
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from _servers import require_binary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from taskpilot_obs.exceptions import ConfigurationError, MissingExtraError
from taskpilot_obs.exporters.prometheus.families import families_of
from taskpilot_obs.rules.folders import differing, render, write
from taskpilot_obs.rules.promql import seconds, slices
from taskpilot_obs.rules.settings import RuleSettings, load_settings
from taskpilot_obs.semconv import START_TIME, WORKFLOW_BUCKETS


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"success_rate_percent": {"warning": 80, "critical": 90}}, "critical <= warning"),
        ({"p95_latency_seconds": {"warning": 5, "critical": 2}}, "warning <= critical"),
        ({"p95_latency_seconds": {"warning": 2, "critical": 3_600}}, "3600 s can never be exceeded"),
        ({"agents": {"p95_seconds": 600}}, "the histogram ends at 600 s"),
        ({"llm": {"p99_seconds": 1e6}}, "can never be exceeded"),
        ({"llm": {"first_token_p95_seconds": 60}}, "the histogram ends at 60 s"),
        ({"slo": {"success": {"objective": 90}}}, "an objective of 90 % a burn rate of 14.4 means 144 %"),
        ({"slo": {"latency": {"objective": 93}}}, "slo.latency"),
        ({"slo": {"success": {"objective": 100}}}, "less than 100"),
        ({"slo": {"latency": {"threshold_seconds": 3}}}, "not a bucket bound"),
        ({"slo": {"burn": [{"long": "5m", "short": "1h", "rate": 2, "severity": "critical"}]}}, "must be shorter"),
        ({"slo": {"burn": [{"long": "1h", "short": "5m", "rate": 2, "severity": "critical"}]}}, "of severity warning"),
        ({"windows": ["5m", "7h30m"]}, "not a window"),
        ({"windows": ["5m", "61m"]}, "no whole multiple"),
        ({"windows": []}, "at least one window"),
        ({"telemetry": {"window": "2h"}}, "at most 1h"),
        ({"telemetry": {"expected_jobs": ['a"b']}}, "not a job name"),
        ({"keep_labels": ["cluster"]}, "must contain job"),
        ({"keep_labels": ["job", "instance"]}, "must not contain instance"),
        ({"keep_labels": ["job", "a-b"]}, "not a label name"),
        ({"selector": "namespace=prod"}, "must be label matchers"),
        ({"safety": {"token_policies": ["a b"]}}, "letters, digits"),
        ({"dashboard_base_url": "grafana/"}, "must begin with http"),
        ({"namespace": "acme-"}, "should match pattern"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_and_named(given: dict[str, object], said: str) -> None:
    """Every refusal says what was wrong."""
    with pytest.raises(ValidationError, match=said):
        RuleSettings.model_validate(given)


def test_an_objective_is_refused_exactly_where_its_alert_could_never_fire() -> None:
    """At 14.4 times the budget, an objective just above 100 - 100/14.4 percent can fire, and one at it cannot."""
    limit = 100 - 100 / 14.4
    RuleSettings.model_validate({"slo": {"success": {"objective": limit + 0.001}}})
    with pytest.raises(ValidationError):
        RuleSettings.model_validate({"slo": {"success": {"objective": limit - 0.001}}})


def test_a_settings_file_may_hold_what_it_changes_only(tmp_path: Path) -> None:
    """What a file leaves out has its default; an empty file changes nothing."""
    path = tmp_path / "slo.yml"
    path.write_text("llm: {cost_per_hour_usd: 40}\n")
    found = load_settings(path)
    assert found.llm.cost_per_hour_usd == 40
    assert found.agents == RuleSettings().agents
    path.write_text("")
    assert load_settings(path) == RuleSettings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("windows: [5m", "is not YAML"),
        ("- a list\n", "mapping of settings, not a list"),
        ("llm: {cost_per_hour_usd: -1}\n", "llm.cost_per_hour_usd"),
        ("windows: []\n", "settings: Value error, windows"),
    ],
)
def test_a_settings_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """The error names the file and what is wrong with it."""
    path = tmp_path / "slo.yml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)


def test_a_missing_settings_file_is_refused(tmp_path: Path) -> None:
    """A path that leads nowhere is an error, not the defaults."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path / "none.yml")


def test_without_pyyaml_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a settings file needs PyYAML; the error says which extra brings it."""
    real = builtins.__import__

    def without_yaml(name: str, *rest: object) -> object:
        if name == "yaml":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(builtins, "__import__", without_yaml)
    with pytest.raises(MissingExtraError, match=r"taskpilot-obs\[rules\]"):
        load_settings(tmp_path / "slo.yml")


def test_changed_files_are_told(tmp_path: Path) -> None:
    """A file that was edited or removed is named; the others are not."""
    write(RuleSettings(), tmp_path)
    assert differing(RuleSettings(), tmp_path) == []
    (tmp_path / "llm" / "alerts.yml").write_text("groups: []\n")
    (tmp_path / "safety" / "recording.yml").unlink()
    assert differing(RuleSettings(), tmp_path) == ["llm/alerts.yml", "safety/recording.yml"]


def test_a_longer_window_is_made_of_the_longest_that_divides_it() -> None:
    """6h is three times 2h where there is a 2h, and six times 1h where there is none."""
    assert slices("6h", ["5m", "1h", "2h", "6h"]) == ("2h", 3)
    assert slices("6h", ["5m", "1h", "6h"]) == ("1h", 6)
    assert seconds("2w") == 1_209_600


def test_every_expression_carries_the_selector_and_the_kept_labels() -> None:
    """A selector reaches every raw series, and kept labels every sum."""
    changed = RuleSettings.model_validate({"selector": 'ns="a,b", zone!="x"', "keep_labels": ["cluster", "job"]})
    for text in render(changed).values():
        for line in text.splitlines():
            if "_total" in line and "_total{" not in line and "metric" not in line and "notifications" not in line:
                pytest.fail(line)
        assert "by (job" not in text.replace("by (job, rule_group)", "").replace("by (job, integration)", "").replace(
            "by (job) (increase(prometheus_notifications", ""
        ).replace("min by (job) (time()", "")
    assert (
        'workflow_runs_total{ns="a,b", zone!="x", status="success"}' in render(changed)["golden_signals/recording.yml"]
    )


def _percents() -> st.SearchStrategy[float]:
    return st.floats(0.01, 99.99)


def _pair(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda two: (min(two), max(two)))


def _events() -> st.SearchStrategy[int]:
    return st.integers(1, 10**6)


@st.composite
def accepted(draw: st.DrawFn) -> RuleSettings:
    """Any settings that are accepted: thresholds, objectives, windows, selectors, names."""
    high, low = draw(_pair(0.01, 100)), draw(_pair(0.001, 10_000))
    quick, slow = draw(_pair(0.001, 3_599)), draw(st.floats(0.001, 599))
    extra = draw(st.sets(st.sampled_from(["10m", "15m", "2h", "12h", "2d"]), max_size=3))
    return RuleSettings.model_validate(
        {
            "selector": draw(st.sampled_from(["", 'namespace="prod"', 'a=~"b|c,d", e!="f"'])),
            "keep_labels": draw(st.sampled_from([["job"], ["cluster", "job"]])),
            "windows": ["5m", "30m", "1h", "6h", "1d", "3d", *extra],
            "recent_windows": draw(st.sampled_from([["1h"], ["30m", "6h"], ["1h", "6h", "1d"]])),
            "success_rate_percent": {"warning": high[1], "critical": high[0], "min_events": draw(_events())},
            "p95_latency_seconds": {"warning": quick[0], "critical": quick[1]},
            "cost_per_successful_task_usd": {"warning": low[0], "critical": low[1]},
            "slo": {
                "success": {"objective": draw(st.floats(93.1, 99.999))},
                "latency": {
                    "objective": draw(st.floats(93.1, 99.999)),
                    "threshold_seconds": draw(st.sampled_from(WORKFLOW_BUCKETS)),
                },
            },
            "agents": {"success_percent": draw(_percents()), "stuck_after": draw(st.sampled_from(["10m", "2h", "1d"]))},
            "llm": {"p99_seconds": slow, "cache_hit_percent": draw(_percents()), "spike_factor": 1 + low[0]},
            "safety": {"token_policies": draw(st.sampled_from([["max_tokens"], ["a", "b-c"]]))},
            "telemetry": {
                "window": draw(st.sampled_from(["5m", "1h"])),
                "expected_jobs": draw(st.lists(st.sampled_from(["shop", "x.y/z", "a b"]), unique=True)),
            },
        }
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=accepted())
def test_whatever_settings_are_accepted_promtool_accepts_their_rules(changed: RuleSettings, tmp_path: Path) -> None:
    """For any accepted settings the rendered files are YAML that promtool loads and finds nothing to lint in."""
    files = write(changed, tmp_path)
    command = [require_binary("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@given(changed=accepted())
@settings(max_examples=15, deadline=None)
def test_the_rendered_text_is_yaml_and_means_what_was_written(changed: RuleSettings) -> None:
    """A YAML reader gets every alert back with its severity, summary and links, whatever the settings."""
    for name, text in render(changed).items():
        for group in yaml.safe_load(text)["groups"]:
            assert group["interval"] == changed.evaluation_interval
            for rule in group["rules"]:
                assert rule["expr"].strip()
                if name.endswith("alerts.yml"):
                    assert rule["annotations"]["runbook_url"].startswith(changed.runbook_base_url)


def _annotations(rendered: dict[str, str]) -> dict[str, dict[str, str]]:
    """Annotations of every alert, by its name."""
    groups = [group for text in rendered.values() for group in yaml.safe_load(text)["groups"]]
    return {rule["alert"]: rule["annotations"] for group in groups for rule in group["rules"] if "alert" in rule}


def _raw_names(rendered: dict[str, str]) -> set[str]:
    """Every series that the rules read and do not record themselves."""
    groups = [group for text in rendered.values() for group in yaml.safe_load(text)["groups"]]
    text = "\n".join(re.sub(r'"[^"]*"', '""', rule["expr"]) for group in groups for rule in group["rules"])
    return set(re.findall(r"(?<![\w:])([a-z]\w*)(?=[{\[])", text))


def test_a_namespace_stands_before_every_family_and_nothing_else() -> None:
    """With `namespace: acme` the rules read what `configure(namespace="acme")` exposes, and record the same names."""
    plain, prefixed = render(RuleSettings()), render(RuleSettings(namespace="acme"))
    foreign = {name for name in _raw_names(plain) if name == "up" or name.startswith(("prometheus_", "alertmanager_"))}
    ours = _raw_names(plain) - foreign
    assert {"workflow_runs_total", "taskpilot_obs_start_time_seconds", "llm_cost_usd_total"} <= ours
    assert _raw_names(prefixed) == foreign | {f"acme_{name}" for name in ours}
    records = [re.findall(r"record: (\S+)", "".join(each.values())) for each in (plain, prefixed)]
    assert records[0] == records[1]


def test_the_names_are_those_that_a_namespace_exposes() -> None:
    """A family of an exporter with a namespace has the name that the rules of that namespace select."""
    registry = CollectorRegistry()
    families_of(registry, "acme")
    exposed = {family.name for family in registry.collect()}
    scope = RuleSettings(namespace="acme").scope
    assert scope.select(START_TIME.name) in exposed
    assert scope.select("up") == "up"


def test_alerts_name_the_labels_that_are_kept() -> None:
    """With `keep_labels: [job, tenant]` every summary and description names the tenant, wherever an alert has one."""
    known = _annotations(render(RuleSettings(keep_labels=("job", "tenant"))))
    named = "{{ with $labels.tenant }}, tenant {{ . }}{{ end }}"
    for name, texts in known.items():
        if name != "TaskpilotWatchdog":
            assert named in texts["summary"], name
            assert named in texts["description"], name


def test_a_page_for_one_tenant_names_it(tmp_path: Path) -> None:
    """In promtool: records that one tenant's service loses fire an alert whose summary ends with that tenant."""
    write(RuleSettings(keep_labels=("job", "tenant")), tmp_path)
    target = 'job="shop",tenant="acme",instance="a"'
    labels = {"job": "shop", "tenant": "acme", "exporter": "audit", "reason": "queue_full"}
    named = {**labels, "severity": "critical", "signal": "records_dropped"}
    (rule,) = [
        rule
        for group in yaml.safe_load((tmp_path / "telemetry" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if rule["alert"] == "TaskpilotRecordsDropped"
    ]
    summary = "Exporter audit of shop, tenant acme lost 5 records in 15m (queue_full)"
    test = {
        "interval": "1m",
        "input_series": [
            {
                "series": f'taskpilot_obs_records_dropped_total{{{target},exporter="audit",reason="queue_full"}}',
                "values": "0x20 5x10",
            },
            {"series": f"taskpilot_obs_start_time_seconds{{{target}}}", "values": "0x30"},
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (tenant) (ALERTS{alertname="TaskpilotRecordsDropped"})',
                "eval_time": "25m",
                "exp_samples": [{"labels": '{tenant="acme"}', "value": 1}],
            }
        ],
        "alert_rule_test": [
            {
                "eval_time": "25m",
                "alertname": "TaskpilotRecordsDropped",
                "exp_alerts": [
                    {
                        "exp_labels": named,
                        "exp_annotations": {
                            **rule["annotations"],
                            "dashboard_url": rule["annotations"]["dashboard_url"].replace(
                                "{{ $labels.job | urlquery }}", "shop"
                            ),
                            "summary": summary,
                            "description": "Exporter audit of shop, tenant acme did not get 5 records in the last"
                            " 15m, reason queue_full. What it writes is incomplete by them.",
                        },
                    }
                ],
            }
        ],
    }
    files = [str(tmp_path / "telemetry" / name) for name in ("recording.yml", "alerts.yml")]
    (tmp_path / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": files, "evaluation_interval": "1m", "tests": [test]})
    )
    command = [require_binary("promtool"), "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
