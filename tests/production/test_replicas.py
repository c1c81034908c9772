"""Many replicas through one real Prometheus and the shipped rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from _fleet import COUNTS, Fleet, Scraped, await_, scraped


@pytest.mark.timeout(240)
def test_rules_count_what_a_fleet_did(tmp_path: Path) -> None:
    """The rules count the events of 48 replicas exactly, whether they last, are replaced, are new or are seen once."""
    fleet = Fleet(48)
    truth = fleet.truth()
    with scraped(fleet, tmp_path, interval_s=0.5) as seen:
        assert len(seen.ask("taskpilot_obs_start_time_seconds")) == fleet.size
        counted = seen.counted()
        await_(lambda: _all_ran(seen), 60, "a rule failed, or did not run")
    assert set(counted) == set(COUNTS)
    assert all(truth[what] > 0 for what in COUNTS)
    assert counted == {what: pytest.approx(float(truth[what]), rel=1e-9) for what in COUNTS}


def _all_ran(seen: Scraped) -> bool:
    rules = seen.rules()
    return bool(rules) and all(rule["health"] == "ok" for rule in rules)
