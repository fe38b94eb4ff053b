"""Triggers by which the database itself refuses to change or delete what is history."""

from __future__ import annotations

from alembic import op


def forbid(table: str, name: str, when: str, message: str) -> None:
    """Refuse an operation on the rows of a table.

    Args:
        table: The table.
        name: Of the trigger, after that of the table.
        when: ``DELETE``, ``UPDATE`` or ``UPDATE OF column, ...``.
        message: What the database answers.
    """
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER {table}_{name} BEFORE {when} ON {table} BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )
        return
    op.execute(
        f"CREATE OR REPLACE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{message}'; END $$"
    )
    op.execute(f"CREATE TRIGGER {table}_{name} BEFORE {when} ON {table} EXECUTE FUNCTION {table}_refuse()")


def allow(table: str, name: str) -> None:
    """Take a trigger away."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(f"DROP TRIGGER {table}_{name}" + ("" if sqlite else f" ON {table}"))


def forbid_changes(table: str, message: str) -> None:
    """Let rows only be added."""
    forbid(table, "keep", "DELETE", message)
    forbid(table, "fixed", "UPDATE", message)
    if op.get_bind().dialect.name != "sqlite":
        forbid(table, "whole", "TRUNCATE", message)
