"""Indexes for what every request for the next scan asks."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the indexes; the first replaces the one on ``present`` alone."""
    op.drop_index("ix_image_present", "image")
    facts = ["present", "created", "size_bytes", "patient", "site", "modality"]
    op.create_index("image_stamp", "image", facts)
    op.create_index("score_since", "score", ["system", "id"])
