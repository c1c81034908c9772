"""The dashboards: drawn from code, held to the contract's names and units, and asked of a real Prometheus."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from _dashboards import (
    EVERYTHING,
    FOLDER,
    ROOT,
    RULES,
    Target,
    dashboards,
    generate,
    nodes,
    panels,
    recording_rules,
    selectors,
    substituted,
    targets,
)

from taskpilot_obs.semconv import METRICS, SERVER_METRICS, START_TIME, Kind

UIDS = {
    "taskpilot-golden-signals",
    "taskpilot-llm",
    "taskpilot-agents",
    "taskpilot-safety",
    "taskpilot-budget",
    "taskpilot-experiments",
    "taskpilot-telemetry",
}
TARGET_LABELS = {"job", "instance"}
FOREIGN = {
    "up": TARGET_LABELS,
    "scrape_duration_seconds": TARGET_LABELS,
    "scrape_samples_scraped": TARGET_LABELS,
    "ALERTS": {"alertname", "alertstate", "severity", *TARGET_LABELS},
}
"""Series that Prometheus makes by itself."""

ALL = dashboards()
TARGETS = targets()
PANELS = [(dashboard, panel) for dashboard in ALL for panel in panels(dashboard)]


def _contract() -> dict[str, set[str]]:
    """Every series name of the contract with its labels."""
    names: dict[str, set[str]] = {}
    for metric in (*METRICS, *SERVER_METRICS):
        labels = {*metric.labels, *TARGET_LABELS}
        if metric.kind is Kind.HISTOGRAM:
            names |= {f"{metric.name}_bucket": labels | {"le"}}
            names |= {f"{metric.name}{suffix}": labels for suffix in ("_sum", "_count")}
        else:
            names[metric.name] = labels
    return names


RULE_NAMES = set(recording_rules())


# Structure


def test_the_committed_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    """Dashboards are not edited by hand: the committed bytes are the generator's, and no file is left over."""
    generate("build", "--out", str(tmp_path))
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: (ROOT / "observability" / path).read_bytes() for path in written} == written
    assert {path.name for path in written if "dashboards" in path.parts} == {path.name for path in FOLDER.iterdir()}


def test_the_dashboards_have_the_uids_that_links_and_runbooks_use() -> None:
    """Each file is named after its uid, and the uids are those that others link to."""
    assert {path.stem for path in FOLDER.glob("*.json")} == UIDS
    assert {dashboard["uid"] for dashboard in ALL} == UIDS
    assert all(dashboard["id"] is None and "__inputs" not in dashboard for dashboard in ALL)


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard["uid"])
def test_panels_have_their_own_ids_and_places(dashboard: dict[str, Any]) -> None:
    """No two panels share an id or a cell of the grid, and none leaves the grid."""
    everything = [*dashboard["panels"], *(inner for panel in dashboard["panels"] for inner in panel.get("panels", []))]
    ids = Counter(panel["id"] for panel in everything)
    assert set(ids.values()) == {1}
    open_cells = Counter(cell for panel in dashboard["panels"] for cell in _cells(panel))
    assert set(open_cells.values()) == {1}
    for row in dashboard["panels"]:
        cells = Counter(cell for panel in row.get("panels", []) for cell in _cells(panel))
        assert set(cells.values()) <= {1}
    assert max(x for panel in everything for x, _ in _cells(panel)) < 24


def _cells(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
    position = panel["gridPos"]
    for x in range(position["x"], position["x"] + position["w"]):
        for y in range(position["y"], position["y"] + position["h"]):
            yield x, y


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard["uid"])
def test_every_variable_is_used_and_every_used_variable_exists(dashboard: dict[str, Any]) -> None:
    """A filter that changes nothing misleads, and one that is missing breaks the query."""
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    text = " ".join(target.expr for target in TARGETS if target.dashboard == dashboard["uid"])
    used = set(re.findall(r"\$([a-z]+)", text)) | {"datasource"}
    assert used == declared


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard["uid"])
def test_titles_within_a_row_are_unique(dashboard: dict[str, Any]) -> None:
    """Panels are told apart by their titles; the linter's exceptions name them so."""
    titles = Counter(panel["title"] for panel in panels(dashboard))
    assert not [title for title, count in titles.items() if count > 1]


@pytest.mark.parametrize(("dashboard", "panel"), PANELS, ids=lambda part: part.get("uid") or part["title"])
def test_a_panel_without_data_says_so_in_words(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    """Absence of evidence is a sentence, never a figure."""
    words = panel["fieldConfig"]["defaults"]["noValue"]
    assert re.fullmatch(r"[A-Z][A-Za-z24 ,():-]+", words)
    assert " " in words


_THRESHOLD_COLOURS = {"green", "orange", "red"}


def _neutral(mapping: dict[str, Any]) -> bool:
    found = mapping["options"]
    return bool(found.get("match") == "null+nan" and found["result"]["color"] not in _THRESHOLD_COLOURS)


@pytest.mark.parametrize(("dashboard", "panel"), PANELS, ids=lambda part: part.get("uid") or part["title"])
def test_no_data_is_neutral_and_a_count_without_thresholds_is_too(
    dashboard: dict[str, Any], panel: dict[str, Any]
) -> None:
    """A missing value never has the colour of a threshold, and a plain count has none at all."""
    defaults = panel["fieldConfig"]["defaults"]
    assert any(_neutral(mapping) for mapping in defaults["mappings"])
    if panel["type"] == "stat" and len(defaults["thresholds"]["steps"]) == 1:
        assert defaults["color"] == {"fixedColor": "text", "mode": "fixed"}


@pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS if panel["type"] == "table"], ids=lambda panel: panel["title"]
)
def test_empty_cells_of_tables_are_empty(panel: dict[str, Any]) -> None:
    """The sentence for "no data" fills no cell, and an empty cell has no colour."""
    first, *others = panel["fieldConfig"]["overrides"]
    assert first["matcher"] == {"id": "byRegexp", "options": "/.*/"}
    assert {"id": "noValue", "value": ""} in first["properties"]
    for override in others:
        properties = {item["id"]: item["value"] for item in override["properties"]}
        if "thresholds" in properties:
            assert properties["mappings"][0]["options"]["result"]["color"] == "transparent"


@pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS if panel["type"] == "timeseries"], ids=lambda panel: panel["title"]
)
def test_legends_begin_with_the_largest_last_value(panel: dict[str, Any]) -> None:
    """What matters now stands on top, and where names are open-ended the legend has the height of the panel."""
    legend = panel["options"]["legend"]
    assert (legend["sortBy"], legend["sortDesc"], legend["calcs"][0]) == ("Last *", True, "lastNotNull")
    named_by_labels = any("{{" in target["legendFormat"] for target in panel["targets"])
    assert not named_by_labels or legend["placement"] == "right"


def test_a_status_has_the_same_colour_on_every_panel() -> None:
    """Where a line is named by its status alone, success is green and error is red."""
    by_status = [panel for _, panel in PANELS if any(t["legendFormat"] == "{{status}}" for t in panel["targets"])]
    assert len(by_status) >= 3
    for panel in by_status:
        fixed = {
            override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
            for override in panel["fieldConfig"]["overrides"]
        }
        assert (fixed["success"], fixed["error"]) == ("green", "red")


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard["uid"])
def test_a_dashboard_shows_one_service_unless_more_are_chosen(dashboard: dict[str, Any]) -> None:
    """The first job is chosen at the start, because an average over unrelated services means nothing."""
    job = _variable(dashboard, "job")
    assert job["includeAll"] is False
    assert job["current"] == {}


def test_links_lead_to_dashboards_and_keep_what_was_chosen() -> None:
    """Each link names a dashboard that exists and takes job, instance, data source and time range along."""
    links = [link for _, panel in PANELS for link in panel.get("links", [])]
    links += [
        link
        for _, panel in PANELS
        for override in panel["fieldConfig"]["overrides"]
        for item in override["properties"]
        if item["id"] == "links"
        for link in item["value"]
    ]
    assert len(links) >= 7
    for link in links:
        uid, _, query = link["url"].removeprefix("/d/").partition("?")
        assert uid in UIDS
        for part in ("${job:queryparam}", "${instance:queryparam}", "${datasource:queryparam}", "${__url_time_range}"):
            assert part in query


def test_a_figure_over_a_day_says_so_in_its_title() -> None:
    """A window of its own stands in the title, because the row around it shows the time range."""
    for _, panel in PANELS:
        if any("[24h]" in target["expr"] for target in panel["targets"]):
            assert "last 24 hours" in panel["title"]


def test_marks_on_the_time_axis_are_deployments_process_starts_and_alerts() -> None:
    """Every dashboard shows what changed and what fired."""
    for dashboard in ALL:
        assert [mark["name"] for mark in dashboard["annotations"]["list"]][:3] == [
            "Deployments",
            "Process starts",
            "Alerts",
        ]


def test_an_agent_has_a_row_of_its_own_that_costs_nothing_while_closed() -> None:
    """The row is repeated for each chosen agent, and closed, so that 200 agents do not ask 1,000 queries at once."""
    agents = next(dashboard for dashboard in ALL if dashboard["uid"] == "taskpilot-agents")
    (row,) = [panel for panel in agents["panels"] if panel.get("repeat")]
    assert row["repeat"] == "agent"
    assert row["collapsed"]
    assert "heatmap" in {panel["type"] for panel in row["panels"]}


def test_exemplars_are_asked_for_where_a_duration_is_shown() -> None:
    """Each dashboard that shows durations of runs or calls offers the way to their traces."""
    with_exemplars = {
        dashboard["uid"] for dashboard, panel in PANELS for target in panel["targets"] if target["exemplar"]
    }
    assert with_exemplars >= {"taskpilot-golden-signals", "taskpilot-llm", "taskpilot-agents"}


GOLDEN_STEPS = {
    "Success rate": [(None, "red"), (90, "orange"), (95, "green")],
    "p95 latency": [(None, "green"), (2, "orange"), (5, "red")],
    "Cost per successful task (all workflows)": [(None, "green"), (0.10, "orange"), (0.50, "red")],
    "User-confirmed correctness (all workflows)": [(None, "red"), (70, "orange"), (90, "green")],
    "Policy violations per 100 runs": [(None, "green"), (1, "orange"), (2, "red")],
}


@pytest.mark.parametrize("title", GOLDEN_STEPS)
def test_the_five_signals_change_colour_at_the_agreed_thresholds(title: str) -> None:
    """The dashboard, the alerts and golden_signals() call the same figure healthy."""
    panel = _panel("taskpilot-golden-signals", title)
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in steps] == GOLDEN_STEPS[title]


def _panel(uid: str, title: str) -> dict[str, Any]:
    return next(panel for dashboard, panel in PANELS if dashboard["uid"] == uid and panel["title"] == title)


# The checks of Grafana's dashboard-linter


LINT = yaml.safe_load((FOLDER / ".lint").read_text(encoding="utf-8"))["exclusions"]
UNITS = {"none", "short", "percent", "percentunit", "currencyUSD", "s", "cpm"}
"""Those of the linter's list that we use; all are units that Grafana knows."""
AS_WRITTEN = {name: f"${name}" for name in EVERYTHING}
_used_exclusions: set[tuple[str, str, str]] = set()


def _excluded(rule: str, dashboard: str, panel: str) -> bool:
    entries = LINT.get(rule, {}).get("entries", [])
    if any(entry == {"dashboard": dashboard, "panel": panel} for entry in entries):
        _used_exclusions.add((rule, dashboard, panel))
        return True
    return False


def _variable(dashboard: dict[str, Any], name: str) -> dict[str, Any]:
    return next(variable for variable in dashboard["templating"]["list"] if variable["name"] == name)


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard["uid"])
def test_template_datasource_rule(dashboard: dict[str, Any]) -> None:
    """The data source is a variable of the usual name and label."""
    (source,) = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "datasource"]
    assert (source["name"], source["label"], source["query"]) == ("datasource", "Data source", "prometheus")


@pytest.mark.parametrize("name", ["job", "instance"])
@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard["uid"])
def test_template_job_and_instance_rules(dashboard: dict[str, Any], name: str) -> None:
    """Every dashboard can be narrowed to jobs and instances, several at once."""
    variable = _variable(dashboard, name)
    assert variable["type"] == "query"
    assert variable["datasource"]["uid"] == "${datasource}"
    assert variable["label"] == name.capitalize()
    assert variable["multi"]
    assert variable["allValue"] == ".+"


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard["uid"])
def test_template_label_promql_and_on_time_change_reload_rules(dashboard: dict[str, Any]) -> None:
    """Variables ask for the values of a label of an existing family, again at each change of the time range."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found, variable
        (selector,) = selectors(substituted(found.group(1)))
        assert found.group(2) in _contract()[selector.name or ""]
        assert variable["refresh"] == 2


@pytest.mark.parametrize(("dashboard", "panel"), PANELS, ids=lambda part: part.get("uid") or part["title"])
def test_panel_datasource_title_description_units_and_no_targets_rules(
    dashboard: dict[str, Any], panel: dict[str, Any]
) -> None:
    """Every panel has the variable data source, a title, a description, a unit and at least one query."""
    assert panel["datasource"]["uid"] == "${datasource}"
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    for override in panel["fieldConfig"]["overrides"]:
        assert {item["value"] for item in override["properties"] if item["id"] == "unit"} <= UNITS


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard["uid"])
def test_uneditable_dashboard_rule(dashboard: dict[str, Any]) -> None:
    """What the code generates is not edited in Grafana, where the next provisioning would undo it."""
    assert dashboard["editable"] is False


def test_target_logql_rules() -> None:
    """No panel asks a log store, so there is no LogQL that could be wrong."""
    kinds = {target["datasource"]["type"] for _, panel in PANELS for target in panel["targets"]}
    assert kinds == {"prometheus"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.dashboard}-{target.panel}-{target.number}")
def test_target_promql_rule(target: Target) -> None:
    """Every query parses once Grafana has replaced its macros, and none holds a macro that Grafana does not know."""
    promql_parser.parse(substituted(target.expr))


def _panel_targets() -> Iterator[tuple[str, str, str]]:
    for dashboard, panel in PANELS:
        for target in panel["targets"]:
            yield dashboard["title"], panel["title"], target["expr"]


def test_target_rate_interval_rule() -> None:
    """Rates follow the zoom; only figures that stand for a whole time range have a window of their own."""
    for dashboard, panel, expr in _panel_targets():
        windows = set(re.findall(r"\[(\$\w+|\w+)\]", expr))
        if windows - {"$__rate_interval"}:
            assert windows <= {"$__range", "24h"}, (dashboard, panel)
            assert _excluded("target-rate-interval-rule", dashboard, panel), (dashboard, panel)


def test_figures_over_the_whole_range_are_instant() -> None:
    """A window as long as the time range belongs to a single figure, never to a line."""
    for target in TARGETS:
        assert target.instant or "$__range" not in target.expr, target


@pytest.mark.parametrize("label", ["job", "instance"])
def test_target_job_and_instance_rules(label: str) -> None:
    """Every selector is filtered by job and instance; rules and alerts cover all replicas, as `.lint` declares."""
    for dashboard, panel, expr in _panel_targets():
        for selector in selectors(substituted(expr, variables=AS_WRITTEN)):
            matchers = {(matcher.name, str(matcher.op), matcher.value) for matcher in selector.matchers.matchers}
            if (label, "MatchOp.Re", f"${label}") not in matchers:
                assert ":" in (selector.name or "") or selector.name == "ALERTS", (dashboard, panel, selector.name)
                assert _excluded(f"target-{label}-rule", dashboard, panel), (dashboard, panel, selector.name)


def test_target_counter_agg_rule() -> None:
    """A counter is never shown raw; its bare value serves only to count the event that it was born with."""
    for dashboard, panel, expr in _panel_targets():
        tree = promql_parser.parse(substituted(expr))
        rated = {
            id_of
            for node in nodes(tree)
            if isinstance(node, promql_parser.Call) and node.func.name in {"rate", "increase", "irate"}
            for inner in nodes(node)
            if isinstance(inner, promql_parser.VectorSelector)
            for id_of in [str(inner)]
        }
        bare = [
            node
            for node in nodes(tree)
            if isinstance(node, promql_parser.VectorSelector)
            and (node.name or "").endswith("_total")
            and str(node) not in rated
        ]
        born = "min_over_time(" in expr
        assert born or not bare, (dashboard, panel)
        if born:
            assert _excluded("target-counter-agg-rule", dashboard, panel), (dashboard, panel)


def test_every_exception_is_needed_and_has_a_reason() -> None:
    """`.lint` holds no exception that a check above does not meet."""
    test_target_rate_interval_rule()
    test_target_counter_agg_rule()
    for label in ("job", "instance"):
        test_target_job_and_instance_rules(label)
    listed = {
        (rule, entry["dashboard"], entry["panel"]) for rule, excluded in LINT.items() for entry in excluded["entries"]
    }
    assert listed == _used_exclusions
    assert all(len(excluded["reason"]) > 30 for excluded in LINT.values())


# Names


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.dashboard}-{target.panel}-{target.number}")
def test_every_metric_and_label_is_of_the_contract(target: Target) -> None:
    """A query names no series and no label that the library, a recording rule or Prometheus does not make."""
    known = _contract() | FOREIGN
    for selector in selectors(substituted(target.expr)):
        assert selector.name in known or selector.name in RULE_NAMES, selector.name
        if selector.name in known:
            assert {matcher.name for matcher in selector.matchers.matchers} <= known[selector.name], target
    _check_grouping(promql_parser.parse(substituted(target.expr)), known)


def _check_grouping(tree: Any, known: dict[str, set[str]]) -> None:
    """The labels of each `by (…)` are labels of what is summed."""
    for node in nodes(tree):
        if not isinstance(node, promql_parser.AggregateExpr) or node.modifier is None:
            continue
        names = [inner.name for inner in nodes(node.expr) if isinstance(inner, promql_parser.VectorSelector)]
        made = {"team"} if any(_is_label_replace(inner) for inner in nodes(node.expr)) else set()
        for name in names:
            # The start of a process only says which series to leave out; its labels do not reach the sum.
            if name in known and name != START_TIME.name:
                assert set(node.modifier.labels) <= known[name] | made, (name, node.modifier.labels)


def _is_label_replace(node: Any) -> bool:
    return isinstance(node, promql_parser.Call) and node.func.name == "label_replace"


def test_every_family_is_on_a_dashboard() -> None:
    """Every metric is shown somewhere."""
    shown = {selector.name for target in TARGETS for selector in selectors(substituted(target.expr))}
    missing = {
        metric.name for metric in METRICS if not {metric.name, f"{metric.name}_bucket", f"{metric.name}_count"} & shown
    }
    assert missing == set()


def test_the_alerts_of_the_sample_are_alerts_of_the_rules(tmp_path: Path) -> None:
    """The pictures in the documentation name no alert that could never fire."""
    generate("sample", str(tmp_path / "sample.om"), "--end", "1790000000", "--hours", "0.1")
    lines = (tmp_path / "sample.om").read_text(encoding="utf-8").splitlines()
    sampled = {
        tuple(re.findall(r'(?:alertname|severity)="(\w+)"', line)) for line in lines if line.startswith("ALERTS{")
    }
    assert sampled
    assert sampled <= _alerts()


def _alerts() -> set[tuple[str, str]]:
    groups = [
        group
        for path in RULES.glob("*/alerts.yml")
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    return {(rule["alert"], rule["labels"]["severity"]) for group in groups for rule in group["rules"]}
