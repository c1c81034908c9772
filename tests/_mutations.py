"""Inputs for the parsers: a corpus that is kept, and changes of it that a seed chooses."""

from __future__ import annotations

import random
import re
from hashlib import sha256
from pathlib import Path
from typing import Final

from _parsers import Parser

CORPUS: Final = Path(__file__).parent / "fuzz_corpus"
LONGEST: Final = 20_000
TOKENS: Final = (
    *(b"null", b"true", b"false", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"1.5", b"1" * 400),
    *(b"9" * 5_000, b"9223372036854775808", b"1e-400", b"0x10", b"01", b"\xff", b"\xed\xa0\x80", b"\x00"),
    *(b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\r\n", b"\n\n", b"\t", b" ", b'"', b"'", b"\\", b"\\u0000"),
    *(b"\\ud800", b"{}", b"[]", b"{", b"}", b"[", b"]", b":", b",", b"=", b";", b"%", b"%00", b"%ff", b"#"),
    *(b"&", b"*", b"..", b"__proto__", b"9999-12-31", b"0001-01-01", b"2026-02-30", b"T25:61:61Z", b"+99:99"),
    *(b"23:59:60", b"\xd9\xa1", b"\xc2\xb2", b"\xe2\x88\x9e", b"!!python/object:os.system", b"&a *a"),
)
NESTING: Final = ((b"[", b"]"), (b'{"a":', b"}"), (b"(", b")"), (b"- ", b""), (b"{", b"}"))
_WORDS: Final = re.compile(rb"[A-Za-z_.]+|[0-9]+|[^A-Za-z_.0-9]")


def corpus(name: str) -> list[bytes]:
    """The inputs that are kept for a parser: seeds, and each that ever failed."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def keep(name: str, given: bytes) -> Path:
    """Keep an input that failed."""
    path = CORPUS / name / f"failed-{sha256(given).hexdigest()[:12]}"
    path.write_bytes(given)
    return path


def mutated(seeds: list[bytes], chance: random.Random) -> bytes:
    """One of the seeds, changed in one to six places."""
    given = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        given = chance.choice(CHANGES)(given, seeds, chance)[:LONGEST]
    return given


def _cut(given: bytes, _: list[bytes], chance: random.Random) -> bytes:
    start, end = _span(given, chance)
    return given[:start] + given[end:]


def _repeated(given: bytes, _: list[bytes], chance: random.Random) -> bytes:
    start, end = _span(given, chance)
    return given[:end] + given[start:end] * chance.choice((1, 2, 50)) + given[end:]


def _inserted(given: bytes, _: list[bytes], chance: random.Random) -> bytes:
    at = chance.randint(0, len(given))
    return given[:at] + chance.choice(TOKENS) + given[at:]


def _replaced(given: bytes, _: list[bytes], chance: random.Random) -> bytes:
    """A word or a number becomes a token, which keeps the rest of a structure whole."""
    words = [found.span() for found in _WORDS.finditer(given)]
    start, end = chance.choice(words) if words else (0, 0)
    return given[:start] + chance.choice(TOKENS) + given[end:]


def _spliced(given: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(seeds)
    start, end = _span(other, chance)
    at = chance.randint(0, len(given))
    return given[:at] + other[start:end] + given[at:]


def _flipped(given: bytes, _: list[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(given)) if given else 0
    return given[:at] + bytes([chance.randrange(256)]) + given[at + 1 :]


def _nested(given: bytes, _: list[bytes], chance: random.Random) -> bytes:
    before, after = chance.choice(NESTING)
    start, end = _span(given, chance)
    depth = chance.choice((2, 40, 1_500))
    return given[:start] + before * depth + given[start:end] + after * depth + given[end:]


def _span(given: bytes, chance: random.Random) -> tuple[int, int]:
    start, end = sorted((chance.randint(0, len(given)), chance.randint(0, len(given))))
    return start, min(end, start + 200)


CHANGES: Final = (_cut, _repeated, _inserted, _replaced, _replaced, _spliced, _flipped, _nested)


def shortened(parser: Parser, given: bytes, error: BaseException) -> bytes:
    """The input without what the failure does not need."""
    size = max(1, len(given) // 2)
    while size:
        at = 0
        while at < len(given):
            less = given[:at] + given[at + size :]
            if type(failure(parser, less)) is type(error):
                given = less
            else:
                at += size
        size //= 2
    return given


def failure(parser: Parser, given: bytes) -> BaseException | None:
    """What a parser raises without declaring it; None where it reads or refuses the input."""
    try:
        parser.takes(given)
    except Exception as error:
        return error
    return None
