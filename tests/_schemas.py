"""Published schemas that lie outside of the project; the environment names their folder, as it does for exchanges."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

VARIABLE = "TASKPILOT_OBS_SCHEMAS"


def schema_file(name: str) -> Path:
    """The path of a published schema; without the folder, the test is skipped with that reason."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} names no folder of published schemas")
    path = Path(folder) / name
    assert path.is_file(), f"{VARIABLE} is {folder}, which has no {name}"
    return path


class OperatorLoader(yaml.SafeLoader):
    """Reads the value `=` as text, where YAML 1.1 gives it a meaning of its own; matchers of the operator have it."""


OperatorLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: str(node.value))
