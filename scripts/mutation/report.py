"""Writes docs/mutation.md of tests/mutation.json, the last results, and of tests/mutation.toml, the reasons."""

from __future__ import annotations

import fcntl
import json
import math
import subprocess
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from scripts.mutation.areas import AREAS, ROOT, SAMPLE, SEED
from scripts.mutation.journal import FOLDER
from scripts.mutation.model import ASSERTION, ENDED, EXCEPTION, HUNG, NOTICED, Change, Verdict

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
which tests run which lines; a change is then tried by the tests that run the changed statement, until one fails or
eight seconds of processor time have passed: those named like the changed line first, then one case of each test, then a
second one. A test that takes more than two seconds is left out. Each change is tried in a fork of a process that has
imported everything, so that it costs about 50 ms; where an import runs the changed statement, a new interpreter tries
it. A change that another test of the suite would notice counts as a survivor here.

{how}

{control}

```bash
make mutation                            # {sample} changes of each area; those killed before are not tried again
make mutation ARGS=pricing SAMPLE=all    # every change of one area (a hyphen stands for a space: usage-values)
make mutation MINUTES=10                 # stops after ten minutes; what was tried until then is random too
make mutation FRESH=1                    # everything again
make mutation ARGS=--survivors           # those that survived, by the tests that there are now
make mutation UNSEEN=1                   # only changes outside the usual sample: the column "unseen"
make mutation CONTROL=1                  # the same sample without its changes: no test may fail
```

| area | modules | changes tried | killed | equivalent | survive | score | interval | unseen | at |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |
"""
SCOPE: Final = """**What the score is of.** {tried} The interval says where the score of all changes of the area lies,
at 95 % (Wilson). A change that does what the code did before (*equivalent*) is left out of the score; every other
survivor counts against it, whatever its reason. Code outside functions, default values of closures, and the rest of the
library are not changed. Tests were written for survivors of the sample, and then its score leans high. The score of the
column *unseen* does not: it is that of changes outside the usual sample at their first try, before a test was written
for any of them. {seen}"""
BELIEVED: Final = """**What is believed.** A failure counts only if the same tests, in the same order, pass at once
without the change: one that fails without it too is left out for the rest of the run."""
HOW: Final = {
    ASSERTION: "by an assertion that did not hold",
    EXCEPTION: "by another exception that reached the test",
    ENDED: "because the import or the process of the test failed",
    HUNG: "because the test did not end",
}


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

    @property
    def share(self) -> str:
        """The score."""
        return f"{100 * self.killed / max(1, self.counted):.1f} %"

    @property
    def interval(self) -> str:
        """Where the score of all changes lies."""
        low, high = wilson(self.killed, self.counted)
        return f"{100 * low:.0f} to {100 * high:.0f} %"

    @property
    def short(self) -> str:
        """The score and what it is of."""
        return f"{self.share} of {self.counted:,} ({self.interval})" if self.counted else ""

    def __str__(self) -> str:
        return f"{self.killed:,} | {self.equivalent:,} | {self.survive:,} | {self.share} | {self.interval}"


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
    result = {"made": made, **_result(tried)}
    _keep_area(name, result)
    return f"{name}: killed | equivalent | survive | score | interval: {_score(result, reasons())}"


def keep_unseen(name: str, tried: Sequence[tuple[Change, Verdict]]) -> None:
    """Write down how changes that no test was written for did at their first try."""
    _keep_area(name, {"unseen": _result(tried)})


def keep_control(verdicts: Sequence[Verdict]) -> str:
    """Write down how many changes without a change were noticed; returns a line for the terminal."""
    noticed = [each for each in verdicts if each.outcome in NOTICED]
    control = {**_when(), "tried": len(verdicts), "noticed": sorted({each.by or each.outcome for each in noticed})}
    with _alone():
        _write(kept() | {"control": control | {"times": len(noticed)}})
    return f"without a change: {len(noticed)} of {len(verdicts)} noticed {control['noticed']}"


def _result(tried: Sequence[tuple[Change, Verdict]]) -> dict[str, Any]:
    how = Counter(verdict.how or verdict.outcome for _, verdict in tried if verdict.outcome in NOTICED)
    return {
        **_when(),
        "tried": len(tried),
        "how": {each: how[each] for each in HOW if how[each]},
        "survivors": [
            {"function": change.function, "change": change.difference, "outcome": verdict.outcome}
            for change, verdict in tried
            if verdict.outcome not in NOTICED
        ],
    }


def _when() -> dict[str, str]:
    """The day, and the commit of the checkout."""
    commit = subprocess.check_output(["git", "rev-parse", "--short=9", "HEAD"], cwd=ROOT, text=True)
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit.strip()}


def _keep_area(name: str, result: Mapping[str, Any]) -> None:
    """Put this in the place of what was kept of the area, and leave the rest of it."""
    with _alone():
        results = kept()
        areas = results["areas"] | {name: results["areas"].get(name, {}) | result}
        _write(results | {"areas": {each: areas[each] for each in AREAS if each in areas}})


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes, which try other areas, from writing at the same time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(results: Mapping[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def kept() -> dict[str, Any]:
    """The last result of each area, and of the control."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"areas": {}, "control": None}


def write_page() -> None:
    """Write docs/mutation.md."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page of the docs."""
    why, results = reasons(), kept()
    areas = {name: each for name, each in results["areas"].items() if "tried" in each}
    text = HEAD.format(
        bar=BAR, sample=SAMPLE, scope=_scope(areas), how=_how(areas), control=_control(results["control"])
    )
    text += "\n".join([*(_row(name, areas.get(name), why) for name in AREAS), _total(areas, why)])
    text += "\n\n## Survivors\n\n" + "\n".join(f"- *{kind}*: {meaning}." for kind, meaning in KINDS.items()) + "\n\n"
    text += _by_kind(areas, why)
    for name in areas:
        if survivors := areas[name]["survivors"]:
            text += "\n".join([f"### {name.capitalize()}", "", *_survivors(survivors, why), "", ""])
    return text.rstrip() + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _scope(areas: Mapping[str, Any]) -> str:
    """The paragraph about what was tried."""
    made, tried = (sum(each[key] for each in areas.values()) for key in ("made", "tried"))
    named = f"All {len(AREAS)}" if len(areas) == len(AREAS) else f"{len(areas)} of the {len(AREAS)}"
    told = f"{named} areas below were tried. They have {made:,} changes"
    if areas and made == tried:
        told += ", all of which were tried."
    else:
        told += (
            f", of which {tried:,} were tried: a random sample of each area, in which each change is as likely as "
            f"every other (seed {SEED}). `SAMPLE=all` tries all of them."
        )
    unseen = sum(each["tried"] for each in _unseen(areas))
    seen = f"{unseen:,} of them were tried." if unseen else "None of them was tried with this code."
    return _wrapped(SCOPE.format(tried=told, seen=seen))


def _how(areas: Mapping[str, Any]) -> str:
    """The paragraph about how the killed changes were noticed."""
    total = sum((Counter(each["how"]) for each in areas.values()), Counter[str]())
    ways = ", ".join(f"{total[each]:,} {text}" for each, text in HOW.items())
    return _wrapped(f"{BELIEVED} Of the killed changes were noticed {ways}.")


def _control(control: Mapping[str, Any] | None) -> str:
    """The paragraph about the run without changes."""
    if control is None:
        return "**Control.** Not run yet."
    told = (
        f"**Control.** At `{control['commit']}`, {control['tried']:,} changes of the sample were tried in this way "
        f"without what they change: each function of their module got new code that does what it did. "
        f"{control['times']} of them were noticed."
    )
    told += "".join(f" `{each}` failed." for each in control["noticed"])
    return _wrapped(f"{told} {control.get('note', '')}".strip())


def _unseen(areas: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each["unseen"] for each in areas.values() if "unseen" in each]


def _score(result: Mapping[str, Any], why: Reasons) -> Score:
    kinds = Counter(reason_of(each, why).kind for each in result["survivors"])
    equivalent = kinds.pop(EQUIVALENT, 0)
    return Score(result["tried"], equivalent, kinds.total())


def _row(name: str, result: Mapping[str, Any] | None, why: Reasons) -> str:
    modules = ", ".join(f"`{each}`" for each in AREAS[name].modules)
    if result is None:
        return f"| {name} | {modules} | not run yet | | | | | | | |"
    changes = f"{result['tried']:,} of {result['made']:,}"
    unseen = _score(result["unseen"], why).short if "unseen" in result else ""
    when = f"{result['date']}, `{result['commit']}`"
    return f"| {name} | {modules} | {changes} | {_score(result, why)} | {unseen} | {when} |"


def _total(areas: Mapping[str, Any], why: Reasons) -> str:
    total, unseen = _sum(areas.values(), why), _sum(_unseen(areas), why)
    made = sum(each["made"] for each in areas.values())
    return f"| **total** | | {total.tried:,} of {made:,} | {total} | {unseen.short} | |"


def _sum(results: Iterable[Mapping[str, Any]], why: Reasons) -> Score:
    scores = [_score(each, why) for each in results]
    return Score(*(sum(column) for column in zip(Score(0, 0, 0), *scores, strict=True)))


def _by_kind(areas: Mapping[str, Any], why: Reasons) -> str:
    kinds = Counter(reason_of(survivor, why).kind for each in areas.values() for survivor in each["survivors"])
    told = ", ".join(f"{kinds[kind]} *{kind}*" for kind in KINDS)
    return f"{kinds.total()} changes survive: {told}.\n\n"


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
