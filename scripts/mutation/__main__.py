"""Try the changes of some areas and write docs/mutation.md.

Run: python -m scripts.mutation [AREA …] (without an area: all), with `--results` to count what was tried before,
or with `--page` to write the page only.
SAMPLE=100 tries so many changes of each area, SAMPLE=all all of them. A change that was killed is not tried again until
its module's text changes; survivors are tried again each time. FRESH=1 tries everything again. MINUTES=5 stops after so
many minutes of changes: what was tried until then is a random sample too, because the order is random.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from scripts.mutation import journal, report
from scripts.mutation.areas import AREAS, SAMPLE, SEED
from scripts.mutation.changes import changes
from scripts.mutation.model import AT_IMPORT, Change
from scripts.mutation.session import examine, examine_fresh


def run(names: Sequence[str]) -> None:
    """Try the sampled changes of some areas that are not known to be killed, and keep the results."""
    sampled = samples(names)
    if os.environ.get("FRESH"):
        journal.PATH.unlink(missing_ok=True)
    known = journal.killed()
    by_turns = (each for turn in zip_longest(*sampled.values()) for each in turn if each is not None)
    missing = [each for each in by_turns if each.identity not in known]
    print(f"{len(missing)} changes to try of {sum(map(len, sampled.values()))}", flush=True)
    with journal.Journal() as kept:
        if missing:
            examine(names, in_time(missing), kept.add)
        verdicts = journal.read()
        for change in missing:
            verdict = verdicts.get(change.identity)
            if verdict is not None and verdict.outcome == AT_IMPORT:
                kept.add(change, examine_fresh(change, verdict.tests))
    summarise(names)


def summarise(names: Sequence[str]) -> None:
    """Keep the results of all that was tried of these areas' present text, also by earlier runs with other samples."""
    verdicts = journal.read()
    for name in names:
        every = list(changes(AREAS[name].paths()))
        tried = [(each, verdicts[each.identity]) for each in every if each.identity in verdicts]
        if tried:
            print(report.keep(name, tried, len(every)), flush=True)


def samples(names: Sequence[str]) -> dict[str, list[Change]]:
    """The sampled changes of each area."""
    return {name: sample(list(changes(AREAS[name].paths()))) for name in names}


def sample(every: list[Change]) -> list[Change]:
    """As many changes as SAMPLE says, each as likely as every other, and the same ones where other lines are edited."""
    wanted = os.environ.get("SAMPLE") or str(SAMPLE)
    number = len(every) if wanted == "all" else min(int(wanted), len(every))
    return sorted(every, key=lambda each: hashlib.sha256(f"{SEED} {each.key}".encode()).digest())[:number]


def in_time(missing: Sequence[Change]) -> Iterator[Change]:
    """The changes until MINUTES are over."""
    end = time.monotonic() + 60 * float(os.environ.get("MINUTES") or "inf")
    for each in missing:
        if time.monotonic() > end:
            return
        yield each


if __name__ == "__main__":
    options = {each for each in sys.argv[1:] if each.startswith("--")}
    chosen = [each for each in sys.argv[1:] if each not in options] or list(AREAS)
    if "--results" in options:
        summarise(chosen)
    elif "--page" not in options:
        run(chosen)
    report.write_page()
