"""Quantities name the slices that they are of, and no volume is of fewer slices than others; all are measured anew."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Forget what was measured; the labels are there to be measured again."""
    op.execute("DELETE FROM quantity")
