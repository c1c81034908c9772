"""The house: imports point inwards, names stand in one place, nothing heavy comes along."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import taskpilot_obs
from taskpilot_obs import semconv

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "taskpilot_obs"

LAYERS = {
    0: "records semconv exceptions _support.wrapping _support.assets _support.ids _support.clock _recording.statuses figures charts _support.sketch",  # noqa: E501  one line a layer
    1: "_support.kubernetes _recording.context _support.guarded _support.counters _recording.rollups providers usage pricing safety _recording.verdicts executors rules _support.calendar",  # noqa: E501  one line a layer
    2: "genai_spans _recording.spans _recording.content _recording.callsite _recording.snapshots _recording.invocation _recording.finalized _recording.llm_invocation _recording.llm_outcome _recording.model_argument exporters _pipeline.pipeline _pipeline.lifecycle audit store budgets _pipeline.batched",  # noqa: E501  one line a layer
    3: "_recording.point_events _recording.recorder _enforcement.enforcer stats compare golden_signals settings log_context",  # noqa: E501  one line a layer
    4: "config testing",
    5: "_api.decorators _recording.unfinished _recording.sdk_streams _recording.generators _enforcement.wrappers _api.blocks _api.events exposition gunicorn doctor integration",  # noqa: E501  one line a layer
    6: "__init__ cli demo server",
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names.split()}
LAYER |= {"golden_signals.facade": 5, "golden_signals.from_store": 5}
"""Modules that stand above the package that they belong to."""

ROOMS = ["_api", "_recording", "_enforcement", "_pipeline", "_support"]
"""Packages that hold modules of several layers."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def layer_of(module: str) -> int:
    """The layer of the nearest module or package that has one: `_recording.spans`, `store`."""
    while module not in LAYER and "." in module:
        module = module.rpartition(".")[0]
    return LAYER[module]


def imports_of(path: Path) -> set[str]:
    """Modules of this library that a module imports when it is imported itself: not under TYPE_CHECKING, not lazily."""
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "taskpilot_obs":
                module = (node.module or "").removeprefix("taskpilot_obs").removeprefix(".")
                prefix = f"{module}." if module else ""
                found.update([prefix + alias.name for alias in node.names] if module in {"", *ROOMS} else [module])
            elif isinstance(node, ast.Try) or (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test)):
                visit(node.body)

    visit(ast.parse(path.read_text()).body)
    return found


def test_every_module_has_a_layer() -> None:
    """A module without a layer, and a layer without a module, is a design question."""
    for path in MODULES:
        if path.parent.name not in ROOMS or path.name != "__init__.py":
            assert layer_of(name_of(path).removesuffix(".__init__")) >= 0, f"give {name_of(path)} a layer"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_inwards(path: Path) -> None:
    """A module imports from its own layer or from below."""
    module = name_of(path)
    for imported in imports_of(path):
        assert layer_of(imported) <= layer_of(module), f"{module} (layer {layer_of(module)}) imports {imported}"


DEMO_OF_A_FRAMEWORK = "demo.graph"
"""The one module that speaks to a framework through its integration; the demo imports it where both are installed."""


def test_the_core_knows_no_integration() -> None:
    """Nothing in the library names the package of an integration, or a framework's module, as an import."""
    frameworks = re.compile(
        r"^\s*(?:import|from) (?:langchain|langgraph|openai|anthropic|taskpilot_obs_)", re.MULTILINE
    )
    assert [name_of(path) for path in MODULES if frameworks.search(path.read_text())] == [DEMO_OF_A_FRAMEWORK]
    assert [name_of(path) for path in MODULES if DEMO_OF_A_FRAMEWORK in imports_of(path)] == []


def test_metric_names_stand_in_semconv_alone() -> None:
    """A metric's name, spelt out in any other module, is a defect (but for rendered rules, which tests hold to it)."""
    names = {metric.name for metric in semconv.METRICS}
    for path in MODULES:
        module = name_of(path)
        if module == "semconv" or module.startswith("rules"):
            continue
        strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not names & {value for value in strings if isinstance(value, str)}, module


def test_one_broad_except() -> None:
    """`except Exception` stands at the boundaries that are named here, and nowhere else."""
    allowed = {"_support.guarded": 1, "_pipeline.batched": 2, "_recording.generators": 3, "_api.decorators": 2}
    allowed["golden_signals.http"] = 1  # hands on what the thread that asks raised
    found: dict[str, int] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or "Exception" in ast.unparse(node.type).split("|")
            ):
                broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
                reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
                if broad and not reraises:
                    found[name_of(path)] = found.get(name_of(path), 0) + 1
    assert found.keys() <= allowed.keys(), found


def test_modules_are_short() -> None:
    """No module is over 500 lines."""
    long = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 505} == {}


@pytest.mark.parametrize("metric", semconv.METRICS, ids=lambda metric: metric.name)
def test_every_label_has_a_bound(metric: semconv.Metric) -> None:
    """Each label of the contract has a bound, or a fixed set of values; info labels come from the configuration."""
    configured = {semconv.Label.VERSION, semconv.Label.SERVICE, semconv.Label.SERVICE_VERSION, semconv.Label.METRIC}
    for label in metric.labels:
        assert label in semconv.LABEL_BOUNDS or label in semconv.FIXED_VALUES or label in configured


def test_public_names() -> None:
    """`__all__` is what there is, few enough to remember, each with a docstring."""
    assert len(taskpilot_obs.__all__) <= 27
    assert sorted(taskpilot_obs.__all__) == taskpilot_obs.__all__
    for name in taskpilot_obs.__all__:
        assert getattr(taskpilot_obs, name).__doc__, name


HEAVY = [
    "langchain_core",
    "langgraph",
    "openai",
    "anthropic",
    "opentelemetry.sdk",
    "genai_prices",
    "typer",
    "rich",
    "ddsketch",
    "sqlalchemy",
    "alembic",
    "orjson",
    "pythonjsonlogger",
    "httpx",
    "yaml",
    "re2",
    "psycopg",
    "scipy",
]


def test_importing_brings_nothing_heavy() -> None:
    """Importing the library loads no framework, SDK or price table, and starts no thread, opens no socket or file."""
    code = f"""
import sys, threading, builtins, socket
opened = []
import prometheus_client, pydantic, opentelemetry.trace
real_open = builtins.open
builtins.open = lambda *a, **k: opened.append(a[0]) or real_open(*a, **k)
socket.socket = None
import taskpilot_obs
print([name for name in {HEAVY!r} if name in sys.modules], threading.active_count(), opened)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[] 1 []\n", "")


@pytest.mark.parametrize("package", ["golden_signals", "pricing", "safety"])
def test_a_package_that_imports_late_knows_no_other_names(package: str) -> None:
    """What is imported at first use is named one by one; a wrong name is an AttributeError, as anywhere."""
    module = import_module(f"taskpilot_obs.{package}")
    with pytest.raises(AttributeError, match=r"module 'taskpilot_obs.*' has no attribute 'no_such_name'"):
        module.no_such_name  # noqa: B018  asking is the point
