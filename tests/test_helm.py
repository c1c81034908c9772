"""The Helm chart: by default equal to the manifests, and with other values to the rules that the command renders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from _schemas import OperatorLoader
from _servers import require_binary

from scripts.chart.files import CHART, SOURCE, texts
from scripts.chart.rules import leaves
from taskpilot_obs._support.assets import SETTINGS
from taskpilot_obs._support.kubernetes import Placement, manifests
from taskpilot_obs.rules.folders import render
from taskpilot_obs.rules.settings import RuleSettings, load_settings

Objects = dict[tuple[str, str], dict[str, Any]]
OTHER: dict[str, object] = {
    "slo.success.objective": 99.5,
    "slo.latency.objective": 99,
    "cost_per_successful_task_usd.warning": 0.125,
    "dashboard_base_url": "https://grafana.example.com/d",
    "runbook_base_url": "https://wiki.example.com/runbooks",
}
"""Values that are chosen by hand, because a figure that is merely different would be refused."""


def _helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = require_binary("helm", str(Path(sys.executable).with_name("helm")))
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)


def _rendered(*options: str) -> Objects:
    done = _helm("template", "release", str(CHART), "--namespace", "monitoring", *options)
    assert done.returncode == 0, done.stderr
    found = [each for each in yaml.load_all(done.stdout, OperatorLoader) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def test_the_committed_chart_is_what_the_generator_writes() -> None:
    """The chart is not edited by hand, so its rules cannot drift from the Python code that makes them."""
    written = texts()
    assert {name: (CHART / name).read_text(encoding="utf-8") for name in written} == written
    others = {path.relative_to(CHART).as_posix() for path in CHART.rglob("*") if path.is_file()} - set(written)
    shipped = sorted((SOURCE / "grafana" / "dashboards").glob("*.json"))
    assert others == {f"dashboards/{path.name}" for path in shipped}
    assert all((CHART / "dashboards" / path.name).read_bytes() == path.read_bytes() for path in shipped)


def test_helm_finds_no_fault_in_the_chart() -> None:
    """`helm lint --strict` accepts the chart with its default values."""
    done = _helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_default_is_what_the_export_writes() -> None:
    """With no values given, every object equals the one that `export-assets --format kubernetes` writes."""
    exported = {
        (each["kind"], each["metadata"]["name"]): each
        for name, each in manifests(SOURCE, Placement()).items()
        if name != "kustomization.yaml"
    }
    assert _rendered() == exported


def _values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return values


def _with_others(tree: Any, path: str = "") -> Any:
    """The tree of settings with another value for each."""
    if isinstance(tree, dict):
        return {name: _with_others(inner, f"{path}.{name}".lstrip(".")) for name, inner in tree.items()}
    if path in OTHER:
        return OTHER[path]
    if isinstance(tree, str):
        return "7m"
    return tree + 1 if isinstance(tree, int) else tree * 0.75


def test_other_values_give_what_the_command_renders(tmp_path: Path) -> None:
    """With every value changed, the chart's rules equal those of `rules render` with the same settings."""
    settings = _with_others(_values()["settings"])
    assert len(list(leaves(RuleSettings()))) > _count(settings) >= 35
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"settings": settings}), encoding="utf-8")
    found = [
        group
        for (kind, _), each in _rendered("--values", str(file)).items()
        if kind == "PrometheusRule"
        for group in each["spec"]["groups"]
    ]
    wanted = [
        group for text in render(_checked(settings, tmp_path)).values() for group in yaml.safe_load(text)["groups"]
    ]
    assert sorted(found, key=_name) == sorted(wanted, key=_name)
    default = [
        group for text in render(load_settings(SOURCE / SETTINGS)).values() for group in yaml.safe_load(text)["groups"]
    ]
    assert sorted(found, key=_name) != sorted(default, key=_name)


def _count(tree: Any) -> int:
    return sum(map(_count, tree.values())) if isinstance(tree, dict) else 1


def _checked(settings: dict[str, Any], folder: Path) -> RuleSettings:
    """The settings, read from a file as the command reads them."""
    file = folder / "slo.yml"
    shipped = yaml.safe_load((SOURCE / SETTINGS).read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump(_merged(shipped, settings)), encoding="utf-8")
    return load_settings(file)


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, dict):
        return above
    return {name: _merged(value, above[name]) if name in above else value for name, value in below.items()}


def _name(group: dict[str, Any]) -> str:
    return str(group["name"])


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("settings.evaluation_interval=2m", "evaluation_interval"),
        ("settings.llm.cache_hit_percent=140", "cache_hit_percent"),
        ("settings.lasting=soon", "lasting"),
    ],
)
def test_a_value_that_cannot_work_is_refused(option: str, problem: str) -> None:
    """A setting that is not the chart's, a share above 100 % and a duration without a unit are refused by name."""
    done = _helm("template", "release", str(CHART), "--set", option)
    assert done.returncode != 0
    assert problem in done.stderr


def test_labels_and_parts_are_values() -> None:
    """The operator's label reaches every object, and each part can be left out."""
    labelled = _rendered("--set", "labels.release=prometheus", "--set", "monitors.enabled=false")
    assert {each["metadata"]["labels"]["release"] for each in labelled.values()} == {"prometheus"}
    assert {kind for kind, _ in labelled} == {"PrometheusRule", "AlertmanagerConfig", "ConfigMap"}
    assert {kind for kind, _ in _rendered("--set", "dashboards.enabled=false,rules.enabled=false")} == {
        "AlertmanagerConfig",
        "PodMonitor",
        "ServiceMonitor",
    }
