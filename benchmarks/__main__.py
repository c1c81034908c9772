"""Every benchmark, one after the other, each in a process of its own: `make bench`, or `python -m benchmarks core`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run the benchmarks named, or all; returns how many failed."""
    failed = 0
    for path in sorted(HERE.glob("bench_*.py")):
        name = path.stem.removeprefix("bench_")
        if not names or name in names:
            print(f"\n== {name}", flush=True)
            failed += subprocess.run([sys.executable, str(path)], check=False).returncode != 0  # noqa: S603  our own files
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
