"""A damaged database file: how it is noticed, and what can still be read of it."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from msklabel.store.schema import Base

logger = logging.getLogger(__name__)
_SIGNS = ("malformed", "not a database", "disk image", "corrupt")


def is_damage(error: BaseException) -> bool:
    """Whether an error of the database means that its file is damaged, and not that it is busy or full."""
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


def damage_of(file: Path, labels: Path) -> str | None:
    """What is wrong with a SQLite file.

    Args:
        file: The database.
        labels: The folder of the label files that it records.

    Returns:
        A short clause; None for a sound database, or where nothing was stored yet.
    """
    try:
        with closing(sqlite3.connect(file)) as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return str(error)
    if tables == 0 and next(labels.glob("*.nii.gz"), None):
        return "it is empty, though there are label files"
    return None if found == "ok" else str(found).splitlines()[-1]


def salvage(damaged: Path, target: Path) -> int:
    """Copy the rows that can be read into a sound database that has the tables; returns their number."""
    number = 0
    with closing(sqlite3.connect(target)) as new:
        for table in Base.metadata.sorted_tables:
            with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(f"file:{damaged}?mode=ro", uri=True)) as old:
                rows = old.execute(f"SELECT * FROM {table.name}")
                names = [column[0] for column in rows.description if column[0] in table.columns]
                places = [place for place, column in enumerate(rows.description) if column[0] in table.columns]
                marks = ", ".join("?" * len(names))
                statement = f"INSERT OR IGNORE INTO {table.name} ({', '.join(names)}) VALUES ({marks})"
                for row in rows:  # until one cannot be read
                    new.execute(statement, [row[place] for place in places])
                    number += 1
        new.commit()
    logger.warning("%d rows of the damaged database %s could be read", number, damaged)
    return number
