"""The rules for other servers than Prometheus: VictoriaMetrics, Mimir, the Prometheus operator."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml
from _servers import free_port, require_binary

from taskpilot_obs.rules.folders import Target, render, write
from taskpilot_obs.rules.promql import Dialect, RuleScope
from taskpilot_obs.rules.settings import RuleSettings

MINUTE = 60


@pytest.fixture(scope="module")
def victoria() -> Iterator[str]:
    """A real VictoriaMetrics; yields its base URL."""
    binary = require_binary("victoria-metrics")
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="victoria-") as home:
        command = [binary, f"-httpListenAddr={address}", f"-storageDataPath={home}", "-retentionPeriod=10y"]
        command += ["-search.latencyOffset=0s", "-search.disableCache", "-loggerLevel=ERROR"]
        process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _ready(process, f"http://{address}")
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail("VictoriaMetrics did not become ready")


NOW = int(time.time()) - MINUTE


def _imported(url: str, series: dict[str, dict[int, float]]) -> None:
    """Write samples: by series, minutes before now and values."""
    lines = [
        f"{name} {value} {1000 * (NOW - MINUTE * age)}"
        for name, samples in series.items()
        for age, value in samples.items()
    ]
    with urlopen(Request(f"{url}/api/v1/import/prometheus", data="\n".join(lines).encode()), timeout=10):
        pass
    with urlopen(f"{url}/internal/force_flush", timeout=10):
        pass


def _asked(url: str, expression: str) -> dict[str, float]:
    """The value of an expression by job."""
    with urlopen(f"{url}/api/v1/query?{urlencode({'query': expression, 'time': NOW})}", timeout=10) as answer:
        result = json.loads(answer.read())["data"]["result"]
    return {entry["metric"]["job"]: float(entry["value"][1]) for entry in result}


def _minutes(first: int, last: int, value: float, *, but: range = range(0)) -> dict[int, float]:
    """A sample a minute, from so many minutes ago to so many, but for a gap."""
    return {age: value for age in range(first, last - 1, -1) if age not in but}


def _series(job: str, counter: dict[int, float], seen: dict[int, float], began: int) -> dict[str, dict[int, float]]:
    labels = f'job="{job}",instance="a"'
    start = {age: float(NOW - MINUTE * began) for age in seen}
    return {
        f"policy_violations_total{{{labels}}}": counter,
        f"taskpilot_obs_start_time_seconds{{{labels}}}": start,
    }


def test_victoriametrics_counts_a_born_event_once(victoria: str) -> None:
    """In a real VictoriaMetrics: one for a first event, none for an adopted process, each event across a gap once."""
    whole = _minutes(240, 0, 1)
    _imported(
        victoria,
        _series("born", _minutes(20, 0, 1), whole, 300)
        | _series("three", _minutes(20, 11, 1) | _minutes(10, 0, 3), whole, 300)
        | _series("adopted", _minutes(20, 0, 7), _minutes(20, 0, 1), 300)
        | _series("young", _minutes(20, 0, 4), _minutes(20, 0, 1), 21)
        | _series("old", _minutes(240, 0, 9), whole, 300)
        | _series("gap", _minutes(240, 0, 9, but=range(30, 90)), _minutes(240, 0, 1, but=range(30, 90)), 300)
        | _series("in-gap", _minutes(240, 90, 9) | _minutes(29, 0, 11), _minutes(240, 0, 1, but=range(30, 90)), 300)
        | _series("late", _minutes(10, 0, 1), _minutes(20, 0, 1), 300),
    )
    scope = RuleScope("", ("job",), Dialect.VICTORIAMETRICS)
    counted = _asked(victoria, scope.increase("policy_violations_total", "1h"))
    expected = {"born": 1, "three": 3, "adopted": 0, "young": 4, "old": 0, "gap": 0, "in-gap": 2, "late": 1}
    assert {job: counted.get(job, 0) for job in expected} == expected


def test_vmalert_takes_the_rendered_rules(tmp_path: Path) -> None:
    """`vmalert -dryRun` accepts every file of the VictoriaMetrics variant, expressions and templates included."""
    write(RuleSettings(), tmp_path, Target.VICTORIAMETRICS)
    rules = [f"-rule={path}" for path in sorted(tmp_path.rglob("*.yml"))]
    command = [require_binary("vmalert"), "-dryRun", *rules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "increase_prometheus(" in (tmp_path / "safety" / "recording.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", [Target.MIMIR, Target.KUBERNETES])
def test_other_targets_hold_the_same_groups(target: Target) -> None:
    """What mimirtool and the operator load holds the groups of the Prometheus files, in their own envelope."""
    plain, packed = render(RuleSettings()), render(RuleSettings(), target)
    assert set(plain) == set(packed)
    names = set()
    for name, text in packed.items():
        loaded = yaml.safe_load(text)
        groups = loaded["spec"]["groups"] if target is Target.KUBERNETES else loaded["groups"]
        assert groups == yaml.safe_load(plain[name])["groups"]
        names.add(loaded["metadata"]["name"] if target is Target.KUBERNETES else loaded["namespace"])
    assert len(names) == len(packed)


def test_the_kubernetes_objects_are_valid() -> None:
    """Each PrometheusRule passes the schema of the operator's CRD."""
    folder = os.environ.get("TASKPILOT_OBS_SCHEMAS")
    if not folder:
        pytest.skip("TASKPILOT_OBS_SCHEMAS names no folder of schemas")
    jsonschema = pytest.importorskip("jsonschema")
    (path,) = [each for each in Path(folder).rglob("*rometheus*ule*") if each.suffix in {".yaml", ".yml", ".json"}]
    # The CRD's patterns are Go's, which allows a flag behind the anchor.
    crd = yaml.safe_load(path.read_text(encoding="utf-8").replace("^(?i)", "(?i)^"))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] if "spec" in crd else crd
    for text in render(RuleSettings(), Target.KUBERNETES).values():
        jsonschema.validate(yaml.safe_load(text), schema)
