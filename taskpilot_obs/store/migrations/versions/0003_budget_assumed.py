"""Spend of budgets that was booked by estimate has columns of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what older versions booked by estimate cannot be told apart any more."""
    for name in ("assumed_units", "assumed_rest"):
        op.add_column("budget_ledger", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop the columns."""
    for name in ("assumed_units", "assumed_rest"):
        op.drop_column("budget_ledger", name)
