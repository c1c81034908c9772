"""Bookings of budgets that are handed over again are known by their number."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Draw the table of those who book."""
    op.create_table(
        "budget_writers",
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("crossed", sa.Text()),
        sa.Column("booked_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("writer"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("budget_writers")
