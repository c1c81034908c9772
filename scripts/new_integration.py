"""Make the folder of a new integration, with everything that the tests ask for.

Run: python scripts/new_integration.py NAME

NAME is the framework's import name, such as `crewai`. The adapter that is made records tool calls of any callable;
replace its body by the framework's own hooks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[a-z][a-z0-9_]*")

README = """# taskpilot-obs for {name}

Observes tool calls of {name}.

```bash
pip install taskpilot-obs {name}
```

```python
from taskpilot_obs_{name} import {title}Observer

observer = {title}Observer()
assert observer.call("add", lambda a, b: a + b, {{"a": 1, "b": 2}}) == 3
```

Recorded: tool calls with status, duration and parent; decisions of the configured policies. Not recorded: content,
unless `capture_content` is on.
"""

PACKAGE = '''"""Observes {name}."""

from __future__ import annotations

from taskpilot_obs_{name}.observer import {title}Observer

__all__ = ["{title}Observer"]
'''

OBSERVER = '''"""The adapter: what the framework calls becomes runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from taskpilot_obs.integration import Recorder, check_input, check_output, get_recorder


class {title}Observer:
    """Records tool calls.

    Args:
        recorder: where to record; the default recorder when left out.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder or get_recorder()

    def call(self, name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Call a tool and record it.

        Args:
            name: of the tool.
            function: the tool.
            arguments: its arguments by name.

        Raises:
            RefusedError: a policy in enforce mode refused the call; the tool has not run.
        """
        run = self._recorder.start("execute_tool", name)
        step = run.attach()
        try:
            check_input(run, arguments=arguments)
            result = function(**arguments)
            check_output(run, result)
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            run.detach(step)
        run.stop()
        return result
'''

EXAMPLE = '''"""{name}: a tool call, observed. Runs offline."""

from __future__ import annotations

from taskpilot_obs_{name} import {title}Observer

from taskpilot_obs import get_recorder


def main() -> None:
    """Call a tool."""
    result = {title}Observer().call("add", lambda a, b: a + b, {{"a": 1, "b": 2}})
    get_recorder().drain()
    print(f"the tool returned {{result}}")


if __name__ == "__main__":
    main()
'''

TESTS = '''"""The adapter for {name} on real calls: success, failure, nesting, refusal."""

from __future__ import annotations

import pytest
from taskpilot_obs_{name} import {title}Observer

from taskpilot_obs import track_agent
from taskpilot_obs.exceptions import RefusedError
from taskpilot_obs.records import Invocation, Status
from taskpilot_obs.safety import DenyTools
from taskpilot_obs.testing import Captured, capture_invocations, fresh_recorder


def test_a_tool_call_is_recorded_beneath_its_agent(seen: Captured[Invocation]) -> None:
    """A call is a tool call of the agent around it."""
    with track_agent("Planner"):
        assert {title}Observer().call("add", lambda a, b: a + b, {{"a": 1, "b": 2}}) == 3
    tool, agent = seen
    assert (tool.name, tool.status, tool.agent) == ("add", Status.SUCCESS, "Planner")
    assert tool.parent_id == agent.invocation_id


def test_a_failure_is_recorded_and_passes(seen: Captured[Invocation]) -> None:
    """The tool's own exception reaches the caller, and the record names its class."""
    with pytest.raises(ZeroDivisionError):
        {title}Observer().call("divide", lambda: 1 / 0, {{}})
    assert (seen[0].status, seen[0].error_type) == (Status.ERROR, "ZeroDivisionError")


def test_a_refused_tool_does_not_run() -> None:
    """A policy in enforce mode refuses the call before the tool runs."""
    ran: list[str] = []
    with (
        fresh_recorder(policies=[DenyTools(["delete"])], mode="enforce") as recorder,
        capture_invocations(recorder) as seen,
    ):
        with pytest.raises(RefusedError):
            {title}Observer(recorder).call("delete", lambda: ran.append("delete"), {{}})
        assert (seen[0].status, ran) == (Status.BLOCKED, [])
'''


def make(name: str, root: Path = ROOT) -> list[Path]:
    """Write the folder of an integration, and name it in `pyproject.toml` and in the table of integrations.

    Args:
        name: the framework's import name.
        root: of the repository.

    Returns:
        The files that were written.

    Raises:
        ValueError: the name is not an import name, or a list that it belongs in is missing.
        FileExistsError: there is such a folder already.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the import name of a framework: lower-case letters, digits and _")
    folder = root / "integrations" / name
    if folder.exists():
        raise FileExistsError(f"{folder} exists already")
    package = folder / f"taskpilot_obs_{name}"
    contents = {
        folder / "README.md": README,
        folder / "example.py": EXAMPLE,
        package / "__init__.py": PACKAGE,
        package / "observer.py": OBSERVER,
        package / "py.typed": "",
        folder / "tests" / f"test_{name}.py": TESTS,
    }
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(name=name, title=name.title().replace("_", "")), encoding="utf-8")
    _name_in(root / "pyproject.toml", name)
    _list_in(root / "integrations" / "README.md", name)
    return list(contents)


def _name_in(pyproject: Path, name: str) -> None:
    """Add the package, the extra and the types of an integration, each to its list, in order of the alphabet."""
    lines = pyproject.read_text(encoding="utf-8").splitlines()
    for known, member, line in (
        (
            '    "integrations/langchain/taskpilot_obs_langchain",',
            r'    "integrations/\w+/taskpilot_obs_\w+",',
            f'    "integrations/{name}/taskpilot_obs_{name}",',
        ),
        ('    "integrations/langchain",', r'    "integrations/\w+",', f'    "integrations/{name}",'),
        ('langchain = ["langchain-core>=1.6"]', r"[\w-]+ = \[.*\]", f'{name.replace("_", "-")} = ["{name}"]'),
    ):
        if known not in lines:
            raise ValueError(f"{pyproject}: the line {known.strip()} is missing, beside which {name} is listed")
        at = lines.index(known)
        while re.fullmatch(member, lines[at - 1]):
            at -= 1
        while re.fullmatch(member, lines[at]) and lines[at] < line:
            at += 1
        lines.insert(at, line)
    pyproject.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _list_in(readme: Path, name: str) -> None:
    """Add the last row to the table of integrations."""
    lines = readme.read_text(encoding="utf-8").splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("| ["))
    lines.insert(last + 1, f"| [{name}]({name}/README.md) | observes tool calls of {name} |")
    readme.write_text("\n".join([*lines, ""]), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Make what was asked for; returns the exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        made = make(arguments[0])
    except (ValueError, FileExistsError) as error:
        print(error, file=sys.stderr)
        return 2
    for path in made:
        print(path.relative_to(ROOT))
    print("next: the least version in its extra in pyproject.toml, and what it does in integrations/README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
