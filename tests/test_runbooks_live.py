"""Runbook queries asked of a real Prometheus in which everything that they look at was born a minute ago."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import promql_parser
import pytest
from _dashboards import RULES, ask, back_fill, selectors
from _servers import prometheus_server

from taskpilot_obs import semconv
from taskpilot_obs.rules.folders import folders
from taskpilot_obs.rules.settings import RuleSettings

BORN_S = 60
EVENTS = 5
ABSENT = "job:taskpilot_obs_processes:count"
"""What is not recorded when TaskpilotRecordingsStopped fires."""
_LABELS = {metric.name: metric.labels for metric in semconv.METRICS}
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


class Query(NamedTuple):
    """One query of a runbook, with the words in capitals that a reader replaces by labels of the alert."""

    alert: str
    number: int
    expr: str


def queries() -> list[Query]:
    """Every query of every alert's entry, in order."""
    found = []
    for folder in folders(RuleSettings()):
        text = (RULES / folder.name / "runbook.md").read_text(encoding="utf-8")
        for alert in folder.alerts:
            section = text.partition(f"\n## {alert.name}\n")[2].partition("\n## ")[0]
            blocks = re.findall(r"```promql\n(.*?)```", section, re.DOTALL)
            found += [Query(alert.name, number, block.strip()) for number, block in enumerate(blocks)]
    return found


def _born(expr: str) -> Iterator[str]:
    """The series that a query looks at, one for each of its selectors."""
    for selector in selectors(expr):
        chosen = {each.name: _one_of(each) for each in selector.matchers.matchers}
        name = selector.name or chosen.pop("__name__")
        own = dict.fromkeys(_LABELS.get(_SUFFIX.sub("", name), ()), "x") | {"job": "JOB", "instance": "shop-1:9464"}
        for bound in ("0.5", "+Inf") if name.endswith("_bucket") else ("",):
            given = own | chosen | ({"le": bound} if bound else {})
            labels = ",".join(f'{label}="{value}"' for label, value in sorted(given.items()))
            yield f"{name}{{{labels}}}"


def _one_of(matcher: promql_parser.Matcher) -> str:
    """A value that a matcher lets through."""
    if matcher.op == promql_parser.MatchOp.Equal:
        return matcher.value
    if matcher.op == promql_parser.MatchOp.Re:
        return re.sub(r"\(([^|)]*)[^)]*\)|\|.*", r"\1", matcher.value)
    return "x"


def _value(name: str, now: int) -> float:
    """What a series of this name holds when alerts fire."""
    if "ratio" in name:
        return 0.5
    if name.startswith("up{"):
        return 0
    if "timestamp_seconds" in name:
        return now - BORN_S if "evaluation" in name else now + 3_600
    return 100 if "_limit_" in name else EVENTS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Holds the series of all queries, which have existed for a minute and had their value from the start."""
    folder = tmp_path_factory.mktemp("runbooks")
    now = int(time.time())
    series = sorted({name for query in queries() for name in _born(query.expr)})
    samples = [
        f"{name} {_value(name, now)} {at}"
        for name in series
        if not name.startswith(ABSENT)
        for at in range(now - BORN_S, now + 1, 15)
    ]
    (folder / "born.om").write_text("\n".join([*samples, "# EOF\n"]), encoding="utf-8")
    back_fill(folder / "born.om", folder / "data")
    with prometheus_server(data_dir=folder / "data") as url:
        yield url


@pytest.mark.parametrize("query", queries(), ids=lambda query: f"{query.alert}-{query.number}")
def test_a_query_shows_what_was_born_a_minute_ago(server: str, query: Query) -> None:
    """Each query of each runbook shows something on series that are a minute old."""
    result = ask(server, "query", query=query.expr)["result"]
    if query.expr.startswith(ABSENT):
        assert result == []
        return
    values = [float(sample["value"][1]) for sample in result]
    assert [value for value in values if value > 0 or "up{" in query.expr], query.expr
