"""A dashboard with the answers of a real Prometheus to each of its queries, as the page draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from _dashboards import EVERYTHING, ask, substituted

MAX_POINTS = 180
SCRAPE_S = 30
"""How far apart the samples of the example data are."""


class Source(NamedTuple):
    """Where the figures come from, until when, and what the reader chose at the top of the dashboard."""

    url: str
    end: int
    hours: int = 3
    job: str = ".+"
    agent: str = ".+"

    @property
    def step(self) -> int:
        """Seconds between two points of a line."""
        return max(SCRAPE_S, self.hours * 3600 // MAX_POINTS)

    def ask(self, expr: str, *, instant: bool) -> list[dict[str, Any]]:
        """The series of a query, as Grafana sends it; an instant answer is a series of one point."""
        variables = {**EVERYTHING, "job": self.job, "agent": self.agent}
        interval = f"{max(4 * SCRAPE_S, self.step + SCRAPE_S)}s"
        query = substituted(expr, whole_range=f"{self.hours}h", interval=interval, variables=variables)
        if instant:
            found = ask(self.url, "query", query=query, time=str(self.end))["result"]
            return [{"metric": one["metric"], "values": [one["value"]]} for one in found]
        start = str(self.end - self.hours * 3600)
        answer = ask(self.url, "query_range", query=query, start=start, end=str(self.end), step=str(self.step))
        return list(answer["result"])


def page(dashboard: Mapping[str, Any], source: Source, caption: str) -> dict[str, Any]:
    """What the page draws: panels with answers, marks, the time range in milliseconds."""
    panels = [_answered(panel, source) for panel in dashboard["panels"]]
    return {
        "dashboard": {"uid": dashboard["uid"], "title": dashboard["title"], "panels": panels},
        "caption": caption,
        "from": (source.end - source.hours * 3600) * 1000,
        "to": source.end * 1000,
        "marks": _marks(dashboard, source),
    }


def height_px(dashboard: Mapping[str, Any]) -> int:
    """How tall the picture is."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    return 60 + 38 * int(bottom)


def opened(dashboard: Mapping[str, Any]) -> dict[str, Any]:
    """The dashboard with its closed rows opened, each below the other panels."""
    panels = [{**panel, "panels": []} for panel in dashboard["panels"]]
    return {
        **dashboard,
        "panels": [*panels, *(inner for panel in dashboard["panels"] for inner in panel.get("panels", []))],
    }


def _answered(panel: Mapping[str, Any], source: Source) -> dict[str, Any]:
    answers = [
        {
            "refId": target["refId"],
            "legend": target["legendFormat"],
            "result": source.ask(target["expr"], instant=target["instant"]),
        }
        for target in panel.get("targets", [])
    ]
    return {**panel, "title": _title(panel, source), "answers": answers, "step": source.step * 1000}


def _title(panel: Mapping[str, Any], source: Source) -> str:
    """A title with what the reader chose in place of its variables."""
    return str(panel["title"]).replace("$agent", "All" if source.agent == EVERYTHING["agent"] else source.agent)


def _marks(dashboard: Mapping[str, Any], source: Source) -> list[dict[str, Any]]:
    """When a version was deployed and when an alert began to fire: the first point of each series."""
    return [
        {"at": float(found["values"][0][0]), "colour": mark["iconColor"]}
        for mark in dashboard["annotations"]["list"]
        if not mark["useValueForTime"]
        for found in source.ask(mark["expr"], instant=False)
        if found["values"][0][0] > source.end - source.hours * 3600
    ]
