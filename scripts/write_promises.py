"""Writes docs/promises.md of tests/promises.toml and of the tests marked `promise`; `make docs` runs it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "promises.md"
TABLE: Final = ROOT / "tests" / "promises.toml"
HEAD: Final = """# What is promised, and what proves it

Each row is a sentence of README or of these pages, the tests that prove it in every run of `make test` (those marked
*full* in `make test-full`), the last figure where there is one, and where the promise ends. A promise without a proof
fails the tests, and so does one whose sentence is not on its page any more.

"""


LINK: Final = re.compile(r"\[([^]]+)]\([^)]+\)")


class Proof(NamedTuple):
    """A test that proves a promise."""

    path: Path
    """Below the checkout."""
    name: str
    sentence: str
    """The first line of its docstring."""
    is_full: bool
    """Only `make test-full` runs it."""


class Promise(NamedTuple):
    """A promise as `tests/promises.toml` states it."""

    name: str
    page: str
    says: str
    limit: str
    """Where it ends."""
    figure: str = ""
    measured: str = ""
    """The command that measures it, for figures that no test may hold because machines differ."""


def promises() -> list[Promise]:
    """Every promise, in the order of the file."""
    stated = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [Promise(name, **fields) for name, fields in stated.items()]


def proofs() -> Mapping[str, list[Proof]]:
    """The tests of each promise, by its name."""
    found: dict[str, list[Proof]] = {}
    for folder in (ROOT / "tests", ROOT / "integrations"):
        for path in sorted(folder.rglob("test_*.py")):
            for name, proof in _marked(path):
                found.setdefault(name, []).append(proof)
    return found


def _marked(path: Path) -> Iterator[tuple[str, Proof]]:
    text = path.read_text(encoding="utf-8")
    if "mark.promise(" not in text:
        return
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = [ast.unparse(each) for each in node.decorator_list]
            sentence = (ast.get_docstring(node) or "").partition("\n")[0]
            proof = Proof(path.relative_to(ROOT), node.name, sentence, "pytest.mark.full" in marks)
            for name in _named(node):
                yield name, proof


def _named(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for each in node.decorator_list:
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.promise":
            yield from (str(ast.literal_eval(argument)) for argument in each.args)


def page() -> str:
    """The page as it should be."""
    found = proofs()
    rows = ["| promise | proof | figure | where it ends |", "| --- | --- | --- | --- |"]
    rows += [_row(promise, found.get(promise.name, [])) for promise in promises()]
    return HEAD + "\n".join(rows) + "\n"


def _row(promise: Promise, tests: list[Proof]) -> str:
    target = promise.page.removeprefix("docs/") if promise.page.startswith("docs/") else f"../{promise.page}"
    says = LINK.sub(r"\1", promise.says).replace(" | ", ": ")
    proof = "<br>".join([_shown(each) for each in tests] + ([f"`{promise.measured}`"] if promise.measured else []))
    return f"| {says} ([{Path(promise.page).stem}]({target})) | {proof} | {promise.figure} | {promise.limit} |"


def _shown(proof: Proof) -> str:
    full = " (*full*)" if proof.is_full else ""
    return f"`{proof.path.name}`: {proof.sentence}{full}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
