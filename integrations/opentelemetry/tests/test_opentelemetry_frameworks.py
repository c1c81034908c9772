"""Real frameworks and SDKs against a provider on loopback: each call is one record, with the right figures and parents.

Each runs in a process of its own, because instrumentation is global to one. `scripts/test_frameworks.sh` runs them in
environments of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MODULES = {
    "agent_framework": "agent_framework",
    "anthropic": "anthropic",
    "langchain": "langchain_openai",
    "openai": "openai",
    "pydantic_ai": "pydantic_ai",
}
WITHOUT_MODELS = {"mcp": "mcp"}
"""Those that call no model by themselves."""
ELSEWHERE = ["google_adk", "strands"]
"""Those that fit into no environment with the others."""
INSTRUMENTOR = {"agent_framework", "langchain", "openai", "pydantic_ai"}
"""Those that need OpenAI's instrumentor: by itself or as a second layer."""
ALONE = os.environ.get("TASKPILOT_OBS_FRAMEWORK")
"""The framework that this environment has; None where all are expected."""
AGENTS = ["agent_framework", "pydantic_ai", "langchain"]
_results: dict[str, Any] = {}


def is_installed(name: str) -> bool:
    """Whether a framework, and what observes it, can be imported here."""
    if find_spec({**MODULES, **WITHOUT_MODELS}[name]) is None:
        return False
    return name not in INSTRUMENTOR or find_spec("opentelemetry.instrumentation.genai") is not None


def results(name: str) -> dict[str, Any]:
    """What the scenarios of a framework came to."""
    if ALONE not in (None, name):
        pytest.skip(f"this environment is that of {ALONE}")
    if name in ELSEWHERE and ALONE is None:
        pytest.skip(f"{name} has an environment of its own: scripts/test_frameworks.sh {name}")
    if name not in ELSEWHERE and not is_installed(name):
        assert not os.environ.get("CI"), f"{name} is not installed"
        pytest.skip(f"{name} is NOT INSTALLED: install the dependency group `test`")
    if name not in _results:
        command = [sys.executable, "-W", "ignore", str(HERE / "frameworks" / "_harness.py"), name]
        environ = {**os.environ, "PYTHONPATH": str(HERE.parents[2] / "tests")}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        _results[name] = json.loads(done.stdout.splitlines()[-1])
    return dict(_results[name])


def calls(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The LLM calls of a scenario."""
    return [run for run in result["runs"] if run["operation"] == "chat"]


@pytest.mark.parametrize("name", MODULES)
def test_each_answered_call_is_one_record(name: str) -> None:
    """As many LLM records as requests, with tokens, cached and reasoning tokens, cost and provider; nothing is kept."""
    for scenario, result in results(name).items():
        answered = scenario not in ("fail", "failing", "cancel")
        assert result["left"] == [0, 0], scenario
        if not answered:
            continue
        assert result["raised"] is None, scenario
        assert len(calls(result)) == result["http"], scenario
        reasoning, provider = (None, "anthropic") if name == "anthropic" else (8, "openai")
        for call in calls(result):
            assert call["tokens"] == [100, 20, 40, reasoning], scenario
            assert (call["priced"], call["provider"], call["status"]) == (True, provider, "success"), scenario


@pytest.mark.parametrize("name", MODULES)
def test_twenty_concurrent_calls(name: str) -> None:
    """Twenty calls at once, seen by one, two or three layers, are twenty records."""
    crowd = results(name)["crowd"]
    assert (crowd["http"], len(calls(crowd))) == (20, 20)


@pytest.mark.parametrize("name", AGENTS)
def test_agents_and_tools(name: str) -> None:
    """The agent above its calls and its tool."""
    found = [(run["operation"], run["name"], run["above"]) for run in results(name)["ok"]["runs"]]
    assert [one for one in found if one[1] != "lookup"] == [
        ("invoke_agent", "Planner", None),
        ("chat", "gpt-4o-mini", "Planner"),
        ("execute_tool", "get_weather", "Planner"),
        ("chat", "gpt-4o-mini", "Planner"),
    ]
    if name != "langchain":
        assert ("execute_tool", "lookup", "get_weather") in found


@pytest.mark.parametrize("name", ["agent_framework", "pydantic_ai"])
def test_beside_an_adapter(name: str) -> None:
    """An adapter, the framework's spans and OpenAI's instrumentor see the same runs: each is recorded once."""
    found = results(name)
    runs = [(run["operation"], run["name"], run["above"]) for run in found["native_crowd"]["runs"]]
    assert (found["native_crowd"]["http"], len(runs)) == (20, 50)
    assert runs.count(("invoke_agent", "Planner", None)) == 10
    assert runs.count(("chat", "gpt-4o-mini", "Planner")) == 20
    assert runs.count(("execute_tool", "get_weather", "Planner")) == 10
    assert runs.count(("execute_tool", "lookup", "get_weather")) == 10
    assert len(found["native_stream"]["runs"]) == 5
    assert all(call["first_token"] for call in calls(found["native_stream"]))


@pytest.mark.parametrize("name", ["agent_framework", "pydantic_ai"])
def test_nested_agents(name: str) -> None:
    """An agent as the tool of another, beneath a decorated workflow."""
    found = [(run["name"], run["above"]) for run in results(name)["nested"]["runs"]]
    assert found[0] == ("outer", None)
    assert ("Planner", "outer") in found
    assert ("research", "Planner") in found
    assert ("Researcher", "research") in found
    assert found.count(("gpt-4o-mini", "Researcher")) == 1


@pytest.mark.parametrize("name", ["agent_framework", "anthropic", "openai", "pydantic_ai"])
def test_failed_and_cancelled(name: str) -> None:
    """A failed call and its agent are errors with a qualified class; cancelled ones are cancelled."""
    found = results(name)
    assert {run["status"] for run in found["fail"]["runs"]} == {"error"}
    assert all("." in run["error"] for run in found["fail"]["runs"])
    assert len(calls(found["fail"])) == 1
    assert {run["status"] for run in found["cancel"]["runs"]} == {"cancelled"}
    assert len(calls(found["cancel"])) == 1


def test_the_errors_of_a_provider_show_through_agent_framework() -> None:
    """Its `ChatClientException` hides the provider's exception, which is the one that is recorded."""
    failed = results("agent_framework")["fail"]["runs"]
    assert {run["error"] for run in failed} == {"openai.InternalServerError"}


@pytest.mark.parametrize("name", ["agent_framework", "anthropic", "openai", "pydantic_ai"])
def test_streams(name: str) -> None:
    """Streams have their time to the first token where a layer states it, and are never without tokens."""
    assert all(run["first_token"] and run["streaming"] for run in calls(results(name)["stream"]))


def test_failures_without_response_id_are_recorded_once() -> None:
    """Ten concurrent failures of LangChain that OpenAI's instrumentor sees as well are ten records."""
    failing = results("langchain")["failing"]
    assert (failing["http"], len(calls(failing))) == (10, 10)
    (error,) = {call["error"] for call in calls(failing)}
    assert error in ("langchain_openai.chat_models.base.OpenAIAPIError", "openai.InternalServerError")  # by its version


def test_mcp_servers() -> None:
    """A server's span and its middleware are one tool call, concurrent ones too; a refused one is blocked."""
    found = {key: [(run["name"], run["above"]) for run in one["runs"]] for key, one in results("mcp").items()}
    assert found["bridge"] == found["native"] == [("get_weather", None), ("lookup", "get_weather")]
    assert sorted(found["crowd"]) == sorted(found["native"] * 20)
    runs = [run for key in ("broken", "refused") for run in results("mcp")[key]["runs"]]
    assert [(run["name"], run["status"]) for run in runs] == [("broken", "error"), ("delete", "blocked")]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_in_an_environment_of_its_own(name: str) -> None:
    """By spans alone, and with its adapter beside them: a run, ten at once, a failure; each call is one record."""
    found = results(name)
    model = calls(found["ok"])[0]["name"]
    around = "Planner" if name == "google_adk" else None  # which states a workflow of the agent's name
    runs = {key: [run for run in one["runs"] if run["operation"] != "invoke_workflow"] for key, one in found.items()}
    for key in ("ok", "native"):
        assert [(run["operation"], run["name"], run["above"]) for run in runs[key]] == [
            ("invoke_agent", "Planner", around),
            ("chat", model, "Planner"),
            ("execute_tool", "get_weather", "Planner"),
            ("execute_tool", "lookup", "get_weather"),
            ("chat", model, "Planner"),
        ]
        assert all(call["tokens"][:3] == [100, 20, 40] and call["priced"] for call in calls(found[key]))
    assert (found["native_crowd"]["http"], len(calls(found["native_crowd"]))) == (20, 20)
    assert [run["operation"] for run in runs["native_crowd"]].count("invoke_agent") == 10
    assert [run["status"] for run in found["native_fail"]["runs"]] == ["error"] * len(found["native_fail"]["runs"])
    assert len(runs["native_fail"]) == 2
    assert all(result["left"] == [0, 0] for result in found.values())
