"""One SQLite file, used by many threads and processes at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

from msklabel.store.schema import SCHEMA_VERSION, Base

_BUSY_MS = 60_000


class Database:
    """Sessions on the database file: an engine for each process, a session for each call."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._engines: dict[int, Engine] = {}

    @property
    def engine(self) -> Engine:
        """The engine of this process; a forked child gets its own."""
        process = os.getpid()
        return self._engines.get(process) or self._engines.setdefault(process, _connect(self._file))

    def create(self) -> None:
        """Make the tables where they are missing; not to be called by two processes at once."""
        with self.engine.connect() as connection:
            connection.connection.dbapi_connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[union-attr]
        with self.engine.execution_options(writes=True).begin() as connection:
            Base.metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database; what it gives stays usable afterwards."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that holds the write lock from its first statement; committed, on disk, when the block ends.

        So what it reads cannot change before it writes; a block that raises leaves nothing.
        """
        with Session(self.engine.execution_options(writes=True), expire_on_commit=False) as session, session.begin():
            session.connection()  # takes the lock now, not with the first statement
            yield session


def _connect(file: Path) -> Engine:
    url = URL.create("sqlite", database=str(file))
    engine = create_engine(url, pool_size=5, max_overflow=60, pool_timeout=60)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver would begin late, and a lock taken late can fail at once
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
