"""Leases: a scan is with one annotator for a time, so that nobody else is given it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Double, ForeignKey, Index, Select, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from msklabel.store.database import Database
from msklabel.store.schema import Base, now


class Lease(Base):
    """A scan that was given to an annotator; rows stay, so that a late submission is known as such.

    Attributes:
        holder: User, else the client's own name.
        seconds: For how long from each sign of activity.
        expires: When it runs out.
        released: When it was given back or submitted; none while it runs or where it ran out.
    """

    __tablename__ = "lease"
    __table_args__ = (
        Index("lease_of_image", "image_id", "holder"),
        Index("lease_that_runs", "released", "expires"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("image.id"))
    holder: Mapped[str]
    seconds: Mapped[float] = mapped_column(Double)
    taken: Mapped[datetime]
    expires: Mapped[datetime]
    released: Mapped[datetime | None]


class Skip(Base):
    """A scan that an annotator does not want to be given again."""

    __tablename__ = "skip"

    image_id: Mapped[str] = mapped_column(ForeignKey("image.id"), primary_key=True)
    holder: Mapped[str] = mapped_column(primary_key=True)
    created: Mapped[datetime] = mapped_column(default=now)


class Leases:
    """Who has which scan; the same for all threads and processes, as each change holds the write lock.

    Args:
        database: Where they are recorded.
        clock: Tells the time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = now) -> None:
        self._database = database
        self._clock = clock

    def take(self, candidates: Sequence[str], holder: str, seconds: float) -> str | None:
        """Give the holder the first candidate that is free or his own already.

        Args:
            candidates: Image ids, the most wanted first; all of images that are recorded.
            holder: Who gets it.
            seconds: For how long; activity renews it for as long again.

        Returns:
            None if all are with others.
        """
        with self._database.write() as session:
            at = self._clock()
            running = {lease.image_id: lease for lease in session.scalars(_running(at))}
            for image_id in candidates:
                lease = running.get(image_id)
                if lease is None:
                    session.add(Lease(image_id=image_id, holder=holder, seconds=seconds, **_span(at, seconds)))
                    return image_id
                if lease.holder == holder:
                    lease.seconds, lease.expires = seconds, at + timedelta(seconds=seconds)
                    return image_id
        return None

    def renew(self, image_id: str, holder: str) -> bool:
        """Let a running lease begin anew; whether there is one."""
        with self._database.write() as session:
            at = self._clock()
            lease = session.scalar(_running(at).where(Lease.image_id == image_id, Lease.holder == holder))
            if lease is None:
                return False
            lease.expires = at + timedelta(seconds=lease.seconds)
            return True

    def release(self, image_id: str, holder: str) -> bool:
        """Give a scan back; whether the holder had it."""
        with self._database.write() as session:
            return self._release(session, image_id, holder)

    def skip(self, image_id: str, holder: str) -> None:
        """Give a scan back and do not give it to this holder again, while there are others."""
        with self._database.write() as session:
            self._release(session, image_id, holder)
            insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
            row = {"image_id": image_id, "holder": holder, "created": self._clock()}
            session.execute(insert(Skip).values(row).on_conflict_do_nothing())

    def held(self, at: datetime | None = None) -> dict[str, str]:
        """Holder of each scan that is with somebody at a time; now by default."""
        return {lease.image_id: lease.holder for lease in self.running(at)}

    def running(self, at: datetime | None = None) -> list[Lease]:
        """The leases that run at a time, by image id; now by default."""
        with self._database.read() as session:
            return list(session.scalars(_running(at or self._clock()).order_by(Lease.image_id)))

    def skipped(self, holder: str) -> set[str]:
        """The scans that a holder skipped."""
        with self._database.read() as session:
            return set(session.scalars(select(Skip.image_id).filter_by(holder=holder)))

    def newest(self, image_id: str, holder: str) -> Lease | None:
        """The last lease of a holder on a scan, whether it runs or not."""
        query = select(Lease).filter_by(image_id=image_id, holder=holder)
        with self._database.read() as session:
            return session.scalar(query.order_by(Lease.id.desc()).limit(1))

    def _release(self, session: Session, image_id: str, holder: str) -> bool:
        at = self._clock()
        query = select(Lease).filter_by(image_id=image_id, holder=holder).where(Lease.released.is_(None))
        leases = list(session.scalars(query))
        for lease in leases:
            lease.released = at
        return any(lease.expires > at for lease in leases)


def _running(at: datetime) -> Select[Any]:
    return select(Lease).where(Lease.released.is_(None), Lease.expires > at)


def _span(at: datetime, seconds: float) -> dict[str, datetime]:
    return {"taken": at, "expires": at + timedelta(seconds=seconds)}
