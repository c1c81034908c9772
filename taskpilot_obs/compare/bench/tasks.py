"""Tasks: named lists of prompts, each with what its answer has to be."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taskpilot_obs._support.reasons import reason_of
from taskpilot_obs.compare.bench.checkers import Checker, check_expected, named_checker
from taskpilot_obs.exceptions import ConfigurationError

BUILT_IN: Final = ("simple", "reasoning", "navigation")
MOST_TOKENS: Final = 512
"""The longest answer where an item does not state its own limit."""
_DATA: Final = Path(__file__).parent / "data"
_HASH: Final = 16


class Item(NamedTuple):
    """One prompt of a task."""

    id: str
    prompt: str
    expected: str | None
    checker: str | None
    max_tokens: int
    prompt_hash: str

    def check(self, answer: str) -> bool | None:
        """Whether an answer is correct; None where the task does not tell. It raises what the checker raises."""
        if self.checker is None:
            return None
        checker: Checker = named_checker(self.checker)
        return checker(answer, self.expected or "")


class Task(NamedTuple):
    """A task by its name."""

    name: str
    items: tuple[Item, ...]


class _Line(BaseModel):
    """A line of a task's file."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1)]
    id: str | None = None
    expected: str | None = None
    checker: str | None = None
    max_tokens: Annotated[int, Field(gt=0)] = MOST_TOKENS


def load_task(name: str, most: int | None = None) -> Task:
    """Load a task: one that is built in, or a JSONL file of one's own.

    Args:
        name: `simple`, `reasoning`, `navigation`, or the path of a file. Each of its lines is an object with `prompt`
            and optionally `id`, `expected`, `checker` and `max_tokens`.
        most: only so many of its items.

    Returns:
        The task with its items.

    Raises:
        ConfigurationError: there is no such task, or a line cannot be used; the message names it.
    """
    file = _DATA / f"{name}.jsonl" if name in BUILT_IN else Path(name)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"task {name!r}: allowed are {', '.join(BUILT_IN)} or a JSONL file ({reason_of(error)})"
        ) from error
    short = name if name in BUILT_IN else file.stem
    items = tuple(_item(short, number, line) for number, line in enumerate(lines, 1) if line.strip())
    if not items:
        raise ConfigurationError(f"task {name!r}: the file has no lines")
    return Task(short, items[:most])


def _item(task: str, number: int, line: str) -> Item:
    try:
        given = _Line.model_validate(json.loads(line))
        checker = given.checker or (None if given.expected is None else "exact")
        if checker is not None:
            named_checker(checker)
            check_expected(checker, given.expected or "")
    except (ValidationError, ValueError, RecursionError, ConfigurationError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ConfigurationError(f"task {task!r}, line {number}: {told}") from error
    digest = sha256(given.prompt.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    name = given.id or f"{task}-{number:02d}"
    return Item(name, given.prompt, given.expected, checker, given.max_tokens, digest)
