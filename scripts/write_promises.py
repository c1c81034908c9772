"""Writes docs/promises.md of tests/promises.toml and of the tests marked `promise`; `make docs` runs it.

Figures come from what is kept of runs: tests/figures.json (what tests measured, see tests/_figures.py), the results of
`make faults`, `make fuzz` and `make mutation`, and the tables of pages that a measurement writes.
"""

from __future__ import annotations

import ast
import json
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


CELLS: Final = re.compile(r"^\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
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
    """Every promise, in the order of the file, with the figures that are kept."""
    return [filled(each) for each in stated()]


def stated() -> list[Promise]:
    """Every promise as the file has it."""
    return [Promise(name, **fields) for name, fields in tomllib.loads(TABLE.read_text(encoding="utf-8")).items()]


def figures() -> Mapping[str, Mapping[str, object]]:
    """What was measured, by the name of the promise."""
    tests = ROOT / "tests"
    kept, faults, fuzz = (json.loads((tests / f"{name}.json").read_bytes()) for name in ("figures", "faults", "fuzz"))
    runs = sum(count for kinds in faults.values() for hows in kinds.values() for count in hows.values())
    inputs = [count for count in fuzz.values() if isinstance(count, int)]
    found: dict[str, Mapping[str, object]] = {**kept, "every-operation": {"runs": runs}}
    found["every-parser"] = {"inputs": sum(inputs), "parsers": len(inputs)}
    bench = json.loads((ROOT / "benchmarks" / "results.json").read_bytes())
    found["cost-of-a-run"] = found["light-import"] = bench
    found["soak"] = dict(CELLS.findall((ROOT / "docs" / "soak.md").read_text(encoding="utf-8")))
    return found


def filled(promise: Promise) -> Promise:
    """The promise with its figures.

    Raises:
        KeyError: a figure was not measured.
    """
    known = figures().get(promise.name, {})
    return promise._replace(says=promise.says.format_map(known), figure=promise.figure.format_map(known))


def renewed(text: str, promise: Promise) -> str:
    """The text of a page with the figures that are kept, where the sentence of a promise has figures.

    Args:
        text: of the page.
        promise: as the file has it.
    """
    parts = re.split(r"({[^}]*})", promise.says)
    if len(parts) == 1:
        return text
    known = figures().get(promise.name, {})
    pattern = "".join(".*?" if part.startswith("{") else f"({_wrapped(part)})" for part in parts)
    values = [part.format_map(known) for part in parts[1::2]] + [""]
    return re.sub(pattern, lambda found: "".join(map("".join, zip(found.groups(), values, strict=True))), text, count=1)


def _wrapped(part: str) -> str:
    """A pattern of a part of a sentence, whose spaces may be line breaks."""
    return re.sub(r"(\\ )+", r"\\s+", re.escape(part))


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
    for each in stated():
        target = ROOT / each.page
        target.write_text(renewed(target.read_text(encoding="utf-8"), each), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
