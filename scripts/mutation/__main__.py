"""Try the changes of some areas and write docs/mutation.md.

Run: python -m scripts.mutation [AREA …] (without an area: all), with `--results` to count what was tried before,
or with `--page` to write the page only.
SAMPLE=100 tries so many changes of each area, SAMPLE=all all of them. A change that was killed is not tried again until
its module's text changes; survivors are tried again each time. FRESH=1 tries everything again. MINUTES=5 stops after so
many minutes of changes: what was tried until then is a random sample too, because the order is random.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from scripts.mutation import journal, report
from scripts.mutation.areas import AREAS, SAMPLE, SEED
from scripts.mutation.changes import changes
from scripts.mutation.model import AT_IMPORT, Change
from scripts.mutation.session import examine, examine_fresh


def run(names: Sequence[str]) -> None:
    """Try the sampled changes of some areas that are not known to be killed, and keep the results."""
    sampled = samples(names)
    known = journal.killed() if not os.environ.get("FRESH") else set()
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
    summarise(sampled)


def summarise(sampled: Mapping[str, Sequence[Change]]) -> None:
    """Keep the results of what was tried, also where the run was cut short."""
    verdicts = journal.read()
    for name, every in sampled.items():
        made = len(list(changes(AREAS[name].paths())))
        tried = [(each, verdicts[each.identity]) for each in every if each.identity in verdicts]
        if tried:
            print(report.keep(name, tried, made), flush=True)


def samples(names: Sequence[str]) -> dict[str, list[Change]]:
    """The sampled changes of each area."""
    return {name: sample(name, list(changes(AREAS[name].paths()))) for name in names}


def sample(name: str, every: list[Change]) -> list[Change]:
    """As many changes as SAMPLE says, each as likely as every other; the seed is the area's."""
    wanted = os.environ.get("SAMPLE") or str(SAMPLE)
    number = len(every) if wanted == "all" else min(int(wanted), len(every))
    chosen = random.Random(f"{SEED} {name}").sample(range(len(every)), len(every))[:number]  # noqa: S311
    return [every[each] for each in chosen]


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
        summarise(samples(chosen))
    elif "--page" not in options:
        run(chosen)
    report.write_page()
