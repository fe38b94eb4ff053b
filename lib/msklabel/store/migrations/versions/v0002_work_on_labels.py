"""What a label speaks of, reviews, leases, scores, splits, jobs and the audit trail."""

import sqlalchemy as sa
from alembic import op

from msklabel.store.migrations.triggers import allow, forbid, forbid_changes

revision = "0002"
down_revision = "0001"

_FIXED = (
    "id, image_id, tag, system, author, origin, base_model, sha256, size_bytes, classes, created, annotated, warnings"
)


def upgrade() -> None:
    """Add columns and tables."""
    _labels()
    op.create_table(
        "review",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version_id", sa.Integer, sa.ForeignKey("label_version.id"), nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("who", sa.String),
        sa.Column("created", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_review_version_id", "review", ["version_id"])
    forbid_changes("review", "reviews are never changed or deleted")
    op.create_table(
        "lease",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("image_id", sa.String, sa.ForeignKey("image.id"), nullable=False),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("taken", sa.DateTime, nullable=False),
        sa.Column("expires", sa.DateTime, nullable=False),
        sa.Column("released", sa.DateTime),
        sqlite_autoincrement=True,
    )
    op.create_index("lease_of_image", "lease", ["image_id", "holder"])
    op.create_index("lease_that_runs", "lease", ["released", "expires"])
    op.create_table(
        "skip",
        sa.Column("image_id", sa.String, sa.ForeignKey("image.id"), primary_key=True),
        sa.Column("holder", sa.String, primary_key=True),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    op.create_table(
        "score",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("image_id", sa.String, sa.ForeignKey("image.id"), nullable=False),
        sa.Column("system", sa.String, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("summary", sa.LargeBinary, nullable=False),
        sa.Column("figures", sa.JSON, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("score_of_model", "score", ["system", "model_version", "image_id"], unique=True)
    op.create_index("score_of_image", "score", ["system", "image_id"])
    op.create_table(
        "split",
        sa.Column("system", sa.String, primary_key=True),
        sa.Column("patient", sa.String, primary_key=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("decided", sa.DateTime, nullable=False),
    )
    forbid_changes("split", "a patient keeps the role that was decided first")
    op.create_table(
        "job",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("detail", sa.String),
        sa.Column("started", sa.DateTime, nullable=False),
        sa.Column("ended", sa.DateTime),
    )
    op.create_index("job_of_kind", "job", ["kind", "started"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("who", sa.String),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_of_event", "audit", ["event"])
    forbid_changes("audit", "the audit trail is never changed or deleted")


def _labels() -> None:
    op.add_column("label_version", sa.Column("annotated", sa.JSON))
    op.add_column("label_version", sa.Column("warnings", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("label_version", sa.Column("state", sa.String, nullable=False, server_default="submitted"))
    op.create_index("label_version_of_state", "label_version", ["state", "author"])
    message = "label versions are never changed or deleted"
    allow("label_version", "fixed")
    forbid("label_version", "fixed", f"UPDATE OF {_FIXED}", message)
    if op.get_bind().dialect.name != "sqlite":
        forbid("label_version", "whole", "TRUNCATE", message)
