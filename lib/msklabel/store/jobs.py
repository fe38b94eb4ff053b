"""Training, scoring and batch inference that ran or run, so that a restart forgets none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Index, select
from sqlalchemy.orm import Mapped, mapped_column

from msklabel.store.database import Database
from msklabel.store.names import plain
from msklabel.store.schema import Base, now

LOST = "LOST"
"""Status of a job whose server ended before it did."""


class JobRow(Base):
    """One job.

    Attributes:
        id: As clients know it.
        kind: ``train``, ``scoring`` or ``batch_infer``.
        status: RUNNING, DONE, ERROR, STOPPED or LOST.
        detail: Its last line, such as why it failed.
    """

    __tablename__ = "job"
    __table_args__ = (Index("job_of_kind", "kind", "started"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    request: Mapped[dict[str, Any]]
    status: Mapped[str]
    detail: Mapped[str | None]
    started: Mapped[datetime] = mapped_column(default=now)
    ended: Mapped[datetime | None]


class Jobs:
    """All jobs.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def started(self, job_id: str, kind: str, request: Mapping[str, Any]) -> None:
        """Record a job that starts to run."""
        with self._database.write() as session:
            session.merge(JobRow(id=job_id, kind=kind, request=plain(dict(request)), status="RUNNING", started=now()))

    def ended(self, job_id: str, status: str, detail: str | None = None) -> None:
        """Record the end of a job; nothing where its start was not recorded."""
        with self._database.write() as session:
            if row := session.get(JobRow, job_id):
                row.status, row.detail, row.ended = status, detail, now()

    def lose_running(self) -> list[JobRow]:
        """Mark jobs that are still said to run as lost, when a server starts; they can be started again."""
        with self._database.write() as session:
            rows = list(session.scalars(select(JobRow).filter_by(status="RUNNING")))
            for row in rows:
                row.status, row.ended = LOST, now()
        return rows

    def recent(self, kind: str | None = None, newest: int | None = None) -> list[JobRow]:
        """Jobs, oldest first; of one kind, or the last so many only."""
        query = select(JobRow).order_by(JobRow.started.desc()).limit(newest)
        with self._database.read() as session:
            return list(session.scalars(query.filter_by(kind=kind) if kind else query))[::-1]
