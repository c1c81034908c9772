"""Models side by side in a real store, and the commands that show them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from taskpilot_obs import get_recorder, record_feedback, record_llm_call, request_context, track_agent
from taskpilot_obs.cli import compare as command
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.compare import ComparedGroup, Experiment, compare
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.store import Store, downgrade
from taskpilot_obs.testing import fresh_recorder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with fresh_recorder(store=url):
        yield url


def calls(model: str, agent: str, n: int, failing: int, **options: object) -> None:
    """Calls of a model for an agent, the first of which fail."""
    with track_agent(agent):
        for number in range(n):
            status = "error" if number < failing else "success"
            record_llm_call(model=model, status=status, duration_seconds=0.5, cost="0.01", **options)  # type: ignore[arg-type]


def groups(store: str) -> dict[str, ComparedGroup]:
    assert get_recorder().flush(30)
    return {group.name: group for group in compare("model", store=store).groups}


def test_what_differs_beyond_chance_is_ranked(store: str) -> None:
    """A model that fails far more is ranked second; two that may be equal share a rank."""
    calls("gpt-4o", "writer", 200, 2)
    calls("gpt-4o-mini", "writer", 200, 60)
    calls("claude-sonnet-4-5", "writer", 200, 4)
    found = groups(store)
    assert {name: group.rank for name, group in found.items()} == {
        "gpt-4o": 1,
        "claude-sonnet-4-5": 1,
        "gpt-4o-mini": 3,
    }
    best = found["gpt-4o"]
    assert best.success_rate == 99.0
    assert best.success_interval is not None
    assert best.success_interval.low < 99.0 < best.success_interval.high
    assert best.p50_interval is not None
    assert best.p50_interval.low == pytest.approx(500, rel=0.01)


def test_other_work_is_not_ranked(store: str) -> None:
    """A model that another agent uses is shown and not ranked, and the reason is given."""
    calls("gpt-4o", "writer", 50, 0)
    calls("gpt-4o-mini", "router", 50, 25)
    found = groups(store)
    assert {group.rank for group in found.values()} == {None}
    assert found["gpt-4o"].not_comparable == "no other group did the same work"


def test_unknown_costs_make_no_cost_per_success(store: str) -> None:
    """While some calls have no price, what a success costs is unknown, and coverage says how much is known."""
    calls("gpt-4o", "writer", 3, 0)
    with track_agent("writer"):
        record_llm_call(model="gpt-4o")
    found = groups(store)["gpt-4o"]
    assert (found.cost_per_success_usd, found.cost_coverage) == (None, 0.75)
    assert found.cost_per_call_usd is not None


def test_a_confirmed_task_has_a_cost(store: str) -> None:
    """The calls for rated requests, divided by those that users confirmed in the end; unrated requests are left out."""
    for number, verdicts in enumerate([(True,), (False, True), (True, False), (), (True,)]):
        with request_context(request_id=f"r-{number}"):
            calls("gpt-4o" if number < 4 else "gpt-4o-mini", "writer", 2, 0)
            for correct in verdicts:
                record_feedback(correct=correct)
                assert get_recorder().flush(30)
    found = groups(store)
    assert (found["gpt-4o"].rated, found["gpt-4o"].confirmed_correct) == (3, 2)
    assert found["gpt-4o"].cost_per_correct_usd == Decimal("0.03")
    assert found["gpt-4o-mini"].cost_per_correct_usd == Decimal("0.02")
    with request_context(request_id="r-5"):
        record_llm_call(model="gpt-4o")
        record_feedback(correct=True)
    assert groups(store)["gpt-4o"].cost_per_correct_usd is None


def test_verdicts_of_one_moment_have_an_order(store: str, tmp_path: Path) -> None:
    """Of two verdicts in one microsecond one is the last: a revision, then the one with the larger ID."""
    with request_context(request_id="r-0"):
        calls("gpt-4o", "writer", 1, 0)
        for correct in (True, False):
            record_feedback(correct=correct)
            assert get_recorder().flush(30)
    for change, confirmed in [
        ("created_at = (SELECT min(created_at) FROM user_feedback)", 0),
        ("revision = 0, feedback_id = CASE correct WHEN 1 THEN 'b' ELSE 'a' END", 1),
    ]:
        with closing(sqlite3.connect(tmp_path / "telemetry.db")) as database, database:
            assert database.execute(f"UPDATE user_feedback SET {change}").rowcount == 2  # noqa: S608  above
        found = groups(store)["gpt-4o"]
        assert (found.rated, found.confirmed_correct) == (1, confirmed)


def test_free_calls_lack_no_price_in_the_version_before(store: str) -> None:
    """Tables of version 0004 tell free calls from unpriced ones as well, so that a confirmed task has a cost."""
    with request_context(request_id="r-0"):
        calls("gpt-4o", "writer", 2, 0)
        record_llm_call(model="gpt-4o", status="blocked")
        record_feedback(correct=True)
    assert groups(store)["gpt-4o"].cost_per_correct_usd == Decimal("0.02")
    with closing(Store(store)) as tables:
        downgrade(tables, "0004")
    with closing(Store(store)) as tables:
        assert tables.version() == "0004"
    assert groups(store)["gpt-4o"].cost_per_correct_usd == Decimal("0.02")


def test_periods_of_one_minute_are_two_groups(store: str) -> None:
    """Their names have fractions of a second where the minute is the same."""
    began = datetime.now(UTC)
    calls("gpt-4o", "planner", 3, 0)
    between = datetime.now(UTC)
    calls("gpt-4o", "planner", 5, 0)
    ended = datetime.now(UTC)
    assert get_recorder().flush(30)
    minute = (began - timedelta(seconds=1), between)
    found = compare("period", (between, ended + timedelta(seconds=1)), against=minute, store=store)
    assert [group.requests for group in found.groups] == [5, 3]


@pytest.mark.parametrize(
    "options", [{"by": "colour"}, {"by": "agent", "within": "agent"}, {"by": "model", "within": "x"}, {"against": "7d"}]
)
def test_a_wrong_question_is_refused(store: str, options: dict[str, str]) -> None:
    """The error names what is allowed."""
    with pytest.raises(ConfigurationError, match=r"allowed|by='period'"):
        compare(store=store, **options)  # type: ignore[arg-type]  # wrong on purpose


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    add_commands(app, command)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, result.output


def test_the_command_shows_groups_and_variants(store: str) -> None:
    """`taskpilot-obs compare` prints both kinds of comparison, and JSON on demand."""
    calls("gpt-4o", "writer", 30, 0)
    experiment = Experiment("prompt", {"a": 0.5, "b": 0.5})
    for number in range(40):
        with experiment.assign(f"user-{number}"), track_agent("writer"):
            pass
    assert get_recorder().flush(30)
    code, output = run("--store", store)
    assert code == 0
    assert "gpt-4o" in output
    assert "100.0 %" in output
    code, output = run("--store", store, "--experiment", "prompt")
    assert code == 0
    assert "Not enough evidence that b differs from a by success" in output
    code, output = run("--store", store, "--experiment", "prompt", "--share", "a=0.5", "--share", "b=0.5", "--json")
    assert json.loads(output)["experiment"] == "prompt"
    assert run("--store", store, "--experiment", "prompt", "--share", "a")[0] == 2
    assert run("--store", store, "--by", "colour")[0] == 2
    code, output = run("--store", store, "--by", "period", "--period", "1h", "--where", "model=gpt-4o", "--json")
    assert (code, [group["requests"] for group in json.loads(output)["groups"]]) == (0, [30])
    assert run("--store", store, "--by", "model", "--against", "7d")[0] == 2
    assert run("--store", store, "--experiment", "prompt", "--where", "model=gpt-4o")[0] == 2
