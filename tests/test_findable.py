"""What people look for is in the documentation, and what the documentation names is there."""

from __future__ import annotations

import inspect
import os
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

import pytest
import typer
from _public import REFERENCE
from typer.main import get_command

import taskpilot_obs
from taskpilot_obs import cli, exceptions, semconv
from taskpilot_obs.cli._program import add_commands
from taskpilot_obs.settings import ENV_PREFIX, NOT_FROM_ENVIRONMENT, Settings

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob("integrations/*/README.md")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
FAMILY = re.compile(r"\b(?:workflow|agent|llm|policy|guardrail|experiment|taskpilot_obs)_[a-z_]+(?=\{|\[|_bucket|\))")
FOUND_OF_129 = 120


@pytest.mark.parametrize("name", taskpilot_obs.__all__)
def test_every_public_name_stands_in_a_page(name: str) -> None:
    """A public name that no page shows is found by its author only."""
    assert re.search(rf"\b{name}\b", TEXT)


MODULES = sorted(name for name in REFERENCE if name.startswith("taskpilot_obs."))


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_of_a_module_stands_in_a_page(module: str) -> None:
    """A function of a public module is shown or named in a page, and not in the generated reference alone."""
    made = import_module(module)
    names = [name for name in getattr(made, "__all__", ()) if inspect.isfunction(getattr(made, name))]
    assert [name for name in names if not re.search(rf"\b{name}\b", TEXT)] == []


@pytest.mark.parametrize("name", [name for name in vars(exceptions) if name.endswith("Error")])
def test_every_exception_stands_in_a_page(name: str) -> None:
    """An exception that is raised on purpose is explained where its name is searched for."""
    assert re.search(rf"\b{name}\b", TEXT)


@pytest.mark.parametrize("page", ["promql", "routine", "troubleshooting", "coming-from"])
def test_every_metric_of_a_recipe_exists(page: str) -> None:
    """A query names families that there are."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    named = {
        name.removesuffix("_bucket")
        for query in re.findall(r"`[^`]+`|```promql\n.*?```", text, re.DOTALL)
        for name in FAMILY.findall(query)
    }
    families = {metric.name for metric in semconv.METRICS}
    assert {name for name in named if name not in families and name.endswith(("_total", "_seconds"))} == set()
    assert named or page in {"troubleshooting", "coming-from"}


def test_llms_txt_leads_to_pages() -> None:
    """Each link of llms.txt leads to a page."""
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "llms.txt").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_words_of_other_systems_are_found() -> None:
    """Of the words that people of four other systems search for, 120 of 129 are in the pages."""
    source = os.environ.get("TASKPILOT_OBS_VOCABULARY")
    if not source:
        pytest.skip("TASKPILOT_OBS_VOCABULARY names no file of words")
    words = Path(source).read_text(encoding="utf-8").splitlines()
    missing = [word for word in words if word and word.lower() not in TEXT.lower()]
    assert len(missing) <= len(words) - FOUND_OF_129, missing


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_option_stands_in_a_page(name: str) -> None:
    """An option stands in a page by its name, and by its environment variable where it has one."""
    assert f"`{name}`" in TEXT
    assert name in NOT_FROM_ENVIRONMENT or f"{ENV_PREFIX}{name.upper()}" in TEXT


def _commands() -> set[str]:
    app = typer.Typer()
    for module in iter_modules(cli.__path__):
        if not module.name.startswith("_"):
            add_commands(app, import_module(f"taskpilot_obs.cli.{module.name}"))
    return set(vars(get_command(app))["commands"])


def test_every_command_stands_in_a_page() -> None:
    """A command is shown as it is typed, or named as another name of one."""
    assert {name for name in _commands() if not re.search(rf"taskpilot-obs {name}\b|`{name}`", TEXT)} == set()


def test_every_command_of_a_page_exists() -> None:
    """What a page types is a command."""
    typed = set(re.findall(r"^(?:\$ )?taskpilot-obs ([a-z][a-z-]*)", TEXT, re.MULTILINE))
    assert typed
    assert typed - _commands() == set()


def _has(module: str, name: str) -> bool:
    """Whether a module has a name; an integration is read, and not imported, because its framework may be missing."""
    if module.startswith("taskpilot_obs_"):
        (file,) = ROOT.glob(f"integrations/*/{module.replace('.', '/')}/__init__.py")
        return f'"{name}"' in file.read_text(encoding="utf-8")
    return hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None


def test_every_name_of_a_page_exists() -> None:
    """What a page imports from this library, or names in full, is there."""
    imported = re.findall(r"^from (taskpilot_obs[\w.]*) import (?:\(([^)]*)\)|([^\n#(]+))", TEXT, re.MULTILINE)
    missing = [
        (module, name)
        for module, several, line in imported
        for name in re.findall(r"(\w+)(?: as \w+)?(?:,|\s*$)", several or line, re.MULTILINE)
        if not _has(module, name)
    ]
    assert imported
    assert missing == []


def test_every_option_of_a_page_exists() -> None:
    """`configure(…)` of a page takes the options that it is given there."""
    calls = re.findall(r"(?<![\w.])configure\(((?:[^()]|\([^()]*\))*)\)", TEXT)
    given = {name for call in calls for name in re.findall(r"(?:^|[,\s])(\w+)=", re.sub(r"\([^()]*\)", "", call))}
    assert given
    assert given - set(Settings.model_fields) == set()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4])
def test_every_exit_code_stands_in_a_page(code: int) -> None:
    """One table says what each exit code of the commands means."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| {code} \|", text, re.MULTILINE)
