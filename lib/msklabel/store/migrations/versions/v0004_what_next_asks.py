"""What every request for the next scan asks: which images have changed, which scores are new."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a column and indexes."""
    op.add_column("image", sa.Column("changed", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_image_changed", "image", ["changed"])
    op.create_index("score_since", "score", ["system", "id"])
