"""Logs that released versions wrote: this code verifies, reads and continues them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from _audit import started

from taskpilot_obs.audit.query import query
from taskpilot_obs.audit.verify import verify
from taskpilot_obs.audit.writer import AuditOptions
from taskpilot_obs.exporters.audit_log import AuditLogExporter

FOLDER = Path(__file__).parent / "released_logs"
VERSIONS = sorted(each.name for each in FOLDER.iterdir())
KEY = b"a key of the test"
RECORDS = 34


def copied(version: str, folder: Path) -> Path:
    """A log with the rights that its writer gave it: a checkout does not keep them."""
    home = folder / "log"
    shutil.copytree(FOLDER / version, home)
    home.chmod(0o700)
    for path in home.iterdir():
        path.chmod(0o600)
    return home


@pytest.mark.promise("old-logs")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_log_of_an_earlier_version_is_verified_read_and_continued(version: str, tmp_path: Path) -> None:
    """Segments, anchors and manifest with a key: whole, every record readable, and whole again with new records."""
    home = copied(version, tmp_path)
    log = home / "shop.jsonl"
    (report,) = verify(log, key=KEY)
    assert (report.problem, report.records) == (None, RECORDS)
    entries = list(query(log))
    assert len(entries) == RECORDS
    exporter = AuditLogExporter(log, AuditOptions(key=KEY))
    exporter.export([started()])
    exporter.shutdown(5)
    (report,) = verify(log, key=KEY)
    assert (report.problem, report.records) == (None, RECORDS + 1)


@pytest.mark.promise("old-logs")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_change_in_a_log_of_an_earlier_version_is_found(version: str, tmp_path: Path) -> None:
    """One digit that is another is a fault there too."""
    home = copied(version, tmp_path)
    oldest = min(home.glob("shop.jsonl.*"))
    oldest.write_bytes(oldest.read_bytes().replace(b'"input_tokens":150', b'"input_tokens":151', 1))
    (report,) = verify(home / "shop.jsonl", key=KEY)
    assert report.problem is not None
