"""Images, label versions and settings, as the first databases had them."""

import sqlalchemy as sa
from alembic import op

from msklabel.store.migrations.triggers import forbid

revision = "0001"
down_revision = None

_FIXED = "image_id, tag, system, author, origin, base_model, sha256, size_bytes, classes, created"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "image",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("file", sa.String),
        sa.Column("patient", sa.String),
        sa.Column("site", sa.String),
        sa.Column("modality", sa.String),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("shape", sa.JSON),
        sa.Column("affine", sa.JSON),
        sa.Column("present", sa.Boolean, nullable=False),
        sa.Column("uploaded", sa.Boolean, nullable=False),
        sa.Column("info", sa.JSON, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    op.create_index("ix_image_present", "image", ["present"])
    op.create_table(
        "label_version",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("image_id", sa.String, sa.ForeignKey("image.id"), nullable=False),
        sa.Column("tag", sa.String, nullable=False),
        sa.Column("system", sa.String, nullable=False),
        sa.Column("author", sa.String),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("base_model", sa.String),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("classes", sa.JSON, nullable=False),
        sa.Column("info", sa.JSON, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("withdrawn", sa.DateTime),
        sqlite_autoincrement=True,
    )
    op.create_index("label_version_of_image", "label_version", ["image_id", "tag", "system"])
    op.create_index("label_version_of_tag", "label_version", ["tag", "system", "image_id"])
    op.create_index("label_version_file", "label_version", ["sha256"])
    op.create_table(
        "setting",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    message = "label versions are never changed or deleted"
    forbid("label_version", "keep", "DELETE", message)
    forbid("label_version", "fixed", f"UPDATE OF {_FIXED}", message)
