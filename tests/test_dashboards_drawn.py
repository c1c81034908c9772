"""The dashboards as Grafana's own components draw them from a real Prometheus, in a headless Chromium."""

from __future__ import annotations

import colorsys
import re
from typing import Any

import pytest
from _dashboards import ask, dashboards, panels, recording_rules
from _servers import require_binary

from scripts.grafana.pages import opened, page
from scripts.grafana.toolchain import look
from scripts.render_dashboards import state

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]  # the first run fetches the components

ALL = dashboards()
UIDS = tuple(each["uid"] for each in ALL)
GREY = 0.3
"""Saturation up to which a colour is neither green nor orange nor red."""


def _drawn(name: str) -> list[dict[str, Any]]:
    """What each panel shows in a state; rows that are closed at first are open."""
    for program in ("chromium", "promtool"):
        require_binary(program)
    with state(name, UIDS, rule_hours=1, past_hours=4) as source:
        pages = [page(opened(dashboard), source, name) for dashboard in ALL]
        for share in filter(re.compile(r":success_ratio_(rate|recent)").search, recording_rules()):
            above = f"max_over_time({share}[1h]) > 1"
            assert ask(source.url, "query", query=above, time=str(source.end))["result"] == [], share
    return look(pages)


@pytest.fixture(scope="module")
def outage() -> list[dict[str, Any]]:
    return _drawn("outage")


@pytest.fixture(scope="module")
def nothing() -> list[dict[str, Any]]:
    return _drawn("nothing")


_SENTENCES = {
    (each["uid"], panel["title"]): panel["fieldConfig"]["defaults"]["noValue"] for each in ALL for panel in panels(each)
}


def _sentence(panel: dict[str, Any]) -> str:
    """What a drawn panel says without data."""
    return str(_SENTENCES[panel["uid"], panel["title"]])


def _where(panel: dict[str, Any]) -> str:
    return f"{panel['uid']} / {panel['title']}: {panel['error'] or panel['text']}"


@pytest.mark.parametrize("name", ["outage", "nothing"])
def test_every_panel_is_drawn_without_an_error(name: str, request: pytest.FixtureRequest) -> None:
    """No panel is missing from the page, and none raises; heatmaps are a plug-in that cannot be drawn here."""
    found: list[dict[str, Any]] = request.getfixturevalue(name)
    assert len(found) == sum(1 for dashboard in ALL for _ in panels(dashboard))
    assert [_where(panel) for panel in found if panel["error"]] == []
    assert {panel["title"] for panel in found if not panel["drawn"]} == {"Duration of runs"}


def test_every_panel_shows_figures_where_there_is_data(outage: list[dict[str, Any]]) -> None:
    """With every family present, each panel shows a digit or a line, and not its sentence for "no data"."""
    empty = [
        _where(panel)
        for panel in outage
        if panel["drawn"] and (_sentence(panel) in panel["text"] or not re.search(r"\d", panel["text"]))
    ]
    # Versions and alerts are words.
    assert [one for one in empty if "Firing alerts" not in one] == []


def test_no_data_is_a_sentence_on_grey(nothing: list[dict[str, Any]]) -> None:
    """Asked of a Prometheus without data, each panel says what is missing, and no colour on it means good or bad."""
    drawn = [panel for panel in nothing if panel["drawn"]]
    assert [_where(panel) for panel in drawn if _sentence(panel) not in panel["text"].replace("\n", " ")] == []
    coloured = {_where(panel): strong for panel in drawn if (strong := list(filter(_is_strong, panel["colours"])))}
    assert coloured == {}


def test_a_failing_service_is_not_grey(outage: list[dict[str, Any]]) -> None:
    """The check above can fail: in an outage the five signals have the colours of their thresholds."""
    signals = [
        panel
        for panel in outage
        if panel["uid"] == "taskpilot-golden-signals" and panel["title"] in {"Success rate", "p95 latency"}
    ]
    assert len(signals) == 2
    assert all(any(map(_is_strong, panel["colours"])) for panel in signals)


def _is_strong(colour: str) -> bool:
    red, green, blue, *alpha = (float(part) for part in re.findall(r"[\d.]+", colour))
    _, saturation, _ = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    return saturation > GREY and (not alpha or alpha[0] > 0)
