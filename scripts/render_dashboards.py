"""Pictures of dashboards for the documentation, drawn by Grafana's own components from a real Prometheus.

`PYTHONPATH=tests python -m scripts.render_dashboards` back-fills example data into a Prometheus on the loopback, asks
it every query of the dashboards and writes one PNG each to docs/images. `--state` chooses what the data shows. The
first run fetches Grafana's components from npm into `build/grafana`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _dashboards import ROOT, back_fill, dashboards, generate
from _servers import prometheus_server

from scripts.dashboards.sample import JOB
from scripts.grafana.pages import Source, height_px, page
from scripts.grafana.toolchain import shoot
from scripts.rule_history import back_fill_rules

UIDS = ("taskpilot-golden-signals", "taskpilot-llm", "taskpilot-agents")
"""The dashboards of the documentation."""
HOURS = 3
DAY_HOURS = 24
RULE_HOURS = HOURS + 7
"""The longest window on a picture is six hours."""
CALM_S = 3600
"""How long before the end of the example data all is well."""
STATES = {
    "outage": "example data: a provider fails",
    "healthy": "example data: all is well",
    "nothing": "a Prometheus without data",
    "two-services": "example data: one of two services",
    "rare": "example data: two runs an hour",
}


@contextmanager
def state(
    name: str, uids: tuple[str, ...], *, rule_hours: int = RULE_HOURS, past_hours: int = DAY_HOURS
) -> Iterator[Source]:
    """A real Prometheus that holds the data of a state, and the recorded past of the rules that the dashboards need.

    Args:
        name: which state, of `STATES`.
        uids: the dashboards.
        rule_hours: how far back rules are recorded.
        past_hours: how far the data goes back before the time range; below 24, figures over a day are small.
    """
    end = int(time.time())
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        if name != "nothing":
            for job in (JOB, "billing") if name == "two-services" else (JOB,):
                pace = 1 / 3000 if name == "rare" else 1
                _fill(Path(folder, f"{job}.om"), data, end, job, pace=pace, hours=HOURS + past_hours)
            back_fill_rules(Path(folder), uids, end=end, hours=rule_hours)
        with prometheus_server(data_dir=data) as url:
            yield Source(url, end - CALM_S if name == "healthy" else end, HOURS, JOB)


def _fill(sample: Path, data: Path, end: int, job: str, *, pace: float, hours: int) -> None:
    span = ["--end", str(end), "--hours", str(hours)]
    generate("sample", str(sample), *span, "--job", job, "--pace", str(pace))
    back_fill(sample, data)


def main() -> None:
    """Draw the pictures into a folder."""
    parser = argparse.ArgumentParser(prog="python -m scripts.render_dashboards", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--state", choices=STATES, default="outage")
    parser.add_argument("--all", action="store_true", help="every dashboard, not only those of the documentation")
    given = parser.parse_args()
    drawn = [one for one in dashboards() if given.all or one["uid"] in UIDS]
    given.out.mkdir(parents=True, exist_ok=True)
    with state(given.state, tuple(one["uid"] for one in drawn)) as source:
        for dashboard in drawn:
            shown = page(dashboard, source, f"{STATES[given.state]}, {HOURS} hours, UTC")
            shoot(shown, given.out / f"{dashboard['uid']}.png", height=height_px(dashboard))


if __name__ == "__main__":
    main()
