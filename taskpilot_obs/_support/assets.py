"""Finds and copies the shipped assets: rules, dashboards, and configuration for Prometheus, Grafana and others."""

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
    """Return the folder of shipped assets: in the installed package, or in the checkout.

    Raises:
        ConfigurationError: neither exists.
    """
    for candidate in (_PACKAGE / "_observability", _PACKAGE.parent / "observability"):
        if (candidate / SETTINGS).is_file():
            return candidate
    raise ConfigurationError(
        f"the files of observability/ are neither in {_PACKAGE} nor beside it: install the wheel, or use a checkout"
    )


def export_assets(target: Path, *, overwrite: bool = False) -> list[Path]:
    """Copy the shipped assets into a folder, which is created if missing.

    Args:
        target: the folder.
        overwrite: replace shipped files that exist and differ; other files are never touched.

    Returns:
        The files that were written, in order.

    Raises:
        ConfigurationError: `target` is a file, or contains a changed shipped file and `overwrite` is false; then
            nothing is written.
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
    """Return the lines that make a `prometheus.yml` load the rules exported to `target`."""
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
    """Create a folder and its missing parents, world-readable despite the umask: servers run as other users."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir()
        each.chmod(0o755)


def write_readable(target: Path, text: str) -> None:
    """Write a world-readable file despite the umask, because servers run as other users."""
    make_readable_folder(target.parent)
    target.write_text(text, encoding="utf-8")
    target.chmod(_READABLE)
