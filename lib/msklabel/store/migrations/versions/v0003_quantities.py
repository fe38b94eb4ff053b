"""What was measured of a label version."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "quantity",
        sa.Column("version_id", sa.Integer, sa.ForeignKey("label_version.id"), primary_key=True, autoincrement=False),
        sa.Column("measured", sa.JSON),
        sa.Column("error", sa.String),
        sa.Column("software", sa.String, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
    )
