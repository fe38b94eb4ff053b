"""Bring a database to the schema of today; one of a newer msklabel is refused."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

from msklabel.errors import Conflict
from msklabel.store.schema import REVISIONS

_SCRIPTS = Path(__file__).parent / "migrations"
_TABLE = "alembic_version"


def revision_of(connection: Connection) -> str | None:
    """Version of a database's schema; None where there are no tables yet.

    Raises:
        Conflict: If it is of a newer msklabel.
    """
    tables = inspect(connection).get_table_names()
    if _TABLE not in tables:
        return REVISIONS[0] if "label_version" in tables else None  # the first databases did not say
    revision = connection.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalar()
    if revision is not None and revision not in REVISIONS:
        raise Conflict(
            f"the database has the schema {revision} of a newer msklabel, this one knows {REVISIONS[-1]}: "
            "install that msklabel, or restore a backup made before it"
        )
    return revision and str(revision)


def is_current(connection: Connection) -> bool:
    """Whether the schema is that of today.

    Raises:
        Conflict: If it is of a newer msklabel.
    """
    return revision_of(connection) == REVISIONS[-1]


def upgrade(connection: Connection) -> None:
    """Make or change the tables, within the connection's transaction."""
    from alembic import command  # takes a second to import, and is needed once
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if revision_of(connection) == REVISIONS[0] and _TABLE not in inspect(connection).get_table_names():
        command.stamp(config, REVISIONS[0])
    command.upgrade(config, REVISIONS[-1])
