"""Finds and copies what is shipped beside the library: rules, dashboards, configuration of the servers around it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from taskpilot_obs.exceptions import ConfigurationError

_PACKAGE: Final = Path(__file__).resolve().parent.parent
RULES: Final = Path("prometheus", "rules")
"""The folder of rules below the shipped tree."""
SETTINGS: Final = Path("prometheus", "slo.yml")
"""The settings that the shipped rules were rendered from."""
_READABLE: Final = 0o644


def observability_dir() -> Path:
    """The shipped tree: within the installed package, or the folder of the checkout.

    Raises:
        ConfigurationError: neither is there.
    """
    for candidate in (_PACKAGE / "_observability", _PACKAGE.parent / "observability"):
        if (candidate / SETTINGS).is_file():
            return candidate
    raise ConfigurationError(
        f"the files of observability/ are neither in {_PACKAGE} nor beside it: install the wheel, or use a checkout"
    )


def export_assets(target: Path, *, overwrite: bool = False) -> list[Path]:
    """Copy the shipped tree into a folder, which is made if need be.

    Args:
        target: the folder.
        overwrite: replace files that are there and differ; files that are not ours are never touched.

    Returns:
        The files that were written, in order.

    Raises:
        ConfigurationError: `target` is a file, or holds a changed file of ours and `overwrite` is false; then nothing
            is written.
        OSError: a file cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise ConfigurationError(f"{target} is a file; name a folder")
    source = observability_dir()
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    changed = [path for path in files if _differs(path, target / path.relative_to(source))]
    if changed and not overwrite:
        names = ", ".join(str(target / path.relative_to(source)) for path in changed[:3])
        raise ConfigurationError(
            f"{len(changed)} files in {target} differ from the shipped ones ({names}): name another folder or overwrite"
        )
    return [_copy(path, target / path.relative_to(source)) for path in files]


def prometheus_lines(target: Path) -> str:
    """What an existing `prometheus.yml` needs in order to load the rules that were exported to `target`."""
    folders = sorted({path.parent for path in (target / RULES).resolve().glob("*/alerts.yml")})
    return "rule_files:\n" + "".join(f"  - {folder}/[ar]*.yml\n" for folder in folders)


def _differs(source: Path, target: Path) -> bool:
    return target.exists() and (not target.is_file() or target.read_bytes() != source.read_bytes())


def _copy(source: Path, target: Path) -> Path:
    make_readable_folder(target.parent)
    shutil.copyfile(source, target)
    target.chmod(_READABLE | (source.stat().st_mode & 0o111))
    return target


def make_readable_folder(folder: Path) -> None:
    """Make a folder and its missing parents readable by everybody, whatever the umask: servers run as other users."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir()
        each.chmod(0o755)


def write_readable(target: Path, text: str) -> None:
    """Write a file that everybody may read, whatever the umask: servers run as other users."""
    make_readable_folder(target.parent)
    target.write_text(text, encoding="utf-8")
    target.chmod(_READABLE)
