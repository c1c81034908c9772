"""The documentation as a site: every page and public name is in it, and it needs no network."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md"))
REFERENCE = re.compile(r"^::: (\S+)$", re.MULTILINE)
MODULES = sorted(
    module
    for path in ROOT.glob("docs/reference/*.md")
    for module in REFERENCE.findall(path.read_text(encoding="utf-8"))
)
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


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module: str) -> None:
    """Names in `__all__`, and public methods of classes among them, have a docstring."""
    if module == "taskpilot_obs_celery":
        pytest.importorskip("celery")
    made = import_module(module)
    missing = [name for name in getattr(made, "__all__", ()) if not documented(made, name)]
    assert missing == []


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


def test_the_reference_has_every_public_name(site: Path) -> None:
    """Each name in `__all__` of a module of the reference has an entry there, `golden_signals` on a page of its own."""
    pages = "".join(path.read_text(encoding="utf-8") for path in site.glob("reference/*.html"))
    ids = set(re.findall(r'id="?(taskpilot_obs[\w.]*)', pages))
    last = {found.rsplit(".", 1)[-1] for found in ids}
    for module in MODULES:
        names = {
            name
            for name in getattr(import_module(module), "__all__", ())
            if callable(getattr(import_module(module), name))
        }
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
