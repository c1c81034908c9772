"""`python -m scripts.dashboards build` writes the dashboards; `sample FILE` writes data to show them with."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from scripts.dashboards import (
    agents,
    audit_view,
    budget,
    experiments,
    golden_signals,
    lint,
    llm,
    safety,
    sample,
    telemetry,
)

COMMITTED = Path(__file__).resolve().parents[2] / "observability"
DASHBOARDS = tuple(module.DASHBOARD for module in (golden_signals, llm, agents, safety, budget, experiments, telemetry))


def build(out: Path) -> None:
    """Write every generated file below `out`, which stands for the folder `observability`."""
    for path, text in _files().items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text, encoding="utf-8")


def _files() -> dict[str, str]:
    folder = "grafana/dashboards"
    files = {
        f"{folder}/{dashboard.uid}.json": json.dumps(dashboard.to_json(), indent=2, sort_keys=True) + "\n"
        for dashboard in DASHBOARDS
    }
    return files | {
        f"{folder}/.lint": lint.lint_file(DASHBOARDS),
        "filebeat/fields.yml": audit_view.fields_yml(),
        "kibana/audit.ndjson": audit_view.saved_objects(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.dashboards", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="write the dashboards and the view of the audit log")
    building.add_argument("--out", type=Path, default=COMMITTED)
    sampling = commands.add_parser("sample", help="write sample data in the OpenMetrics format")
    sampling.add_argument("file", type=Path)
    sampling.add_argument("--end", type=int, required=True, help="Unix time of the last sample")
    sampling.add_argument("--hours", type=float, default=3)
    sampling.add_argument("--job", default=sample.JOB)
    sampling.add_argument("--pace", type=float, default=1, help="part of the usual traffic")
    given = parser.parse_args(arguments)
    if given.command == "build":
        build(given.out)
    else:
        sample.write(given.file, end=given.end, hours=given.hours, job=given.job, pace=given.pace)


if __name__ == "__main__":
    main()
