"""Changed inputs for every parser, as long as one likes; each that fails is kept in tests/fuzz_corpus. `make fuzz`.

An input comes from the corpus by one to six changes that a seed chooses. A parser reads it or refuses it by an error
that it declares; anything else is a failure, and so is an input that takes too long. Failing inputs are shortened and
kept, so that `make test` fails until they are repaired and from then on holds the repair.

Run: python scripts/fuzz.py [--minutes 1] [--parser NAME …] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from _mutations import corpus, failure, keep, mutated, shortened  # noqa: E402  the folder of the tests is not a package
from _parsers import Parser, parsers  # noqa: E402

RESULTS: Final = ROOT / "tests" / "fuzz.json"
PAGE: Final = ROOT / "docs" / "fuzzing.md"
SLOW_S: Final = 5.0
"""No input of twenty kilobytes takes a parser so much CPU."""
LONG_MINUTES: Final = 5.0
"""A run of all parsers so long is written to docs/fuzzing.md, if nothing failed."""
SLICE_S: Final = 0.5
MOST_FAILURES: Final = 5
"""Of one parser; after these it is left alone, because most are one fault."""
HEAD: Final = """# Fuzzing: the last long result

Everything that reads what others wrote is a parser: lines of the audit log, answers of providers and of Prometheus,
headers, queries, files of settings, spans. Each of them reads an input or refuses it by an error that it declares, and
logs no failure of the library.

```text
make fuzz                                          # a minute for all parsers
make fuzz MINUTES=600                              # as long as you like
make fuzz ARGS="--parser usage --parser stream"    # some of them
make fuzz SEED=7                                   # again what seed 7 chose
```

Inputs are changes of the corpus in `tests/fuzz_corpus`, a folder for each parser, which has seeds and every input that
ever failed. A new failing input is shortened, printed and added; `make test` reads the whole corpus in every run, and a
few changes of each input.

Left out: files of Rego policies. regopy's parser is C++, and some malformed files end the process in it, which no
Python code can catch. Load only policies that you trust; an OPA server parses them in a process of its own.

"""


class Session:
    """One run of the fuzzer."""

    def __init__(self, seed: int, chosen: dict[str, Parser]) -> None:
        self.chance = random.Random(seed)  # noqa: S311  it chooses inputs, and no secrets
        self.parsers = chosen
        self.seeds = {name: corpus(name) for name in chosen}
        self.runs: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def run(self, minutes: float) -> float:
        """Give every parser as much time in turn: a slow one does not hold up the others.

        It ends when the time is up, by Ctrl-C, or when every parser has failed often enough; returns the minutes that
        it took.
        """
        began = time.monotonic()
        with suppress(KeyboardInterrupt):  # what was counted until then stays
            self._rounds(began + minutes * 60)
        return (time.monotonic() - began) / 60

    def _rounds(self, until: float) -> None:
        while time.monotonic() < until and (left := self._left()):
            for name in left:
                self._some(name, min(until, time.monotonic() + SLICE_S))

    def _left(self) -> list[str]:
        return [name for name in self.parsers if self.failures[name] < MOST_FAILURES]

    def _some(self, name: str, until: float) -> None:
        while True:
            self._one(name)
            if time.monotonic() > until:
                return

    def _one(self, name: str) -> None:
        parser, given = self.parsers[name], mutated(self.seeds[name], self.chance)
        began = time.process_time()
        error = failure(parser, given)
        self.runs[name] += 1
        if time.process_time() - began > SLOW_S:
            self._found(name, given, f"took {time.process_time() - began:.1f} s of CPU")
        elif error is not None:
            given = shortened(parser, given, error)
            self._found(name, given, repr(failure(parser, given) or error)[:200])

    def _found(self, name: str, given: bytes, what: str) -> None:
        if given not in self.seeds[name]:
            self.seeds[name].append(given)
            print(f"{name}: {what}\n    {given[:100]!r} is kept in {keep(name, given).relative_to(ROOT)}", flush=True)
        self.failures[name] += 1


def page(results: dict[str, int | str]) -> str:
    """The page of the docs."""
    runs = {name: count for name, count in results.items() if isinstance(count, int)}
    total = f"**{sum(runs.values()):,}** inputs without a failure"
    told = f"Last long result, {results['date']}, seed {results['seed']}: {total}.\n\n"
    rows = [f"| {name} | {count:,} | {len(corpus(name))} |" for name, count in sorted(runs.items())]
    return HEAD + told + "\n".join(["| parser | inputs | kept in the corpus |", "| --- | --- | --- |", *rows, ""])


def main(arguments: list[str] | None = None) -> int:
    """Fuzz; returns 1 where an input failed."""
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--parser", action="append")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = options.parse_args(arguments)
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # its parsers log what they refuse
    logging.getLogger("taskpilot_obs").addHandler(logging.NullHandler())
    with parsers() as found:
        if unknown := set(given.parser or ()) - set(found):
            options.error(
                f"no parser is named {', '.join(sorted(unknown))}; the parsers are {', '.join(sorted(found))}"
            )
        session = Session(given.seed, {name: found[name] for name in given.parser or found})
        minutes = session.run(given.minutes)
    for name, count in sorted(session.runs.items()):
        print(f"{name:<20} {count:>9,} inputs  {session.failures[name]:>3} failures")
    print(f"{sum(session.runs.values()):,} inputs by seed {given.seed}")
    if session.failures:
        return 1
    if minutes >= LONG_MINUTES and given.parser is None:
        stamp = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "seed": str(given.seed)}
        RESULTS.write_text(json.dumps({**stamp, **session.runs}, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
