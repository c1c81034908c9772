"""docs/server.md names what the server has, and what it shows can be used as it stands."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import yaml
from _stored import sqlite_url, store_at

from taskpilot_obs.server import create_app
from taskpilot_obs.server.web import PAGES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of the page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_route_page_and_parameter_is_named(tmp_path: Path) -> None:
    """Each route and page stands in a table, with each of its parameters."""
    with store_at(sqlite_url(tmp_path)) as store:
        document = create_app(store=store).openapi()
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            line = next(line for line in PAGE.splitlines() if f"`{method.upper()} {path}`" in line)
            table = PAGE if "same filters" in line or "as `/v1/stats`" in line else line
            for parameter in told.get("parameters", ()):
                if parameter["in"] == "query":
                    assert parameter["name"] in table, (path, parameter["name"])
    for shown in PAGES:
        assert f"| `{shown.path}`" in PAGE


def test_manifests_can_be_read() -> None:
    """The Kubernetes manifest has probes at routes that exist, and the client's configuration is JSON."""
    (manifest,) = map(yaml.safe_load, blocks("yaml"))
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    (client,) = map(json.loads, blocks("json"))
    assert client["mcpServers"]["taskpilot"]["args"][0] == "mcp"


def test_extras_that_the_page_names_exist() -> None:
    """Each is in pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for found in re.findall(r"taskpilot-obs\[([a-z,]+)\]", PAGE) for name in found.split(",")}
    assert named <= set(extras)
