"""Run by Alembic: migrate over the connection that `engine.upgrade` holds, inside of its transaction."""

from __future__ import annotations

from alembic import context

from taskpilot_obs.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
