"""Recording rules under other names, for dashboards and alerts that exist already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from taskpilot_obs import semconv
from taskpilot_obs._support.config_files import load_config_file
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.rules.folders import RECORDING_FILE, Target, folders, pack
from taskpilot_obs.rules.model import Recording, RuleFolder, RuleGroup, recording_text
from taskpilot_obs.rules.settings import RuleSettings

FOLDER: Final = "aliases"
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def load_aliases(path: Path, settings: RuleSettings) -> tuple[Recording, ...]:
    """Read a YAML or TOML file of names and the expressions that they stand for.

    Args:
        path: the file: `old_name: expression` for each name.
        settings: of the rules beside which the aliases are loaded.

    Raises:
        ConfigurationError: the file cannot be read, a name is not a metric name or is in use, or an expression is not
            text.
        MissingExtraError: it is YAML, and PyYAML is not installed.
    """
    found = load_config_file(path, "file of aliases", extra="rules")
    if not (isinstance(found, dict) and found):
        raise ConfigurationError(f"{path}: given no names; give lines such as `old_name: expression`")
    taken = _names_in_use(settings)
    return tuple(_recording(str(name), expression, taken) for name, expression in found.items())


def _recording(name: str, expression: object, taken: frozenset[str]) -> Recording:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is not a name of a metric: letters, digits, _ and : are allowed")
    if name in taken:
        raise ConfigurationError(f"{name} is a name of this library: two series of one name would mix; choose another")
    if not (isinstance(expression, str) and expression.strip()):
        raise ConfigurationError(f"{name}: given {expression!r}; give a PromQL expression as text")
    return Recording(name, expression.strip())


def _names_in_use(settings: RuleSettings) -> frozenset[str]:
    families = (metric.name for metric in semconv.METRICS)
    recorded = (
        rule.record
        for folder in folders(settings)
        for group in folder.recordings
        for rule in group.rules
        if isinstance(rule, Recording)
    )
    return frozenset((*families, *recorded))


def write_aliases(path: Path, settings: RuleSettings, out: Path, target: Target = Target.PROMETHEUS) -> Path:
    """Write `aliases/recording.yml` below a folder.

    Args:
        path: the file of aliases, as for `load_aliases`.
        settings: of the rules beside it.
        out: the folder of rules.
        target: what will load the file.

    Raises:
        ConfigurationError: as for `load_aliases`.
        OSError: the file cannot be written.
    """
    group = RuleGroup("taskpilot-aliases", settings.evaluation_interval, load_aliases(path, settings))
    name = f"{FOLDER}/{RECORDING_FILE}"
    written = out / name
    text = pack(name, recording_text(RuleFolder(FOLDER, "", (group,), ())), target)
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(text, encoding="utf-8")
    return written
