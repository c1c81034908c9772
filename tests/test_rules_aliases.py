"""`taskpilot-obs rules render --aliases`: our series under the names that existing dashboards ask for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from taskpilot_obs._support.assets import SETTINGS, observability_dir
from taskpilot_obs.cli import rules
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.rules.aliases import load_aliases
from taskpilot_obs.rules.settings import load_settings

app = typer.Typer()
rules.register(app)
PAGE = Path(__file__).parent.parent / "docs" / "coming-from.md"


def render(tmp_path: Path, aliases: str, *more: str) -> tuple[int, str]:
    """Exit code and output of the command with this file of aliases."""
    source = tmp_path / "aliases.yml"
    source.write_text(aliases, encoding="utf-8")
    done = CliRunner().invoke(
        app, ["rules", "render", "--out", str(tmp_path / "rules"), "--aliases", str(source), *more]
    )
    return done.exit_code, done.output


def test_the_aliases_of_the_page_are_rules_that_prometheus_loads(tmp_path: Path) -> None:
    """The file that the page shows becomes a recording rule for each name, beside the other rules."""
    shown = re.search(r"```yaml\n# aliases.yml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert render(tmp_path, shown[1])[0] == 0
    written = tmp_path / "rules" / "aliases" / "recording.yml"
    (group,) = yaml.safe_load(written.read_text(encoding="utf-8"))["groups"]
    assert {rule["record"]: rule["expr"] for rule in group["rules"]} == yaml.safe_load(shown[1])
    assert (tmp_path / "rules" / "llm" / "recording.yml").is_file()
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool for the last step: run scripts/setup.sh")
    subprocess.run([promtool, "check", "rules", str(written)], check=True, capture_output=True)


def test_aliases_for_the_prometheus_operator(tmp_path: Path) -> None:
    """The other targets get aliases in their own form."""
    assert render(tmp_path, "old: sum(llm_requests_total)", "--target", "kubernetes")[0] == 0
    (rule,) = yaml.safe_load_all((tmp_path / "rules" / "aliases" / "recording.yml").read_text(encoding="utf-8"))
    assert (rule["kind"], rule["metadata"]["name"]) == ("PrometheusRule", "taskpilot-aliases-recording")


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ("llm_requests_total: sum(up)", "llm_requests_total is a name of this library"),
        ("agent_model:llm_requests_counted:increase5m: sum(up)", "is a name of this library"),
        ("llm.cost.total: sum(up)", "'llm.cost.total' is not a name of a metric"),
        ("old: 3", "give a PromQL expression as text"),
        ("old: ' '", "give a PromQL expression as text"),
        ("- old", "given no names"),
        ("", "given no names"),
    ],
)
def test_an_alias_that_cannot_be_is_refused(tmp_path: Path, aliases: str, message: str) -> None:
    """A name that is in use or invalid, and an expression that is not text, are refused with what to do."""
    assert render(tmp_path, aliases)[0] == 2
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load_aliases(tmp_path / "aliases.yml", load_settings(observability_dir() / SETTINGS))
