"""The house: imports point inwards, names stand in one place, nothing heavy comes along."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from _public import ALSO_PUBLIC, REFERENCE

import taskpilot_obs
from taskpilot_obs import semconv

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "taskpilot_obs"

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def _dotted(path: Path) -> str:
    return f"taskpilot_obs.{name_of(path)}".removesuffix(".__init__")


DOTTED = {_dotted(path): path for path in MODULES}


def imported_by(path: Path) -> set[str]:
    """Every module of this library that a file imports: at its top, inside of functions, and for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in DOTTED else node.module)
    return {name for name in found if name.split(".")[0] == "taskpilot_obs"}


def imports_of(path: Path) -> set[str]:
    """Modules of this library, without its name, that a module imports when it is imported itself."""
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "taskpilot_obs":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add((inner if inner in DOTTED else str(node.module)).removeprefix("taskpilot_obs."))
            elif isinstance(node, ast.Try) or (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test)):
                visit(node.body)

    visit(ast.parse(path.read_text()).body)
    return found


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one module (Tarjan)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in arrows[name]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == number[name]:
            component = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(component) > 1:
                found.append(component)

    for name in arrows:
        if name not in number:
            visit(name)
    return found


def test_no_circle_of_imports() -> None:
    """No module reaches itself over imports, lazy ones and those for types included."""
    arrows = {name: (imported_by(path) & DOTTED.keys()) - {name} for name, path in DOTTED.items()}
    assert circles(arrows) == []


def test_circles_are_found() -> None:
    """The search finds a circle of two and one of three, and no more than these."""
    arrows = {"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"e"}, "e": {"c"}, "f": {"a"}}
    assert sorted(map(sorted, circles(arrows))) == [["a", "b"], ["c", "d", "e"]]


BELOW: dict[str, set[str]] = {
    "records": set(),
    "semconv": {"records"},
    "exceptions": set(),
    "_support": {"_support", "records", "semconv", "exceptions"},
    "_pipeline": {"_pipeline", "_support", "records", "semconv", "exceptions"},
    "usage": {"usage", "providers", "_support", "records", "semconv", "exceptions"},
    "providers": {"usage", "providers", "_support", "records", "semconv", "exceptions"},
}
"""What the rooms at the bottom may import, types and lazy imports included."""
ON_TOP = {"_api", "cli", "demo", "server", "integration"}
"""What nothing imports but the program, the demo, the server and the public names."""


@pytest.mark.parametrize("room", BELOW)
def test_the_bottom_knows_nothing_above(room: str) -> None:
    """Vocabulary, small tools, the pipeline and the usage readers do not know of recorders, budgets or stores."""
    for name, path in DOTTED.items():
        if name.removeprefix("taskpilot_obs.").split(".")[0] == room:
            above = {imported.split(".")[1] for imported in imported_by(path) if "." in imported} - BELOW[room]
            assert not above, f"{name} imports {above}"


def test_the_top_is_imported_by_itself_alone() -> None:
    """Decorators, the command line, the demo and the server are entries: no other module imports them."""
    for name, path in DOTTED.items():
        room = name.removeprefix("taskpilot_obs").removeprefix(".").split(".")[0]
        if room and room not in ON_TOP:
            taken = {imported.split(".")[1] for imported in imported_by(path) if "." in imported} & ON_TOP
            assert not taken, f"{name} imports {taken}"


_IMPORT = re.compile(r"^\s*(?:from|import) (taskpilot_obs(?:\.\w+)*)(?: import|$)", re.MULTILINE)
OUTSIDE = [
    *sorted(ROOT.glob("integrations/*/taskpilot_obs_*/**/*.py")),
    *sorted(ROOT.glob("integrations/*/example*.py")),
    *sorted(ROOT.glob("examples/*.py")),
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "README.md",
]


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_integrations_examples_and_pages_use_public_names(path: Path) -> None:
    """What lives outside of the library imports public modules only, for types and lazily as well."""
    imported = set(_IMPORT.findall(path.read_text()))
    assert imported <= REFERENCE | ALSO_PUBLIC, f"not public: {sorted(imported - REFERENCE - ALSO_PUBLIC)}"


def test_public_modules_exist_and_have_no_underscore() -> None:
    """Each public module is there, and none of them is an implementation detail."""
    for name in REFERENCE | ALSO_PUBLIC:
        if name.split(".")[0] == "taskpilot_obs":
            assert name == "taskpilot_obs" or name in DOTTED, name
            assert "._" not in name, name


DEMO_OF_A_FRAMEWORK = "demo.graph"
"""The one module that speaks to a framework through its integration; the demo imports it where both are installed."""


def test_the_core_knows_no_integration() -> None:
    """Nothing in the library names the package of an integration, or a framework's module, as an import."""
    frameworks = re.compile(
        r"^\s*(?:import|from) (?:langchain|langgraph|openai|anthropic|taskpilot_obs_)", re.MULTILINE
    )
    assert [name_of(path) for path in MODULES if frameworks.search(path.read_text())] == [DEMO_OF_A_FRAMEWORK]
    assert [name_of(path) for path in MODULES if DEMO_OF_A_FRAMEWORK in imports_of(path)] == []


def test_the_journeys_of_the_guide_name_files_that_exist() -> None:
    """The four journeys in CONTRIBUTING.md pass at most 10, 14, 10 and 10 files, all of which are there."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("### Four journeys", 1)[1].split("\n## ", 1)[0]
    rows = [re.findall(r"`([\w/]+(?:<provider>)?\.py)`", row) for row in section.splitlines() if " · " in row]
    most = (10, 14, 10, 10)
    assert [len(files) <= bound for files, bound in zip(rows, most, strict=True)] == [True] * 4, rows
    named = {name.replace("<provider>", "anthropic") for files in rows for name in files}
    assert {name for name in named if not (PACKAGE / name).is_file()} == set()


SHARED_NAMES = {
    "ObservabilityMiddleware": "public: users of each web framework name it after its package",
    "ObservabilityPlugin": "public: users of each agent framework name it after its package",
}
"""The names of classes that stand in more than one place, and why."""


def test_a_class_name_means_one_thing() -> None:
    """No two classes of the library and its integrations have the same name, but for those that are listed here."""
    places: dict[str, list[str]] = {}
    for path in [*MODULES, *sorted(ROOT.glob("integrations/*/taskpilot_obs_*/**/*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    doubled = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in doubled.items() if name not in SHARED_NAMES} == {}
    assert SHARED_NAMES.keys() <= doubled.keys()


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
    allowed = {
        "_support.guarded": 1,
        "_pipeline.batched": 2,
        "_pipeline.exporter": 1,
        "_recording.generators": 3,
        "_api.wrapped_functions": 2,
    }
    allowed["compare.bench.runner"] = 3  # what an arm raises is its result; paid calls are kept whatever fails
    allowed["_support.daemon_threads"] = 1  # hands on what the call in a thread raised
    allowed["exporters.delivery"] = 1  # tries what failed again
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
    """Five modules at most are over 400 lines, and none over 620."""
    long = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 620} == {}
    over = {name: lines for name, lines in long.items() if lines > 400}
    assert len(over) <= 5, over


def test_functions_are_short() -> None:
    """Half of the functions have at most 7 lines, nine in ten at most 20, and three at most more than 50."""
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 7
    assert lengths[len(lengths) * 9 // 10] <= 20
    assert sum(length > 50 for length in lengths) <= 3


@pytest.mark.parametrize("metric", semconv.METRICS, ids=lambda metric: metric.name)
def test_every_label_has_a_bound(metric: semconv.Metric) -> None:
    """Each label of the contract has a bound, or a fixed set of values; info labels come from the configuration."""
    configured = {semconv.Label.VERSION, semconv.Label.SERVICE, semconv.Label.SERVICE_VERSION, semconv.Label.METRIC}
    for label in metric.labels:
        assert label in semconv.LABEL_BOUNDS or semconv.fixed_values(metric.name, label) or label in configured


def test_public_names() -> None:
    """`__all__` is what there is, few enough to remember, each with a docstring, beside few modules."""
    assert len(taskpilot_obs.__all__) <= 27
    beside = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")}
    assert len(beside) <= 14, sorted(beside)
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


@pytest.mark.promise("light-import")
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
