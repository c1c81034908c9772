"""What recording rules would have recorded, for data that was back-filled."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml
from _dashboards import recording_rules, selectors, substituted, targets
from _servers import prometheus_server

from taskpilot_obs.rules.evidence import FIRST_SEEN

_RULES = recording_rules()
del _RULES[FIRST_SEEN]  # reads its own past: the data that is back-filled holds it


def back_fill_rules(folder: Path, uids: Sequence[str], *, end: int, hours: int) -> None:
    """The past of the recording rules that these dashboards need, as if Prometheus had evaluated them all the time.

    `promtool` evaluates each rule against what is stored, so rules that build on rules come in rounds of their own.
    """
    # Prometheus evaluates a group at a phase that it draws from the path of its file. With a path for each round, a
    # share would divide figures of different moments, and exceed the whole.
    rules = folder / "rules.yml"
    for names in _rounds(uids):
        group = {"name": "round", "rules": [{"record": name, **_RULES[name]} for name in names]}
        rules.write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
        with prometheus_server(data_dir=folder / "data") as url:
            span = [f"--start={end - hours * 3600}", f"--end={end}", "--eval-interval=60s"]
            command = ["promtool", "tsdb", "create-blocks-from", "rules", f"--url={url}", *span]
            subprocess.run([*command, f"--output-dir={folder / 'data'}", str(rules)], check=True, capture_output=True)


def _rounds(uids: Sequence[str]) -> list[list[str]]:
    """The rules that the dashboards name and all that those build on, each after what it builds on."""
    shown = {target.expr for target in targets() if target.dashboard in uids}
    needed: dict[str, set[str]] = {}
    waiting = {name for expr in shown for name in _rules_in(substituted(expr))}
    while waiting:
        name = waiting.pop()
        needed[name] = _rules_in(str(_RULES[name]["expr"])) - {name}  # one rule reads its own last result
        waiting |= needed[name] - set(needed)
    return _layers(needed)


def _layers(needed: dict[str, set[str]]) -> list[list[str]]:
    layers: list[list[str]] = []
    done: set[str] = set()
    while len(done) < len(needed):
        ready = sorted(name for name, parts in needed.items() if name not in done and parts <= done)
        layers.append(ready)
        done |= set(ready)
    return layers


def _rules_in(expr: str) -> set[str]:
    return {selector.name or "" for selector in selectors(expr)} & set(_RULES)
