"""The whole way: agents under load, scraped by a real Prometheus with the shipped rules, to a webhook of Alertmanager.

One service goes through three stages: healthy, an outage of its provider, recovery. `_stack.py` says in what the
configuration differs from the shipped files. What is asked about a stage is asked for the moment at which it ended.
"""

from __future__ import annotations

import math
import re
import time
from bisect import bisect_left
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml
from _dashboards import RULES, Target, ask, dashboards, nodes, selectors, substituted, targets
from _servers import ALERTMANAGER_BINARIES, PROMETHEUS_BINARIES, require_binary
from _stack import GONE_S, HOUR_S, JOB, RUNS_AN_HOUR, SILENT_AGENT, Stack, differences, running_stack
from _stages import WAIT_S, Stage, alerts, ended, groups, until

from taskpilot_obs import golden_signals
from taskpilot_obs.rules import causes
from taskpilot_obs.semconv import METRICS, WORKFLOW_BUCKETS, Kind, Metric

ROUNDS, PAUSE_S = 12, 0.6
OUTAGE_RUNS, RECOVERY_RUNS = 200, 5_000
RANGE_S, INTERVAL, STEP_S = 120, "20s", 5
"""What Grafana would ask for: the last minutes, rates over `INTERVAL`, a point every `STEP_S`."""
TEAM_WAITS_S = 4.0
"""Longer than Alertmanager holds a warning back before it tells the team (`_stack.FAST_ALERTMANAGER`)."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All parts, running, and the application scraped once before it does anything."""
    for names in (PROMETHEUS_BINARIES, ALERTMANAGER_BINARIES, ("promtool",)):
        require_binary(*names)
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        until(lambda: ask(running.prometheus, "query", query="taskpilot_obs_info")["result"], "the first scrape")
        yield running


@pytest.fixture(scope="module")
def healthy(stack: Stack) -> Stage:
    """Requests for some seconds; now and then everything that happens but rarely."""
    return ended(stack, stack.application.ask("healthy", rounds=ROUNDS, pause_s=PAUSE_S))


class Outage(NamedTuple):
    """What was seen while the provider was down."""

    stage: Stage
    since: int
    """How many deliveries there had been before."""
    alerts: list[dict[str, Any]]
    """What Alertmanager held active."""


@pytest.fixture(scope="module")
def outage(healthy: Stage) -> Outage:
    """The provider is down, all at once; until the on-call engineer is paged, and the team would have."""
    stack = healthy.stack
    since = len(stack.webhook.deliveries)
    told = stack.application.ask("outage", runs=OUTAGE_RUNS)
    for critical, lesser in CRITICAL.items():
        stack.webhook.wait_for(critical, "firing", since=since, seconds=WAIT_S)
        until(lambda name=lesser: alerts(stack, name), lesser)  # type: ignore[misc]  # a lambda's default
    until(lambda: alerts(stack, FOLLOWS), FOLLOWS)
    time.sleep(TEAM_WAITS_S)
    return Outage(
        ended(stack, told),
        since,
        [alert for pair in CRITICAL.items() for name in (*pair, FOLLOWS) for alert in alerts(stack, name)],
    )


@pytest.fixture(scope="module")
def recovery(outage: Outage) -> Stage:
    """The provider is back, and requests succeed again; until the on-call engineer is notified."""
    stack = outage.stage.stack
    since = len(stack.webhook.deliveries)
    told = stack.application.ask("recover", runs=RECOVERY_RUNS)
    for name in CRITICAL:
        stack.webhook.wait_for(name, "resolved", since=since, seconds=WAIT_S)
        until(lambda name=name: not alerts(stack, name), f"the end of {name}")  # type: ignore[misc]  # as above
    return ended(stack, told)


CRITICAL = {"TaskpilotLLMProviderFailing": "TaskpilotLLMErrorRateHigh"}
"""The alert that an outage of the provider fires, with the lesser one of the same condition."""
FOLLOWS = "TaskpilotSuccessRateCritical"
"""What follows from the outage, and is silenced by its cause."""


# --- what runs is what is shipped ------------------------------------------------------------------------------------


def test_the_rules_are_the_shipped_ones(stack: Stack) -> None:
    """Against the shipped files only the pace differs: how often is evaluated, and how long a condition must last."""
    # TaskpilotBudgetAlmostGone has no `for`, and says within its expression how long the budget must be used.
    assert differences(stack.rules) == {"interval", "for", "min_over_time(budget"}


def test_every_rule_is_healthy(healthy: Stage) -> None:
    """Every shipped rule is loaded and evaluates without an error."""
    shipped = [rule for path in RULES.glob("*/[ar]*.yml") for rule in _rules(path.read_text(encoding="utf-8"))]
    loaded = [rule for group in groups(healthy.stack) for rule in group["rules"]]
    assert len(loaded) == len(shipped)
    assert [f"{rule['name']}: {rule.get('lastError')}" for rule in loaded if rule["health"] != "ok"] == []


def _rules(text: str) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(text)["groups"]:
        yield from group["rules"]


# --- families, labels, panels ----------------------------------------------------------------------------------------


def _is_there(metric: Metric) -> bool:
    """Whether the library can have this family: those of budgets come with its budgets."""
    return find_spec("taskpilot_obs.budgets") is not None or not metric.name.startswith("llm_budget_")


FAMILIES = [metric for metric in METRICS if _is_there(metric)]


def _sample_name(metric: Metric) -> str:
    return f"{metric.name}_count" if metric.kind is Kind.HISTOGRAM else metric.name


@pytest.mark.parametrize("metric", FAMILIES, ids=lambda metric: metric.name)
def test_every_family_is_scraped(healthy: Stage, metric: Metric) -> None:
    """Each family of the contract arrives with its type and exactly its labels, and something was counted in it."""
    found = healthy.query(f'{_sample_name(metric)}{{job="{JOB}"}}')
    assert {frozenset(series["metric"]) for series in found} == {
        frozenset({"__name__", "job", "instance", *metric.labels})
    }
    if metric.kind is not Kind.GAUGE:
        assert max(float(series["value"][1]) for series in found) > 0
    declared = ask(healthy.stack.prometheus, "targets/metadata", metric=metric.name.removesuffix("_total"))
    assert {(entry["type"], entry["help"]) for entry in declared} == {(str(metric.kind), metric.help)}


def test_every_query_of_every_panel_returns_data(healthy: Stage) -> None:
    """No panel and no mark of a shipped dashboard is empty or NaN, and every legend finds the labels that it names."""
    empty = [str(target) for target in targets() if not _is_elsewhere(target.expr) and not _has_data(healthy, target)]
    assert not empty, "\n".join(empty)


def _is_elsewhere(expr: str) -> bool:
    """Whether it asks of servers that the stack does not scrape: Prometheus, Alertmanager, `taskpilot-obs serve`."""
    return re.search(r"\b(prometheus|alertmanager|taskpilot_obs_server)_", expr) is not None


def _has_data(stage: Stage, target: Target) -> bool:
    expr = substituted(target.expr, whole_range="1h", interval=INTERVAL)
    if target.instant:
        found = [series for series in stage.query(expr) if not math.isnan(float(series["value"][1]))]
    else:
        span = {"start": f"{stage.at - RANGE_S}", "end": f"{stage.at}", "step": f"{STEP_S}"}
        answer = ask(stage.stack.prometheus, "query_range", query=expr, **span)["result"]
        found = [series for series in answer if any(not math.isnan(float(value)) for _, value in series["values"])]
    named = set(re.findall(r"{{(\w+)}}", target.legend))
    return any(named <= set(series["metric"]) for series in found)


def test_every_variable_of_every_dashboard_offers_something(healthy: Stage) -> None:
    """The lists of jobs, instances, workflows, agents, models and providers are filled from the scraped series."""
    asked = {
        variable["query"]["query"]
        for dashboard in dashboards()
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    }
    assert asked
    for query in asked:
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()  # type: ignore[union-attr]  # fails if not
        offered = healthy.query(f"group by ({label}) ({substituted(selector)})")
        assert any(series["metric"].get(label) for series in offered), query


def _expressions() -> dict[str, str]:
    """Every expression of a shipped rule or panel, by where it stands."""
    found = {str(target): substituted(target.expr) for target in targets()}
    for path in RULES.glob("*/[ar]*.yml"):
        for rule in _rules(path.read_text(encoding="utf-8")):
            found[f"{path.parent.name} / {rule.get('alert') or rule['record']}"] = rule["expr"]
    return found


def test_every_series_and_label_that_is_named_exists(healthy: Stage) -> None:
    """Each series of a rule or panel is there, and what is selected by, grouped by or matched on is a label of it."""
    labels = _labels_of_series(healthy)
    missing = [
        f"{where}: {problem}" for where, expr in _expressions().items() for problem in _unknown_labels(expr, labels)
    ]
    assert not missing, "\n".join(missing)


WHILE_IT_LASTS: dict[str, tuple[str, ...]] = {
    causes.LLM.high: ("provider",),
    causes.POLICIES.high: (),
    causes.BUDGETS.high: ("budget", "period"),
    **{cause.explains: () for cause in (causes.LLM, causes.POLICIES, causes.BUDGETS)},
}
"""What is recorded only while something is wrong, and its labels beside that of the job."""


def _labels_of_series(stage: Stage) -> dict[str, set[str]]:
    """Names of the labels of every series of the last minutes, by the name of the series."""
    found = {name: {"__name__", "job", *labels} for name, labels in WHILE_IT_LASTS.items()}
    span = {"start": f"{stage.at - 300}", "end": f"{stage.at}"}
    for series in ask(stage.stack.prometheus, "series", **{"match[]": '{__name__!=""}'}, **span):
        found.setdefault(series["__name__"], set()).update(series)
    return found


def _unknown_labels(expr: str, labels: dict[str, set[str]]) -> Iterator[str]:
    if _is_elsewhere(expr):
        return
    for selector in selectors(expr):
        used = {matcher.name for matcher in selector.matchers.matchers}
        if selector.name not in labels:
            yield f"there is no series {selector.name}"
        elif used - labels[selector.name]:
            yield f"{selector.name} has no label {', '.join(sorted(used - labels[selector.name]))}"
    for node in nodes(promql_parser.parse(expr)):
        unknown = _grouped_by(node) - _labels_beneath(node, labels)
        if unknown:
            yield f"nothing has the label {', '.join(sorted(unknown))} in {node}"


def _grouped_by(node: Any) -> set[str]:
    """The labels of `by`, `on` and `group_left` of this very node."""
    modifier = getattr(node, "modifier", None)
    matching = getattr(modifier, "matching", None)
    return {
        *(getattr(modifier, "labels", None) or ()),
        *(getattr(matching, "labels", None) or ()),
        *(getattr(modifier, "group_labels", None) or ()),
    } - NEVER_THERE


NEVER_THERE = {"slice", "born"}
"""Labels that an expression makes up to keep series apart."""


def _labels_beneath(node: Any, labels: dict[str, set[str]]) -> set[str]:
    found = set()
    for part in nodes(node):
        if isinstance(part, promql_parser.VectorSelector):
            found |= labels.get(part.name or "", set())
        if isinstance(part, promql_parser.Call) and part.func.name == "label_replace":
            found.add(part.args[1].val)
    return found


# --- exemplars -------------------------------------------------------------------------------------------------------

SPAN_NAMES = {
    "workflow_duration_seconds": "invoke_workflow",
    "agent_run_duration_seconds": "invoke_agent",
    "agent_tool_call_duration_seconds": "execute_tool",
    "llm_request_duration_seconds": "chat",
    "llm_time_to_first_token_seconds": "chat",
}
"""Histograms with exemplars, and the operation that their spans stand for."""


@pytest.mark.parametrize("family", SPAN_NAMES)
def test_exemplars_lead_to_real_spans(healthy: Stage, family: str) -> None:
    """Every exemplar that Prometheus keeps names a span that was exported, and one of what the histogram measures."""
    spans = healthy.stack.application.ask("spans")
    kept = ask(
        healthy.stack.prometheus,
        "query_exemplars",
        query=f"{family}_bucket",
        start=f"{healthy.at - 300}",
        end=f"{healthy.at}",
    )
    found = [exemplar["labels"] for series in kept for exemplar in series["exemplars"]]
    assert found
    for labels in found:
        name = spans[f"{labels['trace_id']}:{labels['span_id']}"]
        assert name.startswith(SPAN_NAMES[family]), name


# --- golden signals --------------------------------------------------------------------------------------------------

COUNTED = 'sum(workflow_runs_total{status=~"success|error|timeout|blocked"})'
SUCCEEDED = 'sum(workflow_runs_total{status="success"})'
BY_HAND = {
    "success_rate": f"100 * {SUCCEEDED} / {COUNTED}",
    "p95_latency_ms": "1000 * histogram_quantile(0.95, sum by (le) (workflow_duration_seconds_bucket))",
    "cost_per_successful_task_usd": f"sum(llm_cost_usd_total) / {SUCCEEDED}",
    "user_confirmed_correctness_percent": (
        '100 * (sum(llm_feedback_total{verdict="correct"}) + sum(llm_feedback_revisions_total{verdict="correct"})'
        ' - sum(llm_feedback_revisions_total{verdict="incorrect"})) / sum(llm_feedback_total)'
    ),
    "policy_violation_rate_percent": f"100 * sum(policy_violations_total) / {COUNTED}",
}


def test_counts_are_those_of_the_application(healthy: Stage, recovery: Stage) -> None:
    """What was scraped is, run for run and verdict for verdict, what the application counted by itself."""
    for stage in (healthy, recovery):
        runs = stage.query(f'workflow_runs_total{{job="{JOB}"}} > 0')
        counted = {(run["metric"]["workflow"], run["metric"]["status"]): float(run["value"][1]) for run in runs}
        assert counted == {(workflow, status): count for workflow, status, count in stage.told["ended"]}
        correct, incorrect = stage.told["verdicts"]
        verdicts = {"correct": correct, "incorrect": incorrect}
        assert _verdicts(stage) == verdicts


def _verdicts(stage: Stage) -> dict[str, float]:
    """The latest verdicts: the first ones, and what became of those that were revised."""
    found = {}
    for verdict, opposite in (("correct", "incorrect"), ("incorrect", "correct")):
        found[verdict] = stage.figure(
            f'sum(llm_feedback_total{{verdict="{verdict}"}}) + sum(llm_feedback_revisions_total{{verdict="{verdict}"}})'
            f' - sum(llm_feedback_revisions_total{{verdict="{opposite}"}})'
        )
    return found


def test_signals_of_the_function_are_those_of_the_counters(recovery: Stage) -> None:
    """In the process, through the function's own way to Prometheus, and in PromQL by hand: the same five figures."""
    here = recovery.stack.application.ask("signals", window=None)
    fleet = golden_signals(prometheus=recovery.stack.prometheus).model_dump(mode="json")
    for name, expression in BY_HAND.items():
        assert here[name] == pytest.approx(recovery.figure(expression), rel=1e-12), name
        assert fleet[name] == pytest.approx(here[name], rel=1e-12), name
    assert fleet["runs"] == here["runs"]
    assert here["runs"]["counted"] == sum(
        count for _, status, count in recovery.told["ended"] if status in {"success", "error", "timeout", "blocked"}
    )


def test_signals_of_a_window_agree(recovery: Stage) -> None:
    """Over five minutes, the function and Prometheus agree within 2 %, for `increase` extrapolates."""
    here, fleet = recovery.here, recovery.fleet
    for name in set(BY_HAND) - {"p95_latency_ms"}:
        assert fleet[name] == pytest.approx(here[name], rel=0.02), name
    assert fleet["runs"]["counted"] == pytest.approx(here["runs"]["counted"], rel=0.02)


def test_the_p95_of_a_window_agrees(healthy: Stage, outage: Outage, recovery: Stage) -> None:
    """At the end of each stage the two are at most one bucket of the histogram apart, in each workflow and in all."""
    for stage in (healthy, outage.stage, recovery):
        here, fleet = ({"": side, **side["workflows"]} for side in (stage.here, stage.fleet))
        assert set(here) == set(fleet)
        for workflow, signals in here.items():
            apart = _bucket(signals["p95_latency_ms"]) - _bucket(fleet[workflow]["p95_latency_ms"])
            assert abs(apart) <= 1, (workflow, stage.at)
    assert _bucket(healthy.here["p95_latency_ms"]) > 0


def _bucket(milliseconds: float) -> int:
    return bisect_left(WORKFLOW_BUCKETS, milliseconds / 1000)


def test_a_window_reaches_back_beyond_the_process(healthy: Stage, recovery: Stage) -> None:
    """Over an hour the fleet includes the deployment that is gone, whose runs no process remembers."""
    fleet = golden_signals("1h", prometheus=recovery.stack.prometheus)
    here = recovery.stack.application.ask("signals", window="1h")
    gone = RUNS_AN_HOUR * (HOUR_S - GONE_S - (recovery.at - healthy.stack.began)) / HOUR_S
    assert fleet.runs.counted == pytest.approx(here["runs"]["counted"] + gone, rel=0.02)


# --- alerts ----------------------------------------------------------------------------------------------------------


def test_a_healthy_service_fires_no_alert_of_its_signals(healthy: Stage) -> None:
    """Ordinary failures of an ordinary service page no one."""
    signals = {name for pair in CRITICAL.items() for name in pair}
    assert [delivery.name for delivery in healthy.delivered if delivery.name in signals] == []


@pytest.mark.parametrize(
    "name",
    [
        "TaskpilotAgentSilent",
        "TaskpilotCriticalPolicyViolation",
        "TaskpilotExperimentStopped",
        "TaskpilotExporterErrors",
        "TaskpilotGuardrailBypassed",
        "TaskpilotInternalErrors",
        "TaskpilotLabelOverflow",
        "TaskpilotRecordsDropped",
        "TaskpilotTokenLimitViolations",
    ],
)
def test_single_events_are_told(healthy: Stage, name: str) -> None:
    """What must not happen once, and what did not happen at all today, arrives at the receiver of its severity."""
    delivery = healthy.stack.webhook.wait_for(name, "firing")
    assert delivery.labels["job"] == JOB
    assert delivery.receiver == {"critical": "on-call", "warning": "team"}[delivery.labels["severity"]]
    for label, value in NOT_SILENCED.get(name, {}).items():
        assert delivery.labels[label] == value


NOT_SILENCED = {
    "TaskpilotAgentSilent": {"agent": SILENT_AGENT},
    "TaskpilotExporterErrors": {"exporter": "exporter_2"},
    "TaskpilotInternalErrors": {"where": "usage"},
}
"""What is delivered. The exporter that loses records, and the guardrail that fails, silence theirs."""


def test_an_outage_reaches_the_engineer_on_call(outage: Outage) -> None:
    """The right alert arrives, with the figure, the provider and the links that help."""
    delivery = outage.stage.stack.webhook.wait_for("TaskpilotLLMProviderFailing", "firing", since=outage.since)
    assert delivery.receiver == "on-call"
    assert delivery.labels == {
        "alertname": "TaskpilotLLMProviderFailing",
        "explains": "failed_runs",
        "job": JOB,
        "provider": "openai",
        "severity": "critical",
        "signal": "llm_error_rate",
    }
    (stated,) = re.findall(r"^LLM provider is failing: ([0-9.]+)% of calls", delivery.annotations["summary"])
    assert float(stated) > 5
    assert delivery.annotations["summary"] == f"LLM provider is failing: {stated}% of calls at openai for {JOB}"
    assert delivery.annotations["description"].startswith(
        f"{stated}% of the calls to openai for {JOB} ended as error or timeout, over the shortest of 5m, 1h, 6h, 1d"
    )


def test_an_outage_is_one_page(outage: Outage) -> None:
    """Of all that fires, the cause alone calls the engineer: the success rate is critical, and silenced by it."""
    called = {
        each.name
        for each in outage.stage.delivered[outage.since :]
        if each.receiver == "on-call" and each.status == "firing"
    }
    assert called & {*CRITICAL, FOLLOWS, "TaskpilotSuccessBudgetBurnFast", "TaskpilotTaskCostCritical"} == set(CRITICAL)
    (follows,) = (alert for alert in outage.alerts if alert["labels"]["alertname"] == FOLLOWS)
    assert follows["status"]["state"] == "suppressed"


def test_links_of_what_was_delivered_lead_somewhere(outage: Outage) -> None:
    """Every runbook that was linked has that heading, and every dashboard that was linked exists."""
    uids = {dashboard["uid"] for dashboard in dashboards()}
    for delivery in outage.stage.delivered:
        folder, _, anchor = delivery.annotations["runbook_url"].rpartition("/rules/")[2].partition("/runbook.md#")
        headings = re.findall(r"^#+ (.+)$", (RULES / folder / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {heading.lower() for heading in headings}
        uid, _, chosen = delivery.annotations["dashboard_url"].rpartition("/")[2].partition("?var-job=")
        assert uid in uids
        assert chosen == delivery.labels.get("job", "")


@pytest.mark.parametrize(("critical", "lesser"), CRITICAL.items())
def test_the_critical_alert_silences_the_lesser_one(outage: Outage, critical: str, lesser: str) -> None:
    """The warning of the same condition is active, held back by the critical alert, and was not delivered."""
    stack = outage.stage.stack
    firing = {alert["fingerprint"] for alert in outage.alerts if alert["labels"]["alertname"] == critical}
    (held_back,) = (alert for alert in outage.alerts if alert["labels"]["alertname"] == lesser)
    assert held_back["status"]["state"] == "suppressed"
    assert set(held_back["status"]["inhibitedBy"]) <= firing
    assert lesser not in {delivery.name for delivery in outage.stage.delivered}
    assert stack.webhook.wait_for(critical, "firing", since=outage.since).labels["severity"] == "critical"


@pytest.mark.parametrize("critical", CRITICAL)
def test_alerts_resolve_after_recovery(recovery: Stage, critical: str) -> None:
    """Once requests succeed again, the receivers of the alert are notified, and no alert stays active."""
    assert critical in {delivery.name for delivery in recovery.delivered if delivery.status == "resolved"}
    assert recovery.query(f'ALERTS{{alertname="{critical}"}}') == []
    assert alerts(recovery.stack, critical) == []


def test_the_lesser_alert_speaks_once_the_critical_one_is_over(recovery: Stage) -> None:
    """While calls of the last hour still fail too often for a warning, the team is notified from now on."""
    delivery = recovery.stack.webhook.wait_for("TaskpilotLLMErrorRateHigh", "firing")
    assert delivery.receiver == "team"
    assert delivery.labels["provider"] == "openai"
