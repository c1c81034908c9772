"""Values of the recording rules, stated by hand and evaluated by promtool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml
from _servers import require_binary

from taskpilot_obs.rules.series import absent, ramp, steady, then

RULES = Path(__file__).resolve().parent.parent / "observability" / "prometheus" / "rules"
ONE = 'job="shop",instance="a"'
RUN = f'{ONE},workflow="checkout"'
VIOLATION = f'policy_violations_total{{{RUN},agent="p",policy="pii",severity="high"}}'

Expected = dict[str, dict[str, float]]
"""Query -> labels of a sample -> its value; no samples where nothing may be."""


def runs(status: str, values: str, labels: str = RUN) -> dict[str, str]:
    """A series of runs."""
    return {f'workflow_runs_total{{{labels},status="{status}"}}': values}


START = "taskpilot_obs_start_time_seconds"


def _known(series: dict[str, str]) -> dict[str, str]:
    """The processes of these series began with them, unless they say otherwise, and the rules know the job for long."""
    instances = {match[1] for name in series for match in [re.search(r'instance="([^"]+)"', name)] if match}
    began = {f'{START}{{job="shop",instance="{instance}"}}': "0+0x5000" for instance in instances}
    known = {'job:taskpilot_obs_first_seen:timestamp_seconds{job="shop"}': "-9000000+0x5000"}
    return known if any(name.startswith(START) for name in series) else began | known


def check(tmp_path: Path, series: dict[str, str], time: str, expected: Expected, interval: str = "10m") -> None:
    """Have promtool evaluate the golden signals over these series and compare."""
    rules = RULES / "golden_signals" / "recording.yml"
    text = {
        "rule_files": [str(rules)],
        "group_eval_order": [group["name"] for group in yaml.safe_load(rules.read_text())["groups"]],
        "evaluation_interval": interval,
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in (series | _known(series)).items()
                ],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": time,
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
                    }
                    for query, samples in expected.items()
                ],
            }
        ],
    }
    path = tmp_path / "tests.yml"
    path.write_text(yaml.safe_dump(text))
    command = [require_binary("promtool"), "test", "rules", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def rounded(name: str, digits: float = 0.001) -> str:
    """A query that drops the name and the noise of floating point."""
    return f"round({name}, {digits})"


WORKFLOW, JOB = '{job="shop", workflow="checkout"}', '{job="shop"}'


def test_the_golden_signals_have_the_values_of_their_formulas(tmp_path: Path) -> None:
    """Over an hour of 60 runs a minute, each signal is what one works out on paper."""
    series = (
        runs("success", ramp((54, 60)))
        | runs("error", ramp((3, 60)))
        | runs("timeout", ramp((2, 60)))
        | runs("blocked", ramp((1, 60)))
        | runs("cancelled", ramp((40, 60)))
        | runs("interrupted", ramp((9, 60)))
        | {
            f'llm_cost_usd_total{{{ONE},agent="p",model="m",provider="x"}}': ramp((2.7, 60)),
            f'workflow_cost_usd_total{{{RUN},status="success"}}': ramp((1.08, 60)),
            f'workflow_cost_usd_total{{{RUN},status="error"}}': ramp((0.54, 60)),
            f'llm_feedback_total{{{ONE},verdict="correct"}}': ramp((9, 60)),
            f'llm_feedback_total{{{ONE},verdict="incorrect"}}': ramp((1, 60)),
            f'llm_feedback_revisions_total{{{ONE},verdict="incorrect"}}': ramp((3, 60)),
            f'llm_feedback_revisions_total{{{ONE},verdict="correct"}}': ramp((1, 60)),
            VIOLATION: ramp((3, 60)),
        }
    )
    expected: Expected = {
        rounded("workflow:workflow_runs_counted:increase1h"): {WORKFLOW: 3600},
        rounded("workflow:workflow_runs:success_ratio_rate1h"): {WORKFLOW: 0.9},
        rounded("job:workflow_runs:success_ratio_rate1h"): {JOB: 0.9},
        rounded("job:workflow_runs:cost_per_success_usd_rate1h"): {JOB: 0.05},
        rounded("workflow:workflow_runs:cost_per_success_usd_rate1h"): {WORKFLOW: 0.03},
        # 9 + 1 - 3 = 7 of 10
        rounded("job:llm_feedback:correct_ratio_rate1h"): {JOB: 0.7},
        rounded("job:policy_violations:per_run_ratio_rate1h"): {JOB: 0.05},
        rounded("workflow:slo_success:burn_rate1h"): {WORKFLOW: 2},
        rounded("workflow:slo_success:error_budget_left_ratio"): {WORKFLOW: -1},
    }
    check(tmp_path, series, "1h", expected)


def test_a_quantile_is_interpolated_within_its_bucket(tmp_path: Path) -> None:
    """With 9 of 10 runs up to 2 s and one up to 5 s, p95 is 2 + 3 x 0.5 / 1 s, and a tenth is slow."""
    series = {
        f'workflow_duration_seconds_bucket{{{RUN},le="{bound}"}}': ramp((count, 60))
        for bound, count in (("1.0", 0), ("2.0", 9), ("5.0", 10), ("+Inf", 10))
    }
    expected: Expected = {
        rounded("workflow:workflow_duration_seconds:p95_rate1h"): {WORKFLOW: 3.5},
        rounded("job:workflow_duration_seconds:p95_rate1h"): {JOB: 3.5},
        rounded("job:workflow_duration_seconds:slow_ratio_rate1h"): {JOB: 0.1},
    }
    check(tmp_path, series, "1h", expected)


def test_processes_are_added_up_and_a_restart_loses_nothing(tmp_path: Path) -> None:
    """Two processes of a job count together; the one that restarts keeps counting from 0."""
    other = f'job="shop",instance="b",workflow="checkout"'  # noqa: F541  beside RUN, which is one too
    series = (
        runs("success", ramp((10, 120)))
        | runs("success", then(ramp((10, 89)), ramp((10, 30))), other)
        | runs("error", steady(0, 120))
    )
    # The restart falls between two samples, so of the 10 runs in between none is seen: 600 + 590.
    check(tmp_path, series, "2h", {rounded("job:workflow_runs_counted:increase1h"): {JOB: 1190}})


def test_a_signal_without_traffic_has_no_value(tmp_path: Path) -> None:
    """Where nothing ran, every ratio and quantile is absent, and not 0, 1 or NaN."""
    series = (
        runs("success", steady(7, 60))
        | runs("error", steady(0, 60))
        | {f'workflow_duration_seconds_bucket{{{RUN},le="{bound}"}}': steady(7, 60) for bound in ("2.0", "5.0", "+Inf")}
        | {
            f'llm_cost_usd_total{{{ONE},agent="p",model="m",provider="x"}}': steady(3, 60),
            f'llm_feedback_total{{{ONE},verdict="correct"}}': steady(3, 60),
            VIOLATION: steady(3, 60),
        }
    )
    names = "success_ratio|p95|slow_ratio|cost_per_success_usd|correct_ratio|per_run_ratio|burn"
    query = f'{{__name__=~".+:.+:({names})_(rate(5m|30m)|recent)"}}'
    check(tmp_path, series, "1h", {query: {}, rounded("job:workflow_runs_counted:increase30m"): {JOB: 0}})


def test_a_series_born_with_its_first_event_counts_it(tmp_path: Path) -> None:
    """1 for a series that is born at 1, 3 for one that was born at 1 and went to 3."""
    other = VIOLATION.replace("pii", "other").replace("checkout", "returns")
    series = {
        VIOLATION: then(absent(30), steady(1, 30)),
        other: then(absent(30), steady(1, 10), steady(3, 30)),
    }
    expected: Expected = {
        rounded("workflow:policy_violations:increase1h", 0.1): {
            WORKFLOW: 1,
            '{job="shop", workflow="returns"}': 3,
        }
    }
    check(tmp_path, series, "1h", expected)


def test_an_old_process_that_is_scraped_for_the_first_time_brings_no_news(tmp_path: Path) -> None:
    """What a process counted before it was ever scraped is not taken for events of this hour."""
    series = {
        VIOLATION: then(absent(30), steady(1000, 60)),
        f"{START}{{{ONE}}}": then(absent(30), steady(-86_400, 60)),
    }
    check(tmp_path, series, "1h", {rounded("workflow:policy_violations:increase1h"): {WORKFLOW: 0}})


def test_a_young_process_brings_its_events_with_it(tmp_path: Path) -> None:
    """What a process counted between its start and its first scrape is news."""
    series = {
        VIOLATION: then(absent(30), steady(4, 60)),
        f"{START}{{{ONE}}}": then(absent(30), steady(1_790, 60)),
    }
    check(tmp_path, series, "1h", {rounded("workflow:policy_violations:increase1h"): {WORKFLOW: 4}})


def test_long_windows_count_every_event_once(tmp_path: Path) -> None:
    """After 26 hours of one run a minute and an hour of two, 6h holds 420 of them, 1d 1,500 and 3d all 1,680."""
    series = runs("success", ramp((1, 1560), (2, 60))) | runs("error", steady(0, 1620))
    expected: Expected = {
        rounded("job:workflow_runs_counted:increase6h"): {JOB: 420},
        rounded("job:workflow_runs_counted:increase1d"): {JOB: 1500},
        rounded("job:workflow_runs_counted:increase3d"): {JOB: 1680},
    }
    check(tmp_path, series, "27h", expected, interval="30m")


def test_policies_explain_only_runs_that_were_blocked(tmp_path: Path) -> None:
    """As many denials as failed runs explain those that ended blocked, and not those that raised."""
    series = runs("success", ramp((90, 60))) | {VIOLATION: ramp((10, 60))}
    for status, explained in (("blocked", {JOB: 50.0}), ("error", {})):
        expected = {rounded("job:workflow_runs_failed:explained_by_policies"): explained}
        check(tmp_path, series | runs(status, ramp((10, 60))), "1h", expected)


def test_the_first_runs_of_a_process_count_though_it_is_found_late(tmp_path: Path) -> None:
    """A process that began two minutes before its first scrape has its first runs counted throughout the window."""
    start = {f"{START}{{{ONE}}}": then(absent(10), steady(8 * 60, 50))}
    series = start | runs("error", then(absent(10), steady(40, 50)))
    for minute, counted in ((11, 40.0), (14, 40.0), (15, 0.0)):
        expected = {rounded("job:workflow_runs_counted:increase5m"): {JOB: counted}}
        check(tmp_path, series, f"{minute}m", expected, interval="1m")
