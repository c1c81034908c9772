"""The real Prometheus and Alertmanager on a free loopback port, for the length of a `with` block.

Each server runs in a directory of its own, is waited for until ready, and is stopped by its process id. Where the
binary is missing, the test is skipped with that reason, or fails where CI is set to "true".
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 20.0
PROMETHEUS_BINARIES = ("prometheus",)
ALERTMANAGER_BINARIES = ("prometheus-alertmanager", "alertmanager")
_PORT_TRIES = 3
SHIPPED = Path(__file__).parents[1] / "observability" / "prometheus" / "rules"


def shipped_rules(folder: Path) -> Path:
    """The shipped recording rules, evaluated every two seconds instead of once a minute."""
    for rules in sorted(SHIPPED.glob("*/recording.yml")):
        text = rules.read_text(encoding="utf-8")
        assert "interval: 1m" in text
        (folder / f"{rules.parent.name}.yml").write_text(text.replace("interval: 1m", "interval: 2s"), encoding="utf-8")
    return folder


def require_binary(*names: str) -> str:
    """Path of the first of these programs that is installed; otherwise the test is skipped, or fails in CI."""
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    reason = f"none of {', '.join(names)} is installed (Debian: apt-get install prometheus prometheus-alertmanager)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A loopback port without a listener at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prometheus_server(
    config: str | Path = "global: {}\n",
    *,
    rules_dir: Path | None = None,
    data_dir: Path | None = None,
    extra_args: Sequence[str] = (),
) -> Iterator[str]:
    """A real Prometheus; yields its base URL, `http://127.0.0.1:PORT`.

    Args:
        config: text of a `prometheus.yml`, or the path of one (taken as it stands, relative globs included).
        rules_dir: every `*.yml` below it except promtool tests is loaded; only with `config` as text.
        data_dir: an existing data directory, such as blocks made by `promtool tsdb create-blocks-from`.
        extra_args: further flags.
    """
    binary = require_binary(*PROMETHEUS_BINARIES)
    with tempfile.TemporaryDirectory(prefix="prometheus-") as home:
        config_file = _config_file(config, rules_dir, Path(home))
        command = [
            binary,
            f"--config.file={config_file}",
            f"--storage.tsdb.path={data_dir or Path(home) / 'data'}",
            "--storage.tsdb.retention.time=3650d",
            "--enable-feature=exemplar-storage",
            "--web.enable-lifecycle",
            "--web.enable-admin-api",
            "--log.level=warn",
            *extra_args,
        ]
        with _running(command, "--web.listen-address", Path(home)) as url:
            yield url


@contextmanager
def alertmanager_server(config: str | Path, *, extra_args: Sequence[str] = ()) -> Iterator[str]:
    """A real Alertmanager without clustering; yields its base URL. `config` is the text or the path of its file."""
    binary = require_binary(*ALERTMANAGER_BINARIES)
    with tempfile.TemporaryDirectory(prefix="alertmanager-") as home:
        config_file = _config_file(config, None, Path(home))
        command = [
            binary,
            f"--config.file={config_file}",
            f"--storage.path={Path(home) / 'data'}",
            "--cluster.listen-address=",
            "--log.level=warn",
            *extra_args,
        ]
        with _running(command, "--web.listen-address", Path(home)) as url:
            yield url


def _config_file(config: str | Path, rules_dir: Path | None, home: Path) -> Path:
    if isinstance(config, Path):
        return config
    text = config
    if rules_dir is not None:
        rules = [path for path in sorted(rules_dir.rglob("*.yml")) if path.name != "tests.yml"]
        text += "rule_files:\n" + "".join(f"  - {path}\n" for path in rules)
    path = home / "config.yml"
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def _running(command: list[str], address_flag: str, home: Path) -> Iterator[str]:
    log = home / "server.log"
    process, url = _start(command, address_flag, log)
    try:
        yield url
    finally:
        _stop(process)


def _start(command: list[str], address_flag: str, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start on a free port; try again where another process took the port in between."""
    for _ in range(_PORT_TRIES):
        address = f"127.0.0.1:{free_port()}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, f"{address_flag}={address}"], stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
            )
        if _ready(process, f"http://{address}/-/ready"):
            return process, f"http://{address}"
        _stop(process)
        if b"address already in use" not in log.read_bytes():
            break
    pytest.fail(f"{command[0]} did not become ready: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def _ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return True
        except (URLError, OSError):
            pass
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
