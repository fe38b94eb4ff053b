"""Training, scoring and batch inference that ran or run, so that a restart forgets none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Index, delete, select, true
from sqlalchemy.orm import Mapped, mapped_column

from msklabel.store.database import Database
from msklabel.store.names import plain
from msklabel.store.schema import Base, now

LOST = "LOST"
"""Status of a job whose server ended before it did."""
TRAIN = "train"
_OPEN = ("SUBMITTED", "RUNNING")
_MOST_CHARACTERS = 2000


class JobRow(Base):
    """One job.

    Attributes:
        id: As clients know it.
        kind: ``train``, ``scoring``, ``batch_infer``, ``background`` or ``quantities``.
        status: SUBMITTED, RUNNING, DONE, ERROR, STOPPED or LOST.
        detail: Its last line, such as why it failed.
        started: When it began to run; while it waits, when it was asked for.
        server: Which server runs it, as :class:`msklabel.store.presence.Presence` calls it; None of before 0008.
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
    server: Mapped[str | None]


class Jobs:
    """All jobs.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        job_id: str,
        kind: str,
        request: Mapping[str, Any],
        status: str,
        detail: str | None = None,
        server: str | None = None,
        kept: timedelta | None = None,
    ) -> None:
        """Record the present state of a job; a new one takes the place of those of its kind that are old.

        Args:
            job_id: As clients know it.
            kind: As in :class:`JobRow`.
            request: What was asked for.
            status: As in :class:`JobRow`.
            detail: Its last line.
            server: Which server runs it.
            kept: Jobs that have ended are forgotten if they began longer ago, but for trainings, which tell what was
                tried for each version; None keeps all.
        """
        with self._database.write() as session:
            row = session.get(JobRow, job_id)
            if row is None:
                row = JobRow(id=job_id, kind=kind, request=plain(dict(request)), status=status, started=now())
                row.server = server
                session.add(row)
                if kept is not None and kind != TRAIN:
                    old = delete(JobRow).where(JobRow.kind == kind, JobRow.started < now() - kept)
                    session.execute(old.where(JobRow.status.not_in(_OPEN)))
            elif row.status == "SUBMITTED" and status == "RUNNING":
                row.started = now()
            row.status = status
            row.detail = detail[:_MOST_CHARACTERS] if detail else None
            row.ended = None if status in _OPEN else now()

    def lose_running(self, ended: Collection[str], alone: bool) -> list[JobRow]:
        """Mark jobs that are still said to wait or to run as lost, where their server is no more.

        Args:
            ended: Servers that are no more.
            alone: Whether no server is at the state folder. Then those of nobody are lost, too, and all where the
                database is a file, which lies in that folder; another one may be used from other folders.
        """
        lost: ColumnElement[bool] = JobRow.server.in_(ended)
        if alone:
            lost |= true() if self._database.is_sqlite else JobRow.server.is_(None)
        query = select(JobRow).where(JobRow.status.in_(_OPEN), lost).order_by(JobRow.started)
        with self._database.write() as session:
            rows = list(session.scalars(query))
            for row in rows:
                row.status, row.ended = LOST, now()
        return rows

    def recent(self, kind: str | None = None, newest: int | None = None) -> list[JobRow]:
        """Jobs, oldest first; of one kind, or the last so many only."""
        query = select(JobRow).order_by(JobRow.started.desc()).limit(newest)
        with self._database.read() as session:
            return list(session.scalars(query.filter_by(kind=kind) if kind else query))[::-1]


def describe(job: JobRow) -> dict[str, Any]:
    """A job as plain JSON."""
    told = {name: getattr(job, name) for name in ("id", "kind", "status", "detail", "request")}
    return {**told, "started": job.started.isoformat(), "ended": job.ended and job.ended.isoformat()}
