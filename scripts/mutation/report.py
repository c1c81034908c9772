"""Writes docs/mutation.md of tests/mutation.json, the last results, and of tests/mutation.toml, the reasons."""

from __future__ import annotations

import json
import math
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from scripts.mutation.areas import AREAS, ROOT, SAMPLE, SEED
from scripts.mutation.model import NOTICED, Change, Verdict

RESULTS: Final = ROOT / "tests" / "mutation.json"
REASONS: Final = ROOT / "tests" / "mutation.toml"
PAGE: Final = ROOT / "docs" / "mutation.md"
BAR: Final = 85
EQUIVALENT: Final = "equivalent"
KINDS: Final = {
    EQUIVALENT: "the changed code does what the code did, for every input; not counted in the score",
    "text": "the wording of a log line or of a message, which tests leave free",
    "cost": "the same result at another cost in time or memory",
    "guard": "a second line of defence, which is reached only where another one fails",
    "open": "a test could notice this and does not yet",
}
HEAD: Final = """# Mutation score: would the tests notice?

Written by `make mutation`, which is not part of CI. It changes the code in small ways, by the operators of
[mutmut](https://mutmut.readthedocs.io): another operator, another constant, an argument left out. A change is *killed*
if a test fails or hangs; a *survivor* is either code that no test holds to its purpose, or a change that makes no
difference. The bar is {bar} % killed.

{scope}

**Which tests have to notice.** Each area names its test files in `scripts/mutation/areas.py`. One run of them shows
which tests run which lines; a change is then tried by the tests that run the changed statement, one case of each test
first, until one fails or four seconds of processor time have passed; a test that takes more than two seconds is left
out. It is tried in a fork of a process that has imported everything, so that a change costs about 50 ms; where an
import runs the changed statement, a new interpreter tries it. A change that another test of the suite would notice
counts as a survivor here.

```bash
make mutation                            # {sample} changes of each area; those killed before are not tried again
make mutation ARGS=pricing SAMPLE=all    # every change of one area
make mutation MINUTES=10                 # stops after ten minutes; what was tried until then is random too
make mutation FRESH=1                    # everything again
```

| area | modules | changes tried | killed | equivalent | survive | score | interval | date |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |
"""
SCOPE: Final = """**What the score is of.** {tried} The interval says where the score of all changes of the area lies,
at 95 % (Wilson). A change that does what the code did before (*equivalent*) is left out of the score; every other
survivor counts against it, whatever its reason. Code outside functions, default values of closures, and the rest of the
library are not changed."""


class Score(NamedTuple):
    """The result of some changes."""

    tried: int
    equivalent: int
    survive: int

    @property
    def killed(self) -> int:
        """Changes that a test noticed."""
        return self.tried - self.equivalent - self.survive

    @property
    def counted(self) -> int:
        """Changes that a test could notice."""
        return self.tried - self.equivalent

    def __str__(self) -> str:
        low, high = wilson(self.killed, self.counted)
        share = 100 * self.killed / max(1, self.counted)
        return (
            f"{self.killed:,} | {self.equivalent:,} | {self.survive:,} | {share:.1f} % "
            f"| {100 * low:.0f} to {100 * high:.0f} %"
        )


class Reason(NamedTuple):
    """Why a survivor may survive."""

    kind: str
    text: str


Reasons = Mapping[tuple[str, str], Reason]


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """The interval that has the true share in it in 95 of 100 samples."""
    if not tries:
        return 0.0, 1.0
    z = 1.959964
    share, weight = hits / tries, z * z / tries
    middle = (share + weight / 2) / (1 + weight)
    reach = z * math.sqrt(share * (1 - share) / tries + weight / (4 * tries)) / (1 + weight)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def keep(name: str, tried: Sequence[tuple[Change, Verdict]], made: int) -> str:
    """Write the area's result down; returns a line for the terminal."""
    results = kept()
    results[name] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "made": made,
        "tried": len(tried),
        "survivors": [
            {"function": change.function, "change": change.difference, "outcome": verdict.outcome}
            for change, verdict in tried
            if verdict.outcome not in NOTICED
        ],
    }
    in_order = {each: results[each] for each in AREAS if each in results}
    RESULTS.write_text(json.dumps(in_order, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return f"{name}: killed | equivalent | survive | score | interval: {_score(results[name], reasons())}"


def kept() -> dict[str, Any]:
    """The last result of each area."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def write_page() -> None:
    """Write docs/mutation.md."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page of the docs."""
    results, why = kept(), reasons()
    text = HEAD.format(bar=BAR, sample=SAMPLE, scope=_scope(results))
    text += "\n".join([*(_row(name, results.get(name), why) for name in AREAS), _total(results, why)])
    text += "\n\n## Survivors\n\n" + "\n".join(f"- *{kind}*: {meaning}." for kind, meaning in KINDS.items()) + "\n\n"
    for name in AREAS:
        if survivors := results.get(name, {}).get("survivors"):
            text += "\n".join([f"### {name.capitalize()}", "", *_survivors(survivors, why), "", ""])
    return text.rstrip() + "\n"


def _scope(results: Mapping[str, Any]) -> str:
    """The paragraph about what was tried, wrapped."""
    made, tried = (sum(each[key] for each in results.values()) for key in ("made", "tried"))
    areas = f"All {len(AREAS)}" if len(results) == len(AREAS) else f"{len(results)} of the {len(AREAS)}"
    told = f"{areas} areas below were tried. They have {made:,} changes"
    if results and made == tried:
        told += ", all of which were tried."
    else:
        told += (
            f", of which {tried:,} were tried: a random sample of each area, in which each change is as likely as "
            f"every other (seed {SEED}). `SAMPLE=all` tries all of them."
        )
    return textwrap.fill(SCOPE.format(tried=told), 120, break_long_words=False, break_on_hyphens=False)


def _score(result: Mapping[str, Any], why: Reasons) -> Score:
    kinds = Counter(reason_of(each, why).kind for each in result["survivors"])
    equivalent = kinds.pop(EQUIVALENT, 0)
    return Score(result["tried"], equivalent, kinds.total())


def _row(name: str, result: Mapping[str, Any] | None, why: Reasons) -> str:
    modules = ", ".join(f"`{each}`" for each in AREAS[name].modules)
    if result is None:
        return f"| {name} | {modules} | not run yet | | | | | | |"
    changes = f"{result['tried']:,} of {result['made']:,}"
    return f"| {name} | {modules} | {changes} | {_score(result, why)} | {result['date']} |"


def _total(results: Mapping[str, Any], why: Reasons) -> str:
    scores = [_score(each, why) for each in results.values()]
    total = Score(*(sum(column) for column in zip(Score(0, 0, 0), *scores, strict=True)))
    made = sum(each["made"] for each in results.values())
    return f"| **total** | | {total.tried:,} of {made:,} | {total} | |"


def _survivors(survivors: Sequence[Mapping[str, str]], why: Reasons) -> Iterator[str]:
    yield "| function | change | reason |"
    yield "| --- | --- | --- |"
    times = Counter((each["function"], each["change"]) for each in survivors)
    for (function, change), number in times.items():
        kind, text = reason_of({"function": function, "change": change}, why)
        shown = change.replace("|", "\\|").replace("`", "'")
        often = f" ({number} times)" if number > 1 else ""
        yield f"| `{function}` | `{shown}`{often} | *{kind}*: {text} |"


def reasons() -> Reasons:
    """By function and change; a reason without a change holds for all changes of its function."""
    stated = tomllib.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
    return {
        (each["function"], each.get("change", "")): Reason(each["kind"], each["reason"])
        for each in stated.get("survivor", ())
    }


def reason_of(survivor: Mapping[str, str], why: Reasons) -> Reason:
    """The reason given for a survivor."""
    function = survivor["function"]
    found = why.get((function, survivor["change"])) or why.get((function, ""))
    return found or Reason("open", "not looked at yet")
