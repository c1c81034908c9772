"""The servers that other tests lean on."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

import pytest
from _servers import alertmanager_server, prometheus_server

RULES = """
groups:
  - name: probe
    rules:
      - record: probe:one
        expr: vector(1)
"""
ALERTMANAGER = """
route: {receiver: nobody}
receivers: [{name: nobody}]
"""


def test_prometheus_loads_the_rules_it_is_given(tmp_path: Path) -> None:
    """A server started with a folder of rules has them loaded, and is gone after the block."""
    (tmp_path / "recording.yml").write_text(RULES, encoding="utf-8")
    (tmp_path / "tests.yml").write_text("tests: []", encoding="utf-8")
    with prometheus_server(rules_dir=tmp_path) as url:
        with urlopen(f"{url}/api/v1/rules", timeout=10) as answer:
            groups = json.load(answer)["data"]["groups"]
        assert [group["name"] for group in groups] == ["probe"]
    with pytest.raises(OSError):
        urlopen(f"{url}/-/ready", timeout=1)


def test_alertmanager_starts_from_text() -> None:
    """An Alertmanager configured by text answers on loopback."""
    with alertmanager_server(ALERTMANAGER) as url, urlopen(f"{url}/api/v2/status", timeout=10) as answer:
        assert answer.status == 200


def test_a_broken_configuration_fails_with_the_words_of_the_server() -> None:
    """A server that does not start fails the test and says why."""
    with pytest.raises(pytest.fail.Exception, match="did not become ready"), prometheus_server("nonsense: 1\n"):
        pass
