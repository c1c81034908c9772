"""Every parser against the corpus that is kept: it reads an input, or refuses it by an error that it declares."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _mutations import CORPUS, corpus, failure, keep, mutated, shortened
from _parsers import Parser, parsers
from _scripts import load

WRITER = load("fuzz")
NAMES = sorted(path.name for path in CORPUS.iterdir())
MUTATIONS = 60
"""Changed inputs of each parser in each run of the tests, always the same; `make fuzz` makes others."""


@pytest.fixture(scope="module")
def all_of_them() -> Iterator[dict[str, Parser]]:
    """Every parser by its name."""
    with parsers() as found:
        yield found


def test_every_parser_has_a_corpus(all_of_them: dict[str, Parser]) -> None:
    """A parser without seeds, and seeds without a parser, are mistakes."""
    assert sorted(all_of_them) == NAMES


@pytest.mark.promise("every-parser")
@pytest.mark.parametrize("name", NAMES)
def test_a_parser_takes_its_corpus(name: str, all_of_them: dict[str, Parser]) -> None:
    """Each input that was kept is read or refused, and so are some changes of it; at least one is read."""
    parser, seeds, chance = all_of_them[name], corpus(name), random.Random(name)
    assert True in list(map(parser.takes, seeds)), "no input of the corpus is read, so little of it is reached"
    for given in (mutated(seeds, chance) for _ in range(MUTATIONS)):
        try:
            parser.takes(given)
        except BaseException as error:
            error.add_note(f"by {name} of {given!r}")
            raise


def test_the_page_is_current() -> None:
    """The page follows from the kept result and the corpus; `make fuzz MINUTES=0` would not change it."""
    assert WRITER.PAGE.read_text(encoding="utf-8") == WRITER.page(
        json.loads(WRITER.RESULTS.read_text(encoding="utf-8"))
    )


def test_an_unknown_parser_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names it, and the parsers that there are."""
    with pytest.raises(SystemExit) as caught:
        WRITER.main(["--minutes", "60", "--parser", "usages"])
    assert caught.value.code == 2
    assert "no parser is named usages; the parsers are accept, " in capsys.readouterr().err


def test_an_interrupted_run_keeps_its_counts() -> None:
    """Ctrl-C ends a run, and what it counted until then is told."""
    session = WRITER.Session(1, {})
    session.parsers, session.seeds = {"digits": Parser(_interrupted_at_the_third(), ())}, {"digits": [b"1"]}
    assert session.run(60) < 1
    assert session.runs == {"digits": 2}


def _interrupted_at_the_third() -> Callable[[bytes], object]:
    left = iter((1, 2))

    def read(_given: bytes) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return None

    return read


def test_a_run_ends_when_no_parser_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that has failed often enough is left alone, and without another the run ends before its time."""
    monkeypatch.setattr(WRITER, "keep", lambda _name, _given: WRITER.ROOT / "kept")
    session = WRITER.Session(1, {})
    session.parsers, session.seeds = {"digits": Parser(lambda given: given[9_999_999], ())}, {"digits": [b"1"]}
    assert session.run(60) < 1
    assert session.failures["digits"] >= WRITER.MOST_FAILURES


def test_a_failure_is_shortened_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that a parser fails on becomes a file of the corpus, without what the failure does not need."""
    monkeypatch.setattr("_mutations.CORPUS", tmp_path)
    (tmp_path / "digits").mkdir()
    known: dict[bytes, int] = {}
    parser = Parser(lambda given: int(b"7" in given and given), (ValueError,))
    assert failure(parser, b"12") is None
    broken = Parser(lambda given: known[given] if b"7" in given else None)
    error = failure(broken, b"1234567890")
    assert isinstance(error, KeyError)
    assert keep("digits", shortened(broken, b"1234567890", error)).read_bytes() == b"7"
