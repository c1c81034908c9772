"""The documentation as a site: every page and public name is in it, and it needs no network."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from _public import PUBLIC, REFERENCE

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md"))
MODULES = sorted(REFERENCE)
ARGUMENTS = re.compile(r"^Args:|[Aa]rguments (?:as|are those)|\b[Ll]ike `", re.MULTILINE)
RESULT = re.compile(
    r"\A(?:Return|The|An?|This|What|How|Whether|Everything|Seconds|Settings|Runs|Single|LLM)\b|\A`|\A[^\n]* returns? "
    r"|^(?:Returns|Yields):|[Aa]rguments (?:as|are those)|\b[Ll]ike `",
    re.MULTILINE,
)
"""A section on what is returned, a reference to another function, or a summary that begins with what is returned."""
ELSEWHERE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    if find_spec("mkdocs") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the dependency group `site` is not installed: run scripts/setup.sh")
        pytest.skip("the dependency group `site` is not installed: run scripts/setup.sh")
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return target


def test_every_page_is_in_the_navigation() -> None:
    """Every page is in the menu."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- (\S+\.md)$", text, re.MULTILINE)
    assert sorted(set(listed) - {"changelog.md", "contributing.md"}) == PAGES
    assert len(listed) == len(set(listed))
    assert [next(iter(group)) for group in yaml.safe_load(text.split("\nnav:", 1)[1].join(("nav:", "")))["nav"]] == [
        "Start", "Instrument", "Cost", "Safety", "Operate", "Extend", "Reference",
    ]  # fmt: skip


def imported(module: str) -> ModuleType:
    """A module of the reference; skips where its framework is missing, which other environments test."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("taskpilot_obs"):
            raise
        pytest.skip(f"{error.name} is not installed")


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module: str) -> None:
    """Names in `__all__`, and public methods of classes among them, have a docstring."""
    made = imported(module)
    missing = [name for name in getattr(made, "__all__", ()) if not documented(made, name)]
    assert missing == []


@pytest.mark.parametrize("module", PUBLIC)
def test_public_functions_describe_their_arguments_and_errors(module: str) -> None:
    """`Args:` for two or more, `Raises:` where it raises, `Returns:` with either; but not callbacks of a framework."""
    made = imported(module)
    found = [getattr(made, name) for name in public_names(made)]
    functions: list[Callable[..., object]] = [each for each in found if inspect.isfunction(each)]
    for kind in found:
        if inspect.isclass(kind) and kind.__module__.startswith("taskpilot_obs"):
            functions += own_methods(kind)
    assert [each.__qualname__ for each in functions if lacks_arguments(each) or lacks_errors(each)] == []
    assert [each.__qualname__ for each in functions if lacks_result(each)] == []
    classes = [kind for kind in found if inspect.isclass(kind) and kind.__module__.startswith("taskpilot_obs")]
    assert [kind.__name__ for kind in classes if lacks_arguments(kind)] == []


def public_names(module: ModuleType) -> Sequence[str]:
    """`__all__`, or where there is none what a module defines itself under a name without an underscore."""
    defined = [name for name, each in vars(module).items() if getattr(each, "__module__", None) == module.__name__]
    names: Sequence[str] = getattr(module, "__all__", [name for name in defined if not name.startswith("_")])
    return names


def own_methods(kind: type) -> list[Callable[..., object]]:
    """The public methods that a class adds, without those that a framework's base class declares."""
    foreign = [base for base in kind.__mro__ if not base.__module__.startswith("taskpilot_obs")]
    methods = {name: getattr(each, "__func__", each) for name, each in dict(vars(kind)).items()}
    return [
        each
        for name, each in methods.items()
        if inspect.isfunction(each) and not name.startswith("_") and not any(name in vars(base) for base in foreign)
    ]


def lacks_arguments(function: Callable[..., object]) -> bool:
    """Whether a function or class has two or more arguments, and neither describes them nor says where they are."""
    made = vars(function).get("__init__") if inspect.isclass(function) else function
    if made is None or made.__module__ == "typing" or made.__code__.co_filename.startswith("<"):
        return False  # made from fields, which have docstrings of their own, or a protocol's
    given = [name for name in inspect.signature(made).parameters if name not in {"self", "cls"}]
    return len(given) > 1 and ARGUMENTS.search(inspect.getdoc(function) or "") is None


def lacks_result(function: Callable[..., object]) -> bool:
    """Whether a function of two or more arguments, or that raises, does not describe what it returns."""
    signature = inspect.signature(function)
    given = [name for name in signature.parameters if name not in {"self", "cls"}]
    text = inspect.getdoc(function) or ""
    returns = signature.return_annotation not in {
        None,
        "None",
        "Never",
        "NoReturn",
        "Self",
        "Iterator[None]",
        inspect.Signature.empty,
    }
    return returns and (len(given) > 1 or "Raises:" in text) and RESULT.search(text) is None


def lacks_errors(function: Callable[..., object]) -> bool:
    """Whether a function raises an error that its docstring does not name; what it catches itself does not count."""
    body = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    guarded = {id(inner) for each in ast.walk(body) if isinstance(each, ast.With) for inner in ast.walk(each)}
    raised = [each for each in ast.walk(body) if isinstance(each, ast.Raise) and id(each) not in guarded]
    return any(isinstance(each.exc, ast.Call) for each in raised) and "Raises:" not in (inspect.getdoc(function) or "")


def documented(module: object, name: str) -> bool:
    """Whether a name, and its methods if it is a class of the library, have docstrings."""
    found = getattr(module, name)
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return True  # a value: its comment stands in the source
    own = inspect.isclass(found) and found.__module__.startswith("taskpilot_obs")
    methods = [
        each for key, each in vars(found).items() if own and not key.startswith("_") and inspect.isfunction(each)
    ]
    return all(inspect.getdoc(each) for each in (found, *methods))


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(site: Path, module: str) -> None:
    """Each name in `__all__` of a module of the reference has an entry there, `golden_signals` on a page of its own."""
    made = imported(module)
    pages = "".join(path.read_text(encoding="utf-8") for path in site.glob("reference/*.html"))
    last = {found.rsplit(".", 1)[-1] for found in re.findall(r'id="?(taskpilot_obs[\w.]*)', pages)}
    names = {name for name in getattr(made, "__all__", ()) if callable(getattr(made, name))}
    assert names - last == set(), module


def test_the_site_needs_no_network(site: Path) -> None:
    """No page loads a script, style, font or image from elsewhere."""
    for page in site.glob("**/*.html"):
        assert ELSEWHERE.findall(page.read_text(encoding="utf-8")) == [], page.name
    for style in site.glob("**/*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8"), style.name


@pytest.mark.full
def test_the_search_works_from_the_file_system(site: Path) -> None:
    """A browser that opens the site as a file finds pages by their words."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom",
            f"{(site / 'index.html').as_uri()}?q=budgets",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )  # fmt: skip
    assert re.search(r"md-search-result__meta\">[1-9][0-9]* matching documents", done.stdout)
