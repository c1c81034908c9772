"""The command as a whole: its version, and output that cannot be written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

FULL = Path("/dev/full")
MAIN = [sys.executable, "-c", "from taskpilot_obs.cli import main; main()"]


def test_version() -> None:
    """`--version` prints the installed version, alone or before a command."""
    for more in ([], ["metrics"]):
        done = subprocess.run([*MAIN, "--version", *more], capture_output=True, text=True, check=True)
        assert done.stdout == f"taskpilot-obs {version('taskpilot-obs')}\n"


@pytest.mark.parametrize("command", ["--help", "metrics", "audit --help", "demo --help", "rules --help", "doctor"])
def test_commands_do_not_need_the_settings_of_a_service(command: str, tmp_path: Path) -> None:
    """A command does its work, and opens no audit log, whatever the environment says of a service."""
    environment = os.environ | {
        "TASKPILOT_OBS_AUDIT_LOG": str(tmp_path / "audit" / "audit.jsonl"),
        "TASKPILOT_OBS_QUEUE_CAPACITY": "many",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "missing"),
    }
    done = subprocess.run([*MAIN, *command.split()], env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if command == "doctor" else 0)
    assert ("problem  settings" in done.stdout and "problem  multi-process" in done.stdout) == (command == "doctor")
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "--help",
        "metrics",
        "metrics --markdown",
        "metrics --json",
        "price gpt-4o --input 1 --output 1",
        "audit query LOG",
        "audit query LOG --format json",
        "audit verify LOG",
        "rules --help",
    ],
)
def test_output_that_cannot_be_written_is_a_clear_error(command: str, tmp_path: Path) -> None:
    """Where the disk is full every command reports it in a sentence and exits with 1."""
    if not FULL.exists():
        pytest.skip("needs /dev/full")
    log = tmp_path / "audit.jsonl"
    log.write_text('{"timestamp":"2026-11-21T00:00:00.000000Z","message":"m"}\n')
    with FULL.open("w") as full:
        done = subprocess.run(
            [*MAIN, *(word.replace("LOG", str(log)) for word in command.split())],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_has_seen_enough_needs_no_word() -> None:
    """Where the reader has gone (`| head`) the command ends without a word."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run([*MAIN, "metrics", "--json"], stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_closed_output_is_no_error() -> None:
    """Where standard output was closed on purpose nothing is printed, and nothing is wrong."""
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *MAIN, "metrics", "--json"], stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Trouble with a file is a sentence that names the file."""
    (tmp_path / "taken").write_text("")
    command = [*MAIN, "export-assets", "taken/below"]  # relative, or a long path would be wrapped
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "taken" in done.stderr


def test_the_program_starts_without_the_packages_of_single_commands() -> None:
    """Commands import what they need when they run: the others work, and start fast, without scipy and FastAPI."""
    code = "import sys; sys.modules.update(dict.fromkeys(['scipy', 'numpy', 'fastapi', 'sqlalchemy'])); "
    code += "from taskpilot_obs.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "bench" in done.stdout


def test_without_its_packages_the_command_names_the_extra() -> None:
    """Where typer is not installed, one sentence says what to install, and the exit is that of bad usage."""
    code = "import sys; sys.modules['typer'] = None; from taskpilot_obs.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "taskpilot-obs[cli]" in done.stderr
    assert "Traceback" not in done.stderr


_WITHOUT_EXTRAS = """
import sys

for name in ("scipy", "opentelemetry.sdk"):
    sys.modules[name] = None
from taskpilot_obs.cli import main

for line in sys.stdin:
    sys.argv = ["taskpilot-obs", *line.split()]
    try:
        main()
    except SystemExit as end:
        print(end.code, line.split()[0], flush=True)
"""


def test_a_missing_extra_is_named() -> None:
    """A command that needs scipy or OpenTelemetry's SDK exits 2 with what to install, and without a traceback."""
    commands = {
        "bench --demo": "bench",
        "bench --providers openai/gpt-4o --dry-run": "bench",
        "compare --store sqlite:///none.db": "compare",
        "compare --experiment e --store sqlite:///none.db --guardrail cost=0.2": "compare",
        "optimise --store sqlite:///none.db": "compare",
        f"run -- {sys.executable} --version": "otel",
    }
    asked = [sys.executable, "-c", _WITHOUT_EXTRAS]
    done = subprocess.run(asked, input="\n".join(commands), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines() == [f"2 {command.split()[0]}" for command in commands], done.stderr
    named = [line.partition("taskpilot-obs[")[2].partition("]")[0] for line in done.stderr.splitlines()]
    assert named == [*commands.values()]
