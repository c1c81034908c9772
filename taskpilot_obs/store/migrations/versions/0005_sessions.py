"""An index by session, so that the calls of one are found among millions.

Nothing else changes: code of version 0004 works on these tables as on its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEX = "ix_llm_call_telemetry_session_time"
TABLE = "llm_call_telemetry"


def upgrade() -> None:
    """Add the index, which PostgreSQL has already, see `index_builds`."""
    stated = sa.text("session_id IS NOT NULL")
    columns = ["session_id", "created_at"]
    op.create_index(INDEX, TABLE, columns, sqlite_where=stated, postgresql_where=stated, if_not_exists=True)


def downgrade() -> None:
    """Drop the index."""
    op.drop_index(INDEX, TABLE)
