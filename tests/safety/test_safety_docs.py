"""The pages on safety and privacy, and the example, do what they say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import taskpilot_obs.safety as package
from taskpilot_obs.config import get_recorder
from taskpilot_obs.safety.redaction import KINDS
from taskpilot_obs.semconv import METRICS, Attr, Field
from taskpilot_obs.settings import Settings
from taskpilot_obs.testing import fresh_recorder

ROOT = Path(__file__).parents[2]
SAFETY = (ROOT / "docs" / "safety.md").read_text()
PRIVACY = (ROOT / "docs" / "privacy.md").read_text()


def test_snippets_run() -> None:
    """Every Python block of the page runs as it stands, one after the other."""
    pytest.importorskip("re2", reason="needs google-re2, extra `safety`")
    blocks = re.findall(r"```python\n(.*?)```", SAFETY, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/safety.md", "exec"), names)  # noqa: S102  our own page


def test_names_on_the_pages_exist() -> None:
    """Metrics, kinds of secrets, options, fields and names of the package that the pages mention are real."""
    metrics = {metric.name for metric in METRICS}
    assert set(re.findall(r"`([a-z_]+_(?:total|seconds))[`{]", SAFETY)) <= metrics
    assert all(f"`{kind}`" in SAFETY for kind in KINDS)
    for option in ("capture_content", "capture_max_length", "redaction_key", "audit_max_age", "audit_max_bytes"):
        assert option in PRIVACY
        assert option in Settings.model_fields
    assert all(f"`{name}`" in PRIVACY for name in (Attr.INPUT_TEXT, Attr.OUTPUT_TEXT, Field.INPUT, Field.ERROR_MESSAGE))


def test_public_names_resolve() -> None:
    """Everything in `__all__` can be imported, and nothing else is made up."""
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        package.nothing_like_it  # noqa: B018  asking is the test


def test_example(capsys: Any) -> None:
    """The example runs offline and shows each way of being refused."""
    with fresh_recorder():
        runpy.run_path(str(ROOT / "examples" / "safety.py"), run_name="__main__")
        assert get_recorder().runtime.checks is None
    said = capsys.readouterr().out
    assert "policy 'deny_words' refused: contains a denied word" in said
    assert "guardrail 'no_promises' blocked the output" in said
    assert "policy require_approval: blocked, tool 'refund' needs an approval" in said
    assert "[REDACTED:email], card [REDACTED:card], with key [REDACTED:api_key]" in said


def test_the_page_on_privacy_knows_the_store(tmp_path: Path) -> None:
    """The columns that the page names are the store's; text of errors is stored where content is captured only."""
    tables = pytest.importorskip("taskpilot_obs.store.tables", reason="needs sqlalchemy, extra `store`")
    from sqlalchemy import NullPool, create_engine, text

    section = PRIVACY.partition("## The telemetry store")[2].partition("\n## ")[0]
    columns = {column.name for table in tables.metadata.tables.values() for column in table.columns}
    named = set(re.findall(r"`([a-z_]+)`", section))
    assert {name for name in named if name.endswith(("_id", "_message", "_name"))} <= columns
    assert {"user_id", "session_id", "organization_id", "error_message"} <= named
    stored: list[str | None] = []
    for capture in (False, True):
        url = f"sqlite:///{tmp_path / f'{capture}.db'}"
        with fresh_recorder(store=url, capture_content=capture) as recorder:
            run = recorder.start("invoke_agent", "Agent")
            run.fail(ValueError("about jane@example.com"))
            recorder.flush()
        engine = create_engine(url, poolclass=NullPool)  # which closes what it opens
        with engine.connect() as connection:
            stored += connection.execute(text("SELECT error_message FROM agent_runs")).scalars()
    assert stored == [None, "about [REDACTED:email]"]
