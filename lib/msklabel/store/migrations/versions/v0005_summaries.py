"""Summaries of predictions are stored in another form; what models said is asked again in the background."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Forget the scores that models gave; those of images alone stay."""
    op.execute("DELETE FROM score WHERE model_version <> 'image'")
