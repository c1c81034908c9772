"""Try the changes of some areas and write docs/mutation.md.

Run: python -m scripts.mutation [AREA …] (`usage-values pricing`; without an area: all), with `--survivors` to try again
what survived before, with `--results` to count what was tried before, or with `--page` to write the page only.
SAMPLE=100 tries so many changes of each area, SAMPLE=all all of them; SEED=5 chooses others. A change that was killed
is not tried again until its module or the file of its test changes; survivors are tried again each time. FRESH=1 tries
everything again. MINUTES=5 stops after so many minutes of changes, and again of those that need a new interpreter: what
was tried until then is a random sample too, because the order is random.
UNSEEN=1 leaves out the changes of the usual sample, whose survivors tests were written for, and keeps the score of the
others as one that no test was written for. CONTROL=1 changes nothing, to see whether a test fails nevertheless.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from scripts.mutation import journal, report
from scripts.mutation.areas import AREAS, SAMPLE, SEED
from scripts.mutation.changes import changes
from scripts.mutation.model import AT_IMPORT, NOTICED, Change, Verdict
from scripts.mutation.session import examine, examine_fresh

T = TypeVar("T")


def run(names: Sequence[str]) -> None:
    """Try the sampled changes of some areas that are not known to be killed, and keep the results."""
    sampled = samples(names)
    if os.environ.get("FRESH"):
        journal.PATH.unlink(missing_ok=True)
    known = journal.killed()
    missing = [each for each in by_turns(sampled) if each.identity not in known]
    print(f"{len(missing)} changes to try of {sum(map(len, sampled.values()))}", flush=True)
    verdicts = attempt(names, missing, journal.PATH)
    if os.environ.get("UNSEEN"):
        for name, wanted in sampled.items():
            report.keep_unseen(name, _known(wanted, verdicts))
    summarise(names)


def try_survivors(names: Sequence[str]) -> None:
    """Try again what survived before, by the tests that there are now; the scores of unseen changes stay."""
    verdicts = journal.read()
    tried = {name: _known(list(changes(AREAS[name].paths())), verdicts) for name in names}
    survivors = {name: [each for each, one in found if one.outcome not in NOTICED] for name, found in tried.items()}
    attempt(names, by_turns(survivors), journal.PATH)
    summarise(names)


def control(names: Sequence[str]) -> None:
    """Try the sampled changes without what they change, and keep which tests fail nevertheless."""
    journal.CONTROL.unlink(missing_ok=True)
    wanted = [each.without_change() for each in by_turns(samples(names))]
    print(report.keep_control(list(attempt(names, wanted, journal.CONTROL, confirm=False).values())), flush=True)


def attempt(names: Sequence[str], wanted: Sequence[Change], path: Path, *, confirm: bool = True) -> dict[str, Verdict]:
    """All verdicts in a journal, with those on these changes."""
    with journal.Journal(path) as kept:
        if wanted:
            examine(names, in_time(wanted), kept.add, confirm=confirm)
        known = _known(wanted, journal.read(path))
        for change, verdict in in_time([each for each in known if each[1].outcome == AT_IMPORT]):
            kept.add(change, examine_fresh(change, verdict.tests, confirm=confirm))
    return journal.read(path)


def summarise(names: Sequence[str]) -> None:
    """Keep the results of all that was tried of these areas' present text, also by earlier runs with other samples."""
    verdicts = journal.read()
    for name in names:
        every = list(changes(AREAS[name].paths()))
        if tried := [each for each in _known(every, verdicts) if each[1].outcome != AT_IMPORT]:
            print(report.keep(name, tried, len(every)), flush=True)


def _known(wanted: Sequence[Change], verdicts: Mapping[str, Verdict]) -> list[tuple[Change, Verdict]]:
    return [(each, verdicts[each.identity]) for each in wanted if each.identity in verdicts]


def samples(names: Sequence[str]) -> dict[str, list[Change]]:
    """The sampled changes of each area."""
    return {name: sample(list(changes(AREAS[name].paths()))) for name in names}


def by_turns(sampled: Mapping[str, Sequence[Change]]) -> list[Change]:
    """The first of each area, then the second of each, and so on."""
    return [each for turn in zip_longest(*sampled.values()) for each in turn if each is not None]


def sample(every: list[Change]) -> list[Change]:
    """As many changes as SAMPLE says, each as likely as every other, and the same ones where other lines are edited."""
    if os.environ.get("UNSEEN"):
        every = _in_order(every, SEED)[SAMPLE:]
    wanted = os.environ.get("SAMPLE") or str(SAMPLE)
    return _in_order(every, seed())[: None if wanted == "all" else int(wanted)]


def seed() -> int:
    """SEED, or the usual one; other changes than the usual ones have another."""
    return int(os.environ.get("SEED") or (SEED + 1 if os.environ.get("UNSEEN") else SEED))


def _in_order(every: Sequence[Change], seed: int) -> list[Change]:
    return sorted(every, key=lambda each: hashlib.sha256(f"{seed} {each.key}".encode()).digest())


def in_time(missing: Sequence[T]) -> Iterator[T]:
    """What is begun before MINUTES are over."""
    end = time.monotonic() + 60 * float(os.environ.get("MINUTES") or "inf")
    for each in missing:
        if time.monotonic() > end:
            return
        yield each


def named(areas: Sequence[str]) -> list[str]:
    """The areas of these names, in which a hyphen may stand for a space; all of them where none is named."""
    found = [each.replace("-", " ") for each in areas] or list(AREAS)
    if unknown := [each for each in found if each not in AREAS]:
        known = ", ".join(each.replace(" ", "-") for each in AREAS)
        raise SystemExit(f"no area is named {', '.join(unknown)}; there are {known}")
    return found


if __name__ == "__main__":
    options = {each for each in sys.argv[1:] if each.startswith("--")}
    chosen = named([each for each in sys.argv[1:] if each not in options])
    if "--results" in options:
        summarise(chosen)
    elif "--survivors" in options:
        try_survivors(chosen)
    elif os.environ.get("CONTROL"):
        control(chosen)
    elif "--page" not in options:
        run(chosen)
    report.write_page()
