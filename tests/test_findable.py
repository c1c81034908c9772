"""What people look for is in the documentation, and what the documentation names is there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import taskpilot_obs
from taskpilot_obs import exceptions, semconv

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob("integrations/*/README.md")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
FAMILY = re.compile(r"\b(?:workflow|agent|llm|policy|guardrail|experiment|taskpilot_obs)_[a-z_]+(?=\{|\[|_bucket|\))")
FOUND_OF_129 = 120


@pytest.mark.parametrize("name", taskpilot_obs.__all__)
def test_every_public_name_stands_in_a_page(name: str) -> None:
    """A public name that no page shows is found by its author only."""
    assert re.search(rf"\b{name}\b", TEXT)


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
