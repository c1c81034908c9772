"""Small changes of a module, by mutmut's operators."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

from scripts.mutation.areas import LIBRARY
from scripts.mutation.journal import keep_changes, kept_changes
from scripts.mutation.model import Change

UNCHANGED_FUNCTIONS: Final = frozenset({"__getattribute__", "__setattr__", "__new__"})
"""mutmut leaves these alone too."""


class _Visitor(MutationVisitor):  # type: ignore[misc]
    """Changes decorated functions too, because no trampoline is put in front of them here."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return node.name.value in UNCHANGED_FUNCTIONS or node in self._enum_creation_hooks
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "cast":
            return True  # says something to the type checker and does nothing
        return bool(super()._skip_node_and_children(node))


class _Text:
    """A module's text, and where its lines begin."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self._starts = [0]
        for each in self.text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(each))

    @cached_property
    def wrapper(self) -> MetadataWrapper:
        return MetadataWrapper(cst.parse_module(self.text))

    def offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def difference(self, start: int, end: int, new: str) -> str:
        """Of whole lines around the replaced piece, on one line."""
        first = self._starts[bisect_right(self._starts, start) - 1]
        last = self.text.find("\n", end)
        before = self.text[first:last].splitlines()
        after = (self.text[first:start] + new + self.text[end:last]).splitlines()
        lines = [each for each in difflib.ndiff(before, after) if each[0] in "-+"]
        return " ".join(" ".join(sorted(lines, key=lambda each: each[0] == "+")).split())


class _Made(NamedTuple):
    """A change without the module's text."""

    function: str
    difference: str
    number: int
    line: int
    start: int
    end: int
    new: str
    """Stands in the place of what is between `start` and `end`."""


def changes(paths: Iterable[Path]) -> Iterator[Change]:
    """All changes of these modules, in the order of their text."""
    for path in paths:
        kept = kept_changes(path)
        if kept is None:
            kept = [list(each) for each in _changes(_Text(path))]
            keep_changes(path, kept)
        text = path.read_text(encoding="utf-8")
        for each in (_Made(*row) for row in kept):
            changed = text[: each.start] + each.new + text[each.end :]
            yield Change(path, each.function, each.difference, each.number, each.line, changed)


def _changes(module: _Text) -> Iterator[_Made]:
    visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
    module.wrapper.visit(visitor)
    names = dict(_names(module.wrapper.module.body, _dotted(module.path)))
    times = Counter[tuple[str, str]]()
    for mutation in visitor.mutations:
        function = names.get(mutation.contained_by_top_level_function)
        if function is None or (made := _replaced(module, mutation)) is None:
            continue
        line, start, end, new = made
        difference = module.difference(start, end, new)
        times[function, difference] += 1
        yield _Made(function, difference, times[function, difference], line, start, end, new)


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts)


def _names(body: Sequence[cst.CSTNode], prefix: str) -> Iterator[tuple[cst.FunctionDef, str]]:
    for each in body:
        if isinstance(each, cst.FunctionDef):
            yield each, f"{prefix}.{each.name.value}"
        elif isinstance(each, cst.ClassDef):
            yield from _names(each.body.body, f"{prefix}.{each.name.value}")


def _replaced(module: _Text, mutation: Mutation) -> tuple[int, int, int, str] | None:
    """The line, and what stands between which characters of the module; None for a change that changes nothing."""
    where = module.wrapper.resolve(PositionProvider)[mutation.original_node]
    first, last = (module.offset(each.line, each.column) for each in (where.start, where.end))
    for old, new in _rendered(module.wrapper.module, mutation):
        if (start := module.text.find(old, first, last)) >= 0:
            return (where.start.line, start, start + len(old), new) if new != old else None
    raise ValueError(f"{module.path}:{where.start.line}: libcst renders this otherwise than it is written")


def _rendered(tree: cst.Module, mutation: Mutation) -> Iterator[tuple[str, str]]:
    """Both nodes as text, for each way in which libcst may have rendered what stands in the module.

    libcst renders a node without the indentation of its statement, and states its position without the parentheses.
    """
    old, new = (tree.code_for_node(each).strip() for each in (mutation.original_node, mutation.mutated_node))
    for indentation in range(0, 40, 4):
        lines = "\n" + " " * indentation
        yield old.replace("\n", lines), new.replace("\n", lines)
        if old.startswith("(") and new.startswith("("):
            yield old[1:-1].strip().replace("\n", lines), new[1:-1].strip().replace("\n", lines)
