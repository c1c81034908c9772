"""The lint for prose: it finds each phrase, in the files that it covers, and shows a better form."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "prose.py"


def load() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("prose", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prose"] = module  # a NamedTuple asks for the module of its annotations
    spec.loader.exec_module(module)
    return module


PROSE = load()
FOUND = {  # prose: an example of each pattern
    "What is no amount is not counted. what is no amount": "what is no",  # prose: example
    "It is read by nobody.": "nobody",  # prose: example
    "Whom to ask: whoever called.": "whoever",  # prose: example
    "An object of the application's is kept.": "of the application's",  # prose: example
    "The same, for coroutines.": "The same",  # prose: example
    "The same for coroutines.": "The same for",  # prose: example
    "Closed. Likewise the file.": "Likewise",  # prose: example
    "The log says so.": "says so",  # prose: example
    "It is told by the log.": "told by",  # prose: example
    "The alert speaks of runs.": "speaks of",  # prose: example
    "A text told from others.": "told from",  # prose: example
    "It belongs into the list.": "belongs into",  # prose: example
    "It returns the very object.": "the very object",  # prose: example
    "A dearer model answers.": "dearer",  # prose: example
    "Whoever called is asked.": "Whoever",  # prose: example
    "Nobody reads the file.": "Nobody",  # prose: example
    "Say so in the log.": "Say so",  # prose: example
    "Feedback is a word on a request.": "a word on",  # prose: example
    "It waits, for it is full.": ", for it",  # prose: example
    "Made if need be.": "if need be",  # prose: example
    "It begins anew.": "anew",  # prose: example
    "See how to mend it.": "mend",  # prose: example
    "A thread of ours ends.": "of ours",  # prose: example
    "The error goes no further.": "goes no further",  # prose: example
    "This is no mapping.": "is no mapping",  # prose: example
    "The rule wherein it stands.": "wherein",  # prose: example
}


@pytest.mark.parametrize("text", FOUND)
def test_a_phrase_is_found_where_it_is_read(text: str, tmp_path: Path) -> None:
    """In a page, a comment, a docstring and a message; not in a name, and not where a reason keeps it."""
    code = f'"""{text}"""\n\nvalue = 1  # {text}\nraise ValueError("{text}")\n'
    for name, content, times in (("page.md", f"{text}\n", 1), ("code.py", code, 3)):
        (tmp_path / name).write_text(content)
        found = [hit.phrase.lstrip(".:; ") for hit in PROSE.hits_in(tmp_path / name)]
        assert found.count(FOUND[text]) == times, found
        (tmp_path / name).write_text("".join(f"{line}  # prose: quoted\n" for line in content.splitlines()))
        assert list(PROSE.hits_in(tmp_path / name)) == []


def test_every_pattern_has_an_example() -> None:
    """A pattern that no text matches is a mistake."""
    texts = [*FOUND, 'Drop it."""']
    unused = [pattern for pattern in PROSE.BETTER if not any(re.search(pattern, text, re.MULTILINE) for text in texts)]
    assert unused == []


@pytest.mark.parametrize(("docstring", "times"), [("Drop it.", 1), ("All of them.", 1), ("Drop the table.", 0)])
def test_a_docstring_that_names_nothing_is_found(docstring: str, times: int, tmp_path: Path) -> None:
    """A docstring of a verb and a pronoun says no more than the name of its function."""
    (tmp_path / "code.py").write_text(f'def drop() -> None:\n    """{docstring}"""\n')
    assert len(list(PROSE.hits_in(tmp_path / "code.py"))) == times


@pytest.mark.parametrize(
    "text", ["There is no store.", "It is no longer asked.", "The same request comes again.", "nobody_knows"]
)
def test_plain_sentences_pass(text: str, tmp_path: Path) -> None:
    """Ordinary English is not touched."""
    (tmp_path / "page.md").write_text(text)
    assert list(PROSE.hits_in(tmp_path / "page.md")) == []


def test_the_project_has_no_such_phrase() -> None:
    """Every docstring, comment, message and page passes."""
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
