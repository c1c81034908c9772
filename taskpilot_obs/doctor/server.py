"""Checks of a Prometheus server: whether it scrapes this library, has its rules, and agrees on the time."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from taskpilot_obs._support.assets import RULES, observability_dir
from taskpilot_obs.doctor.finding import Finding, ok, problem, warning
from taskpilot_obs.exceptions import SourceError
from taskpilot_obs.golden_signals.http import get
from taskpilot_obs.semconv import INFO, Label

if TYPE_CHECKING:
    from taskpilot_obs.golden_signals.http import Access

SKEW_S: Final = 5.0
_GROUP: Final = re.compile(r"^ *- name: (\S+)", re.MULTILINE)
_SHOWN: Final = 5


def check_server(url: str, access: Access | None) -> list[Finding]:
    """Check its rules, its clock and what it scrapes."""
    api = f"{url.rstrip('/')}/api/v1"
    try:
        return [*_rules(_ask(f"{api}/rules", access)), *_clock(api, access), *_scraped(api, access)]
    except SourceError as error:
        return [problem("prometheus", str(error), "is it up, and is this its base URL, with its path prefix?")]


def _ask(url: str, access: Access | None) -> Mapping[str, object]:
    text, _ = get(url, access, accept="application/json")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{url.partition('?')[0]} is not a Prometheus server: it does not answer JSON") from error
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict):
        raise SourceError(f"{url.partition('?')[0]} is not a Prometheus server: its answer has no data")
    return data


def _query(api: str, expression: str, access: Access | None) -> object:
    return _ask(f"{api}/query?{urlencode({'query': expression})}", access).get("result")


def _mappings(given: object) -> Iterator[Mapping[str, object]]:
    yield from (entry for entry in (given if isinstance(given, list) else ()) if isinstance(entry, dict))


# --- rules -----------------------------------------------------------------------------------------------------------


def shipped_groups() -> set[str]:
    """Names of the groups of rules that the library ships."""
    files = (observability_dir() / RULES).glob("*/[ar]*.yml")
    return {name for file in files for name in _GROUP.findall(file.read_text(encoding="utf-8"))}


def _rules(answer: Mapping[str, object]) -> Iterator[Finding]:
    groups = list(_mappings(answer.get("groups")))
    shipped = shipped_groups()
    missing = sorted(shipped - {str(group.get("name")) for group in groups})
    if missing:
        all_of_them = len(missing) == len(shipped)
        what = (
            "none of the shipped rules is loaded"
            if all_of_them
            else f"groups not loaded: {', '.join(missing[:_SHOWN])}"
        )
        remedy = "`taskpilot-obs export-assets DIR`, name them under rule_files in prometheus.yml, and reload"
        yield problem("rules", what, remedy) if all_of_them else warning("rules", what, remedy)
    else:
        yield ok("rules", f"all {len(shipped)} shipped groups are loaded")
    failing = [
        f"{rule.get('name')}: {rule.get('lastError')}"
        for group in groups
        for rule in _mappings(group.get("rules"))
        if group.get("name") in shipped and rule.get("health") == "err"
    ]
    if failing:
        yield problem(
            "rules", f"{len(failing)} rules fail; {failing[0]}", "render them again: `taskpilot-obs rules render`"
        )


# --- time, and what it scrapes ---------------------------------------------------------------------------------------


def _clock(api: str, access: Access | None) -> Iterator[Finding]:
    before = time.time()
    result = _query(api, "time()", access)
    here = (before + time.time()) / 2
    try:
        there = float(str(result[1])) if isinstance(result, list) else float("nan")
    except (ValueError, IndexError) as error:
        raise SourceError(f"{api} does not report its time") from error
    skew = there - here
    if abs(skew) > SKEW_S:
        text = f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's"
        yield problem("clock", text, "synchronise both clocks (NTP), because rates and alerts depend on them")
    else:
        yield ok("clock", f"within {SKEW_S:g} s of this host's")


def _scraped(api: str, access: Access | None) -> Iterator[Finding]:
    found = list(_mappings(_query(api, f"count by ({Label.VERSION}) ({INFO.name})", access)))
    versions = sorted(str(labels.get(Label.VERSION)) for each in found for labels in _mappings([each.get("metric")]))
    if not versions:
        yield problem("scrapes", "it scrapes no process of this library", "add the service to scrape_configs")
    elif len(versions) > 1:
        text = f"it scrapes several versions of this library: {', '.join(versions)}"
        yield warning("versions", text, "bring all replicas to the same version")
    else:
        yield ok("scrapes", f"it scrapes processes with version {versions[0]}")
