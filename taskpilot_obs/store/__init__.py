"""The telemetry store: what agents did, in one SQLite file or in PostgreSQL, for as long as it is wanted.

Needs the extra `store`; PostgreSQL needs the extra `postgres`.
"""

from __future__ import annotations

from taskpilot_obs._support.installed import is_installed
from taskpilot_obs.exceptions import MissingExtraError

if not is_installed("sqlalchemy", "alembic"):
    raise MissingExtraError("the telemetry store", "store")

from taskpilot_obs.store.aggregate import aggregate_summaries, rebuild_summaries
from taskpilot_obs.store.engine import Store
from taskpilot_obs.store.erase import Erasure, erase
from taskpilot_obs.store.exporter import StoreExporter
from taskpilot_obs.store.repair import repair
from taskpilot_obs.store.retention import prune
from taskpilot_obs.store.versions import downgrade, upgrade

__all__ = [
    "Erasure",
    "Store",
    "StoreExporter",
    "aggregate_summaries",
    "downgrade",
    "erase",
    "prune",
    "rebuild_summaries",
    "repair",
    "upgrade",
]
