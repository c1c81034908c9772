"""Puts a changed function in the place of the imported one, without importing its module again."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType

from scripts.mutation.model import Change


class NotAppliedError(Exception):
    """The change cannot be made in a running process: a closure would have other cells."""


class LiveFunctions:
    """The functions of some modules that exist, by the code that they run."""

    def __init__(self, paths: Iterable[Path]) -> None:
        names = {str(path) for path in paths}
        self._by_code = defaultdict[tuple[str, str, int], list[FunctionType]](list)
        for each in gc.get_objects():
            if type(each) is FunctionType and each.__code__.co_filename in names:
                self._by_code[_identity(each.__code__)].append(each)

    def apply(self, change: Change) -> None:
        """Give every live function that the change concerns its new code.

        Raises:
            NotAppliedError: A closure would have other cells, or the function does not exist any more.
        """
        old = _by_name(change.path.read_text(encoding="utf-8"), change.path)
        new = _by_name(change.text, change.path)
        replaced = 0
        for name, codes in old.items():
            for before, after in zip(codes, new.get(name, ()), strict=False):
                if before != after:
                    replaced += self._replace(before, after)
        if not replaced:
            raise NotAppliedError("no living function runs this code")

    def _replace(self, before: CodeType, after: CodeType) -> int:
        """How many functions have the new code."""
        functions = self._by_code[_identity(before)]
        for function in functions:
            if not after.co_freevars:
                after = after.replace(co_freevars=before.co_freevars)
            try:
                function.__code__ = after
            except ValueError as failure:
                raise NotAppliedError(str(failure)) from failure
        return len(functions)


def _identity(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _by_name(source: str, path: Path) -> Mapping[str, Sequence[CodeType]]:
    found = defaultdict[str, list[CodeType]](list)
    for each in _codes(compile(source, str(path), "exec", dont_inherit=True)):
        found[each.co_qualname].append(each)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes(each)
