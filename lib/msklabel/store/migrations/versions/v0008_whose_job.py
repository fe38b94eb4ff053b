"""Jobs tell which server runs them, so that those of one that was killed are known while others live."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add a column; jobs of before have no server."""
    op.add_column("job", sa.Column("server", sa.String))
