"""A lint for the language of docstrings, comments, messages and pages: phrases to avoid, and what to write instead.

Run by `make lint`. `python scripts/prose.py PATH…` checks single files or folders; a line that must keep a phrase ends
with the comment `# prose: why`.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
BETTER: Final = {
    r"what is no\b": "name the thing: 'Invalid amounts are ignored'",
    r"(?<![/'-])\b[Nn]obody\b(?!['\"}-])": "say what does not happen: 'never read', 'cannot be revised'",
    r"\b[Ww]hoever\b": "name the person or part: 'the caller', 'an operator', 'the drainer'",
    r"\b[Oo]f the (?:application|library|user|caller|service)'s\b": "'of the application', or 'the application's log'",
    r"(?:^|[.:;] )[Tt]he same(?: \w+)?(?=[,.:;]|$)": "repeat the noun: 'The filter, for asynchronous code'",
    r"(?:^|[.:;] )The same (?:for|in|of|on|under|with|without)\b": "repeat the noun: 'A stream under ASGI …'",
    r"(?:^|[.:] )[Ll]ikewise\b": "repeat what is alike, or leave it out",
    r"\b(?:[Ss]ays?|said|saying) so\b": "'reports it', 'logs a warning', 'raises'",
    r"\btold (?:to|of|by|that)\b": "'reported', 'passed to', 'notified'",
    r"\b(?:tells?|hears?|hearing|speaks?) of\b": "'reports', 'is notified of', 'covers', 'applies to'",
    r"\btold from\b": "'distinguished from'",
    r"\bbelongs? into\b": "'belongs in'",
    r"\bthe very (?:call|client|condition|exception|name|object|thread|value)\b": "'the object itself'",
    r"\bdearer\b": "'more expensive'",
    r"\ba word (?:on|about|of)\b": "name it: 'feedback', 'a message'",
    r", for (?:it|they|there|this|that|he|she|nobody|its|only)\b": "'because'",
    r"\bif need be\b": "'if necessary'",
    r"\banew\b": "'again'",
    r"\bmend(?:s|ed|ing)?\b": "'fix'",
    r"\bof (?:mine|ours|theirs)\b": "'our', or the name of the library",
    r"\bgoes no further\b": "'is not raised', 'stops here'",
    r"(?<!here )\b(?:is|are) no (?!longer\b|more\b|one\b)\w+": "'is not a …', or the positive: 'is invalid'",
    r"\A\w+ (?:of )?(?:it|them|one|more)\.\"{3}\Z": "what the caller gets: 'Drop the table.'",
    r"\bthereby\b|\bwherein\b|\bhereof\b": "start a new sentence",
}
"""Patterns, case-sensitive, and the better form of each. To add one, make it fail here first, then fix the places."""
KEPT: Final = "# prose:"
GENERATED: Final = ("docs/soak.md", "build", "dist")


class Hit(NamedTuple):
    """A phrase to avoid."""

    path: Path
    line: int
    phrase: str
    better: str


def main(arguments: Sequence[str]) -> int:
    """Print every hit; 1 if there is one."""
    places = [Path(each).resolve() for each in arguments] or [ROOT]
    found = [hit for path in _files(places) for hit in hits_in(path)]
    for hit in found:
        print(f"{hit.path.relative_to(ROOT)}:{hit.line}: {hit.phrase!r}: write {hit.better}")
    print(f"{len(found)} phrases to rewrite" if found else "prose: all checks passed")
    return 1 if found else 0


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            name = path.relative_to(ROOT).as_posix()
            hidden = any(part.startswith(".") and part != ".github" for part in path.relative_to(ROOT).parts)
            if path.suffix in {".py", ".md", ".sh"} and not hidden and not name.startswith(GENERATED):
                yield path


def hits_in(path: Path) -> Iterator[Hit]:
    """Every phrase to avoid in the prose of a file."""
    text = path.read_text(encoding="utf-8")
    kept = {number for number, line in enumerate(text.splitlines(), 1) if KEPT in line}
    for first, prose in _prose(path, text):
        for pattern, better in BETTER.items():
            for match in re.finditer(pattern, prose, re.MULTILINE):
                line = first + prose.count("\n", 0, match.start())
                if line not in kept:
                    yield Hit(path, line, match[0].strip(), better)


def _prose(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """The parts of a file that people read, each with its first line: of Python code, its comments and texts."""
    if path.suffix != ".py":
        yield 1, text
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in {tokenize.COMMENT, tokenize.STRING, _FSTRING} and not token.string.startswith(("r'", 'r"')):
            yield token.start[0], re.sub(r"^(\s*)(?:[bfru]*(?:\"\"\"|'''|\"|')|# ?)", r"\1", token.string)


_FSTRING: Final = getattr(tokenize, "FSTRING_MIDDLE", -1)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
