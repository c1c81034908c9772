"""README and guides: their code and commands work as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUN = (
    *("coding-agents", "troubleshooting"),
    *("content", "embeddings", "extending", "fastapi", "frameworks", "quickstart", "statuses", "testing", "threads"),
    *("tokens-and-cost", "tracing"),
)
GUIDES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in RUN)]
IMPORTED = re.compile(r"^(?:from|import) (flask|django|celery|fastapi|langchain_core)\b", re.MULTILINE)
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```toml\n# ([\w.]+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PROGRAM = "taskpilot-obs"


def commands(page: Path) -> list[list[str]]:
    """What a page shows, in order: each Python block as a script, each line of a shell block as it stands."""
    found: list[list[str]] = []
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python" and "def test_" in text:
            found.append([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", text])
        elif language == "python":
            found.append([sys.executable, "-W", "error", "-c", text])
        else:
            found += [shlex.split(line) for line in text.splitlines() if line and not line.startswith("#")]
    return found


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_what_a_page_shows_works(page: Path, tmp_path: Path) -> None:
    """Its Python blocks and commands, one after the other beside its files, end well without a warning."""
    shown = commands(page)
    assert shown
    for framework in sorted(set(IMPORTED.findall(page.read_text(encoding="utf-8")))):
        if find_spec(framework) is None and os.environ.get("CI") != "true":
            pytest.skip(f"{framework} is not installed: run scripts/setup.sh")
    for name, text in FILE.findall(page.read_text(encoding="utf-8")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    for command in shown:
        if command[1:3] == ["-m", "pytest"]:
            (tmp_path / "test_block.py").write_text(command.pop(), encoding="utf-8")
            command.append("test_block.py")
        elif command[0] != sys.executable:
            assert command[0] == PROGRAM, f"a command that no test can run: {shlex.join(command)}"
            command[0] = str(Path(sys.executable).with_name(PROGRAM))
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), f"{command}\n{done.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there."""
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page of docs/."""
    linked = set(LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    assert pages <= linked, f"add these to docs/README.md: {sorted(pages - linked)}"


def test_the_readme_is_short() -> None:
    """The README stays within 150 lines, and its picture is a real one."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
    picture = (ROOT / "docs" / "images" / "demo.svg").read_text(encoding="utf-8")
    assert "rich-terminal" in picture
    assert "Golden&#160;signals" in picture
