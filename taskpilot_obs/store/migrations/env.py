"""Run by Alembic: migrate over the connection that `versions.upgrade` holds, inside of its transaction."""

from __future__ import annotations

from alembic import context

from taskpilot_obs.store.tables import metadata
from taskpilot_obs.store.versions import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    version_table_schema=context.config.attributes["schema"],
)
context.run_migrations()
