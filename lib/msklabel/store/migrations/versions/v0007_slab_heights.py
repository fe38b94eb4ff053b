"""Quantities tell the height of the slab that volumes are of, by which they are compared; all are measured anew."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Forget what was measured; the labels are there to be measured again."""
    op.execute("DELETE FROM quantity")
