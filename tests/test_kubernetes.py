"""The manifests for Kubernetes: valid by the operator's own definitions, and of the same content as the files."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from _schemas import OperatorLoader, schema_file
from _servers import require_binary

from taskpilot_obs._support import assets
from taskpilot_obs._support.kubernetes import SCRAPED, Placement, export_manifests, manifests
from taskpilot_obs.exceptions import ConfigurationError

SOURCE = assets.observability_dir()
PLACEMENT = Placement("observability", (("release", "prometheus"),))
OBJECTS = manifests(SOURCE, PLACEMENT)
DEFINED = ["PrometheusRule", "PodMonitor", "ServiceMonitor", "AlertmanagerConfig"]
MIB = 1 << 20


def _closed(schema: Any) -> Any:
    """The schema, with fields that it does not name refused: the server would drop them without a word."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


def _schema(kind: str, version: str) -> Any:
    text = schema_file(f"{kind.lower()}s.yaml").read_text(encoding="utf-8")
    definition = yaml.load(text, OperatorLoader)  # noqa: S506  a safe loader
    (found,) = [each for each in definition["spec"]["versions"] if each["name"] == version]
    schema = _closed(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # the server's own, of which a definition says nothing
    return schema


def _of(kind: str) -> list[dict[str, Any]]:
    return [each for each in OBJECTS.values() if each["kind"] == kind]


@pytest.mark.parametrize("kind", DEFINED)
def test_the_operator_accepts_the_objects(kind: str) -> None:
    """Every object is valid by the definition of its kind, which knows all of its fields."""
    found = _of(kind)
    validator = jsonschema.Draft7Validator(_schema(kind, found[0]["apiVersion"].partition("/")[2]))
    for each in found:
        assert [error.message for error in validator.iter_errors(each)] == []
    wrong = {**found[0], "spec": {**found[0]["spec"], "no_such_field": 1}}
    assert not validator.is_valid(wrong)


def test_the_rules_are_the_shipped_ones() -> None:
    """No group of rules is missing, added or changed."""
    shipped = [
        group
        for file in sorted((SOURCE / assets.RULES).glob("*/[ar]*.yml"))
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    ]
    exported = [group for rule in _of("PrometheusRule") for group in rule["spec"]["groups"]]
    key = lambda group: group["name"]  # noqa: E731  a key
    assert sorted(exported, key=key) == sorted(shipped, key=key)
    assert len(shipped) >= 12


def test_the_dashboards_are_the_shipped_ones() -> None:
    """Each dashboard is a ConfigMap with the sidecar's label, small enough for the server."""
    files = sorted((SOURCE / "grafana" / "dashboards").glob("*.json"))
    maps = _of("ConfigMap")
    assert {name: text for each in maps for name, text in each["data"].items()} == {
        file.name: file.read_text(encoding="utf-8") for file in files
    }
    assert {each["metadata"]["labels"]["grafana_dashboard"] for each in maps} == {"1"}
    assert all(len(json.dumps(each)) < MIB for each in maps)


def test_routes_and_inhibitions_are_the_shipped_ones() -> None:
    """As many routes, inhibitions and receivers as in alertmanager.yml, each matcher in three parts."""
    shipped = yaml.safe_load((SOURCE / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8"))
    (config,) = _of("AlertmanagerConfig")
    spec = config["spec"]
    assert len(spec["inhibitRules"]) == len(shipped["inhibit_rules"])
    assert spec["route"]["groupBy"] == shipped["route"]["group_by"]
    assert {each["name"] for each in spec["receivers"]} == {each["name"] for each in shipped["receivers"]}
    joined = [
        f'{part["name"]}{part["matchType"]}"{part["value"]}"'
        for rule in spec["inhibitRules"]
        for part in (*rule["sourceMatch"], *rule["targetMatch"])
    ]
    assert joined == [
        matcher for rule in shipped["inhibit_rules"] for matcher in (*rule["source_matchers"], *rule["target_matchers"])
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kubernetes") / "manifests"
    export_manifests(folder, PLACEMENT)
    return folder


def test_kustomize_builds_what_was_exported(exported: Path) -> None:
    """`kubectl kustomize` finds every object, in the namespace and with the labels that were asked for."""
    tool = require_binary("kubectl", str(Path(sys.executable).with_name("kubectl")))
    done = subprocess.run([tool, "kustomize", exported], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = list(yaml.load_all(done.stdout, OperatorLoader))
    assert len(built) == len(OBJECTS) - 1
    assert {each["metadata"]["namespace"] for each in built} == {"observability"}
    assert all(each["metadata"]["labels"]["release"] == "prometheus" for each in built)


def test_an_exported_folder_is_kept_unless_told_otherwise(exported: Path) -> None:
    """A second export changes nothing, one over an edited file is refused, and `overwrite` replaces it."""
    export_manifests(exported, PLACEMENT)
    edited = exported / "podmonitor.yaml"
    edited.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"1 files in .* differ"):
        export_manifests(exported, PLACEMENT)
    export_manifests(exported, PLACEMENT, overwrite=True)
    assert yaml.safe_load(edited.read_text())["spec"]["selector"]["matchLabels"] == SCRAPED


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (Placement("Not A Name"), "namespace: given 'Not A Name'"),
        (Placement("a", (("release", "x y"),)), "label: given release=x y"),
    ],
)
def test_names_that_kubernetes_refuses_are_refused(placement: Placement, message: str, tmp_path: Path) -> None:
    """The export names what is wrong and writes nothing."""
    with pytest.raises(ConfigurationError, match=message):
        export_manifests(tmp_path / "out", placement)
    assert not (tmp_path / "out").exists()


def _modes(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in (folder, *folder.rglob("*")):
        yield path, stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("form", ["files", "kubernetes"])
def test_servers_can_read_what_a_careful_user_exports(form: str, tmp_path: Path) -> None:
    """Under umask 077 every file and folder is readable by the users that Prometheus and Grafana run as."""
    target = tmp_path / "new" / "obs"
    program = "import os; os.umask(0o077)\nfrom taskpilot_obs.cli import main\nmain()"
    command = [sys.executable, "-c", program, "export-assets", str(target), "--format", form]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path, mode in _modes(tmp_path / "new"):
        assert mode & 0o444 == 0o444, path
        assert path.is_file() or mode & 0o111 == 0o111, path


def test_the_command_prints_how_to_load_the_manifests(tmp_path: Path) -> None:
    """`export-assets --format kubernetes` ends with the command that applies the folder."""
    command = [sys.executable, "-c", "from taskpilot_obs.cli import main; main()", "export-assets", str(tmp_path / "k")]
    options = ["--format", "kubernetes", "--namespace", "obs", "--label", "release=prometheus"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"kubectl apply --server-side -k {tmp_path / 'k'}")
    refused = subprocess.run([*command, "--format", "kubernetes", "--label", "x"], capture_output=True, check=False)
    assert refused.returncode == 2
