"""Changes the library's code in small ways and counts how many changes its tests notice; `make mutation` runs it.

Each area is a few modules and the tests that cover them, run by mutmut in a copy of the checkout under build/mutation.
The score of an area is kept in tests/mutation.json, so that areas can be run on different days; docs/mutation.md is
written of that file and of tests/mutation.toml, which has the reason for each survivor that was looked at.

Run: python scripts/mutation.py [AREA …] (without an area: all, one after the other), or `--page` to write the page only
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
WORK: Final = ROOT / "build" / "mutation"
RESULTS: Final = ROOT / "tests" / "mutation.json"
REASONS: Final = ROOT / "tests" / "mutation.toml"
PAGE: Final = ROOT / "docs" / "mutation.md"
BAR: Final = 85
COPIED: Final = ("tests", "docs", "examples", "integrations", "observability", "scripts", "README.md", "CHANGELOG.md")
SURVIVED: Final = frozenset({0, 33})
"""How mutmut ends for a change that the tests passed, and for one that none of them runs."""
INTERRUPTED: Final = frozenset({None, 2})
HEAD: Final = """# Mutation score: would the tests notice?

Written by `make mutation`. [mutmut](https://mutmut.readthedocs.io) changes the code in small ways: another operator,
another constant, an argument left out. A change is *killed* if a test fails or hangs; a *survivor* is either code that
no test holds to its purpose, or a change that makes no difference. The bar is {bar} % killed. Each area runs the tests
that are named beside it and no others, so a change that another test would notice counts as a survivor here.

| area | modules | changes | killed | score | date |
| --- | --- | --- | --- | --- | --- |
"""


class Area(NamedTuple):
    """Modules that are changed, and the tests that have to notice."""

    modules: tuple[str, ...]
    """Patterns below `taskpilot_obs/`."""
    tests: tuple[str, ...]
    """Files below `tests/`."""


AREAS: Final[Mapping[str, Area]] = {
    "usage values": Area(
        ("usage/values.py", "usage/read.py", "usage/fields.py"),
        ("test_usage.py", "test_usage_providers.py", "test_usage_modes.py"),
    ),
    "usage shapes": Area(
        ("usage/shapes/*.py", "usage/envelopes.py"),
        ("test_usage.py", "test_usage_providers.py", "test_usage_modes.py", "test_usage_recorded.py"),
    ),
    "usage streams": Area(
        ("usage/streams.py", "usage/failures.py", "usage/content.py"),
        ("test_usage.py", "test_usage_streams.py", "test_usage_providers.py", "test_usage_modes.py"),
    ),
    "pricing": Area(
        ("pricing/*.py",), ("test_pricing.py", "test_pricing_cards.py", "test_cost_of.py", "test_billing.py")
    ),
    "safety patterns": Area(
        ("safety/personal.py", "safety/credentials.py", "safety/assignments.py", "safety/secret_keys.py"),
        ("safety",),
    ),
    "safety": Area(
        ("safety/redaction.py", "safety/policies.py", "safety/checks.py", "safety/words.py", "safety/texts.py"),
        ("safety",),
    ),
    "audit chain": Area(
        ("audit/chain.py", "audit/encoding.py", "audit/verify.py"),
        ("test_audit_verify.py", "test_audit_rows.py", "exporters"),
    ),
    "audit files": Area(
        ("audit/writer.py", "audit/files.py", "audit/manifest.py"),
        ("test_audit_verify.py", "test_audit_strange_files.py", "exporters"),
    ),
    "budgets": Area(
        ("budgets/ledger.py", "budgets/model.py", "budgets/estimates.py", "budgets/outbox.py", "budgets/alerts.py"),
        ("test_budgets.py", "test_budgets_properties.py", "test_budgets_seams.py"),
    ),
    "budget control": Area(
        ("budgets/admission.py", "budgets/settlement.py", "budgets/reservation.py"),
        ("test_budgets.py", "test_budgets_seams.py", "test_budgets_interruptions.py"),
    ),
    "recording values": Area(
        ("_recording/statuses.py", "_recording/rollups.py", "_recording/snapshots.py", "_recording/context.py"),
        ("test_statuses.py", "test_recorder.py", "test_context.py", "test_decorators.py"),
    ),
    "recording core": Area(
        ("_recording/invocation.py", "_recording/llm_invocation.py", "_recording/recorder.py"),
        ("test_recorder.py", "test_llm_invocation.py", "test_decorators.py", "test_awkward_calls.py"),
    ),
    "pipeline": Area(("_pipeline/*.py",), ("test_pipeline.py", "test_delivery.py")),
}


class Mutant(NamedTuple):
    """One change of the code, and what became of it."""

    name: str
    exit_code: int | None


def run(name: str, seconds: float) -> None:
    """Run one area as long as allowed, and keep its result."""
    home = _prepared(AREAS[name])
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        subprocess.run(command, cwd=home, env=environment, check=True, timeout=seconds or None)
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped after {seconds:.0f} s; the page says how many changes were tried")
    mutants = list(_mutants(home))
    decided = [each for each in mutants if each.exit_code not in INTERRUPTED]
    survivors = [_shown(home, each) for each in decided if each.exit_code in SURVIVED]
    results = kept()
    results[name] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "made": len(mutants),
        "tried": len(decided),
        "killed": len(decided) - len(survivors),
        "survivors": survivors,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


def _prepared(area: Area) -> Path:
    """A copy of the checkout, in which mutmut makes a copy of its own."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for each in ("taskpilot_obs", *COPIED):
        copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy
        copy(ROOT / each, WORK / each)
    options = {
        "source_paths": ["taskpilot_obs"],
        "only_mutate": [f"taskpilot_obs/{each}" for each in area.modules],
        "also_copy": [each for each in COPIED if each != "tests"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-m", "not full", "-o", "timeout=60"],
        "pytest_add_cli_args_test_selection": [f"tests/{each}" for each in area.tests],
        "mutate_only_covered_lines": True,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (WORK / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")
    return WORK


def _mutants(home: Path) -> Iterator[Mutant]:
    for path in sorted((home / "mutants" / "taskpilot_obs").rglob("*.meta")):
        for name, code in json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"].items():
            yield Mutant(name, code)


def _shown(home: Path, mutant: Mutant) -> dict[str, str]:
    """Where a survivor is, and the lines that it changes."""
    command = [sys.executable, "-m", "mutmut", "show", mutant.name]
    diff = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False).stdout
    changed = [line for line in diff.splitlines() if line[:1] in {"-", "+"} and line[:3] not in {"---", "+++"}]
    return {"function": _function(mutant.name), "change": " ".join(" ".join(changed).split())}


def _function(name: str) -> str:
    """`module.Class.method` of mutmut's name for a change."""
    plain = name.partition("__mutmut_")[0].removeprefix("taskpilot_obs.")
    module, _, function = plain.rpartition(".")
    return f"{module}.{function.removeprefix('x_').replace('xǁ', '').replace('ǁ', '.')}"


def kept() -> dict[str, Any]:
    """The last result of each area that was run."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def page() -> str:
    """The page of the docs."""
    results = kept()
    reasons = _reasons()
    text = HEAD.format(bar=BAR) + "\n".join(_row(name, area, results.get(name)) for name, area in AREAS.items())
    text += "\n\n## Survivors\n\n"
    for name, result in results.items():
        if result["survivors"]:
            text += "\n".join([f"### {name.capitalize()}", "", *_survivors(result["survivors"], reasons), "", ""])
    return text.rstrip() + "\n"


def _row(name: str, area: Area, result: Mapping[str, Any] | None) -> str:
    modules = ", ".join(f"`{each}`" for each in area.modules)
    if result is None:
        return f"| {name} | {modules} | not run yet | | | |"
    tried, made, killed = result["tried"], result["made"], result["killed"]
    changes = f"{tried:,}" if tried == made else f"{tried:,} of {made:,} (cut short)"
    return f"| {name} | {modules} | {changes} | {killed:,} | {100 * killed / max(1, tried):.1f} % | {result['date']} |"


def _survivors(survivors: Sequence[Mapping[str, str]], reasons: Mapping[tuple[str, str], str]) -> Iterator[str]:
    yield "| function | change | reason |"
    yield "| --- | --- | --- |"
    times = Counter((each["function"], each["change"]) for each in survivors)
    for (function, change), number in times.items():
        reason = reasons.get((function, change)) or reasons.get((function, "")) or "not looked at yet"
        shown = change.replace("|", "\\|").replace("`", "'")
        yield f"| `{function}` | `{shown}`{f' ({number} times)' if number > 1 else ''} | {reason} |"


def _reasons() -> dict[tuple[str, str], str]:
    """By function and change; a reason without a change holds for all changes of its function."""
    stated = tomllib.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
    return {(each["function"], each.get("change", "")): each["reason"] for each in stated.get("survivor", ())}


if __name__ == "__main__":
    if sys.argv[1:] == ["--page"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        for chosen in sys.argv[1:] or AREAS:
            run(chosen, float(os.environ.get("MUTATION_SECONDS", "0")))
