"""All rows of one database in another, as they were at one instant, whichever kind either is.

A backup of a PostgreSQL database is a SQLite file of the same tables: no client program of the server's version is
needed to make it, to read it or to put it back, ``msklabel verify`` checks it like any other, and it can be put back
into a PostgreSQL of another version or into a file. One transaction that sees one state of the database (REPEATABLE
READ) reads all of it, so that nobody has to stop, and nothing of it is half there.
"""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Integer, Table, func, insert, select
from sqlalchemy.exc import DBAPIError

from msklabel.errors import Conflict, NotFound
from msklabel.store.database import Database
from msklabel.store.database import reached as reached
from msklabel.store.migrate import is_current
from msklabel.store.schema import Base

_ROWS = 500  # at once; a score row holds up to 64 KB


def copy_to_file(source: Database, target: Path) -> dict[str, int]:
    """Copy a database into a new SQLite file.

    Args:
        source: Others may use it meanwhile.
        target: The file; what was there is replaced.

    Returns:
        The number of rows of each table.

    Raises:
        NotFound: If there is no database, or nothing of msklabel in it.
        Conflict: If its tables are of another version of msklabel.
    """
    for part in (target, *(target.with_name(f"{target.name}-{end}") for end in ("wal", "shm"))):
        part.unlink(missing_ok=True)
    copy = Database(target)
    copy.create()
    with source.snapshot() as reading, copy.engine.execution_options(writes=True).begin() as writing:
        check_current(reading)
        rows = {table.name: _copy(reading, writing, table) for table in Base.metadata.sorted_tables}
    with closing(copy.engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
    copy.engine.dispose()
    return rows


def fill(source: Database, writing: Connection) -> None:
    """Copy all rows into an empty database, within a transaction of it.

    Raises:
        Conflict: If there is something in it.
    """
    tables = Base.metadata.sorted_tables
    for table in tables:
        if writing.execute(select(table).limit(1)).first() is not None:
            raise Conflict("the database is not empty; give a new one (createdb NAME), so that nothing is overwritten")
    with source.snapshot() as reading:
        for table in tables:
            _copy(reading, writing, table)
    for table in tables:
        _continue_numbers(writing, table)


def check_current(connection: Connection) -> None:
    """Refuse a database whose tables are not those of this msklabel.

    Raises:
        NotFound: If there are no tables of msklabel.
        Conflict: If they are of another version.
    """
    if not connection.dialect.has_table(connection, "label_version"):
        raise NotFound("there is nothing of msklabel in this database")
    if not is_current(connection):
        raise Conflict("the database is of an older msklabel; start the server once, which brings it up to date")


def unreadable(database: Database) -> list[str]:
    """A sentence for each table that cannot be read from end to end."""
    problems = []
    for table in Base.metadata.sorted_tables:
        try:
            with database.snapshot() as reading:
                for _ in reading.execution_options(yield_per=_ROWS).execute(select(table)):
                    pass
        except DBAPIError as error:
            problems.append(f"database: table {table.name}: {str(error.orig).splitlines()[0]}")
    return problems


def _copy(reading: Connection, writing: Connection, table: Table) -> int:
    number = 0
    found = iter(reading.execution_options(yield_per=_ROWS).execute(select(table)).mappings())
    while rows := [dict(row) for row in islice(found, _ROWS)]:
        writing.execute(insert(table), rows)
        number += len(rows)
    return number


def _continue_numbers(writing: Connection, table: Table) -> None:
    """Let the next row get a number that none has had."""
    key: Any = table.primary_key.columns.values()[0]
    if writing.dialect.name == "postgresql" and isinstance(key.type, Integer):
        last = writing.scalar(select(func.max(key)))
        if last:
            name = func.pg_get_serial_sequence(table.name, key.name)
            writing.execute(select(func.setval(name, last)))
