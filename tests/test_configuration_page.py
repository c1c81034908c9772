"""docs/configuration.md: every option, with what a reader needs, and nothing of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _scripts import load
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from taskpilot_obs.safety import AllowTools, DenyWords, Rule
from taskpilot_obs.settings import ENV_PREFIX, NOT_FROM_ENVIRONMENT, Settings

ROOT = Path(__file__).parent.parent
API_KEY = "sk-a-key-that-must-not-be-printed"


WRITER = load("write_configuration")


def test_the_page_is_current() -> None:
    """`make docs` would not change the page."""
    assert WRITER.PAGE.read_text(encoding="utf-8") == WRITER.page(), "run `make docs`"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_option_is_described(name: str) -> None:
    """Each option has a description, and an example that `Settings` takes."""
    assert len(Settings.model_fields[name].description or "") > 20
    names = {
        "AllowTools": AllowTools,
        "CollectorRegistry": CollectorRegistry,
        "DenyWords": DenyWords,
        "find_tickets": list,
        "MeterProvider": MeterProvider,
        "Rule": Rule,
        "TracerProvider": TracerProvider,
    }
    assert name in WRITER.EXAMPLES, "add an example to scripts/write_configuration.py"
    Settings.resolve({name: eval(WRITER.EXAMPLES[name], names)}, {})  # noqa: S307  our own example


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - NOT_FROM_ENVIRONMENT))
def test_the_environment_variables_exist(name: str) -> None:
    """Each variable that the page names is one that is read."""
    plain = {"enabled", "prometheus", "tracing", "capture_content"}
    value = "false" if name in plain else str(WRITER.EXAMPLES[name]).strip('"[]').replace("_", "").replace('"', "")
    assert f"`{ENV_PREFIX}{name.upper()}`" in WRITER.page()
    assert name in Settings.resolve({}, {ENV_PREFIX + name.upper(): value}).model_fields_set


@pytest.mark.parametrize("module", ["taskpilot_obs.settings", "taskpilot_obs.doctor", "taskpilot_obs.demo.choose"])
def test_help_shows_no_environment(module: str) -> None:
    """`pydoc` of a module prints no value of an environment variable, such as an API key."""
    done = subprocess.run(
        [sys.executable, "-m", "pydoc", module],
        env={**os.environ, "OPENAI_API_KEY": API_KEY},
        capture_output=True,
        text=True,
        check=True,
    )
    assert API_KEY not in done.stdout
    assert len(done.stdout) > 500


def test_no_default_argument_holds_the_environment() -> None:
    """No function of the library has `os.environ` as a default argument, which `help()` would print."""
    sources = [*ROOT.glob("taskpilot_obs/**/*.py"), *ROOT.glob("integrations/*/taskpilot_obs_*/**/*.py")]
    found = [str(path) for path in sources if "= os.environ," in (text := path.read_text()) or "= os.environ)" in text]
    assert found == []
