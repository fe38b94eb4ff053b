"""One database, used by many threads and processes at once: a SQLite file, or PostgreSQL by its URL."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from msklabel.errors import ReadOnly, Unreachable, UserError
from msklabel.store.migrate import is_current, revision_of, upgrade

Value = TypeVar("Value")
_BUSY_MS = 60_000
_REASON_CHARACTERS = 500
_LASTING = "lasting"  # of a connection: what was said to SQLite last
_WRITERS = 0x6D736B6C  # PostgreSQL's advisory lock that a writer holds


class Database:
    """Sessions on a database: an engine for each process, a session for each call.

    Args:
        file: The SQLite file.
        url: Of a PostgreSQL database instead, ``postgresql://user@host/name``.

    Raises:
        UserError: If the URL is none of PostgreSQL.
    """

    def __init__(self, file: Path, url: str | None = None) -> None:
        self.file = file
        self._url = _postgresql(url) if url else URL.create("sqlite", database=str(file))
        self._engines: dict[int, Engine] = {}
        self._turns: dict[int, threading.Lock] = {}
        self._view = threading.local()
        self.refused: str | None = None
        """Why nothing can be stored; None where all is well."""

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file of ours."""
        return self._url.drivername == "sqlite"

    @property
    def engine(self) -> Engine:
        """The engine of this process; a forked child gets its own."""
        process = os.getpid()
        return self._engines.get(process) or self._engines.setdefault(process, _connect(self._url))

    def require(self) -> None:
        """Look whether a PostgreSQL answers; a file of ours needs no answer.

        Raises:
            Unreachable: If it does not.
        """
        if not self.is_sqlite:
            with reached(), self.engine.connect():
                pass

    def create(self) -> None:
        """Make the tables, or bring those of an older version up to date; a copy of the old file is kept beside.

        Raises:
            Conflict: If the database is of a newer version.
            Unreachable: If a PostgreSQL does not answer.
        """
        with nullcontext() if self.is_sqlite else reached():
            self._create()

    def _create(self) -> None:
        if self.is_sqlite:
            with self.engine.connect() as connection:
                connection.connection.dbapi_connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[union-attr]
        with self.engine.connect() as connection:
            if is_current(connection):
                return
            old = revision_of(connection)
        if old and self.is_sqlite:
            copy_database(self.file, self.file.with_name(f"{self.file.name}.schema-{old}"))
        with self.engine.execution_options(writes=True).begin() as connection:
            if not is_current(connection):  # another process may have been first
                upgrade(connection)

    def fall_back(self) -> Path:
        """Use a temporary SQLite file, which is still to be made, from now on; it goes with this object."""
        self._temporary = tempfile.TemporaryDirectory(prefix="msklabel-salvaged-", ignore_cleanup_errors=True)
        copy = Path(self._temporary.name) / self.file.name
        self._url = URL.create("sqlite", database=str(copy))
        self._engines = {}
        return copy

    @contextmanager
    def one_view(self) -> Iterator[None]:
        """Let all that this thread reads in the block see one state of the database, and anew after each write of its.

        One transaction then serves for all reads, where each would begin and end one of its own: half of the time of
        many small ones, and less waiting for Python's lock where others compute.
        """
        if self._shared():
            yield
            return
        with self._reader() as session:
            self._view.session = session
            try:
                yield
            finally:
                self._view.session = None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database; what it gives stays usable afterwards."""
        if shared := self._shared():
            yield shared
            return
        with self._reader() as session:
            yield session

    def once(self, what: Hashable, read: Callable[[Session], Value]) -> Value:
        """What this thread has read in its view already, else read it now.

        Args:
            what: Tells one thing from another.
            read: Reads it.
        """
        with self.read() as session:
            if session is not self._shared():
                return read(session)
            known: dict[Hashable, Value] = session.info
            if what not in known:
                known[what] = read(session)
            return known[what]

    def _shared(self) -> Session | None:
        return getattr(self._view, "session", None)

    @contextmanager
    def _reader(self) -> Iterator[Session]:
        engine = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        with Session(engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that only reads, and sees one state of the database until the block ends."""
        with self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection

    @contextmanager
    def write(self, lasting: bool = True) -> Iterator[Session]:
        """A session that holds the write lock from its first statement; committed when the block ends.

        So what it reads cannot change before it writes; a block that raises leaves nothing.

        Args:
            lasting: Whether it is on disk when the block ends. If not, a loss of power, but no end of the process,
                may undo it: for what can be found out or done again, and many wait for.

        Raises:
            ReadOnly: If the database is damaged.
        """
        if self.refused:
            raise ReadOnly(self.refused)
        engine = self.engine.execution_options(writes=True, lasting=lasting)
        try:
            with self._own_turn(), Session(engine, expire_on_commit=False) as session, session.begin():
                session.connection()  # takes the lock now, not with the first statement
                yield session
        finally:
            if shared := self._shared():
                shared.expunge_all()
                shared.info.clear()
                shared.commit()  # ends what it saw

    @contextmanager
    def _own_turn(self) -> Iterator[None]:
        """One writer at a time among the threads of this process: SQLite would let them look for the lock now and then.

        Who waits longer than SQLite would goes on, and hears from it.
        """
        turn = self._turns.setdefault(os.getpid(), threading.Lock())
        mine = self.is_sqlite and turn.acquire(timeout=_BUSY_MS / 1000)
        try:
            yield
        finally:
            if mine:
                turn.release()


def is_unreached(error: BaseException) -> bool:
    """Whether an error says that the database server cannot be reached, or went away in the middle."""
    return isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg")


@contextmanager
def reached() -> Iterator[None]:
    """Say in one sentence that a database server does not answer.

    Raises:
        Unreachable: If it does not.
    """
    try:
        yield
    except OperationalError as error:
        reason = " ".join(str(error.orig).split())[:_REASON_CHARACTERS]
        raise Unreachable(f"the database does not answer: {reason or 'no reason given'}") from error


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database as it is at one instant, while others use it; in place of what was at ``target``."""
    temporary = target.with_name(f".{target.name}.writing")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(temporary)) as new:
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")  # one file, which can be read where nothing may be written
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _connect(url: URL) -> Engine:
    serves = url.drivername != "sqlite"  # a server may have ended the connections that are kept
    engine = create_engine(url, pool_size=5, max_overflow=60, pool_timeout=60, pool_pre_ping=serves)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        if engine.dialect.name == "sqlite":
            connection.isolation_level = None  # the driver would begin late, and a lock taken late can fail at once
            connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        writes, lasting = options.get("writes", False), options.get("lasting", True)
        if engine.dialect.name == "sqlite":
            if writes and connection.info.get(_LASTING) != lasting:
                connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
                connection.info[_LASTING] = lasting
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
        elif writes:  # one writer at a time there, too: so ids grow in the order of the commits
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")
            connection.exec_driver_sql(f"SET LOCAL synchronous_commit = {'on' if lasting else 'off'}")

    return engine


def _postgresql(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        raise UserError("database: expected the URL of a PostgreSQL database, postgresql://user@host/name")
    return url.set(drivername="postgresql+psycopg")
