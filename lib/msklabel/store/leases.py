"""Leases: a scan is with one annotator for a time, so that nobody else is given it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Double, ForeignKey, Index, Select, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from msklabel.store.database import Database
from msklabel.store.schema import Base, now

LEASE_S = 3600.0
"""For how long a scan is given by default, from each sign of activity."""
_CLOCKS_DIFFER = timedelta(minutes=10)  # what was taken later than that was taken before the clock was set back


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


# Made once: each "next" asks these, and to put a question together takes as long as the answer.
_HELD = select(Lease.image_id, Lease.holder).where(
    Lease.released.is_(None), Lease.expires > bindparam("at"), Lease.taken <= bindparam("latest")
)
_SKIPPED = select(Skip.image_id).where(Skip.holder == bindparam("holder"))


class Leases:
    """Who has which scan; the same for all threads and processes, as each change holds the write lock.

    Args:
        database: Where they are recorded.
        clock: Tells the time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = now) -> None:
        self._database = database
        self._clock = clock

    def take(self, candidates: Iterable[str], holder: str, seconds: float) -> str | None:
        """Give the holder the first candidate that is free or his own already.

        Args:
            candidates: Ids of recorded images, the most wanted first; read as far as needed.
            holder: Who gets it.
            seconds: For how long; activity renews it for as long again.

        Returns:
            None if all are with others.
        """
        with self._database.write(lasting=False) as session:
            at = self._clock()
            held = _held(session, at)
            for image_id in candidates:
                whose = held.get(image_id)
                if whose is None:
                    session.add(Lease(image_id=image_id, holder=holder, seconds=seconds, **_span(at, seconds)))
                    return image_id
                if whose == holder:
                    again = {"seconds": seconds, "expires": at + timedelta(seconds=seconds)}
                    own = (Lease.image_id == image_id, Lease.holder == holder)
                    session.execute(update(Lease).where(*own, *_runs(at)).values(again))
                    return image_id
        return None

    def renew(self, image_id: str, holder: str) -> bool:
        """Let a running lease begin anew; whether there is one."""
        if self.held().get(image_id) != holder:
            return False  # nobody else's write is waited for
        with self._database.write(lasting=False) as session:
            at = self._clock()
            lease = session.scalar(_running(at).where(Lease.image_id == image_id, Lease.holder == holder))
            if lease is None:
                return False
            lease.expires = at + timedelta(seconds=lease.seconds)
            return True

    def renew_all(self, holder: str) -> None:
        """Let all running leases of a holder begin anew."""
        for lease in self.running():
            if lease.holder == holder:
                self.renew(lease.image_id, holder)

    def release(self, image_id: str, holder: str) -> bool:
        """Give a scan back; whether the holder had it."""
        with self._database.write(lasting=False) as session:
            return _end(session, image_id, holder, self._clock())

    def skip(self, image_id: str, holder: str) -> bool:
        """Give a scan back and do not give it to this holder again, while there are others; whether he had it."""
        with self._database.write(lasting=False) as session:
            had = _end(session, image_id, holder, self._clock())
            insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
            row = {"image_id": image_id, "holder": holder, "created": self._clock()}
            session.execute(insert(Skip).values(row).on_conflict_do_nothing())
        return had

    def held(self, at: datetime | None = None) -> dict[str, str]:
        """Holder of each scan that is with somebody at a time; now by default."""
        with self._database.read() as session:
            return _held(session, at or self._clock())

    def running(self, at: datetime | None = None) -> list[Lease]:
        """The leases that run at a time, by image id; now by default."""
        with self._database.read() as session:
            return list(session.scalars(_running(at or self._clock()).order_by(Lease.image_id)))

    def skipped(self, holder: str) -> set[str]:
        """The scans that a holder skipped."""
        with self._database.read() as session:
            return set(session.scalars(_SKIPPED, {"holder": holder}))


def in_turn(candidates: Iterable[str], first: Collection[str], last: Collection[str]) -> Iterator[str]:
    """The same candidates, some before and some behind all others, each group in the same order."""
    rest = candidates
    if first:  # only then are all of them read before the first is given
        rest = list(candidates)
        yield from (image_id for image_id in rest if image_id in first)
    behind = []
    for image_id in rest:
        if image_id in last:
            behind.append(image_id)
        elif image_id not in first:
            yield image_id
    yield from (image_id for image_id in behind if image_id not in first)


def settle(session: Session, image_id: str, holder: str, at: datetime) -> str | None:
    """End the holder's lease on a scan of which a label comes in, within the transaction that stores it.

    Returns:
        A sentence if the lease had run out or the scan is with somebody else; the label is kept all the same.
    """
    query = select(Lease).filter_by(image_id=image_id, holder=holder).where(Lease.released.is_(None))
    late = any(lease.expires <= at for lease in session.scalars(query))
    in_time = _end(session, image_id, holder, at)
    other = session.scalar(_running(at).where(Lease.image_id == image_id, Lease.holder != holder).limit(1))
    if other:
        return f"the scan is with {other.holder} at present" + (", as the lease had run out" if late else "")
    return "the lease on the scan had run out" if late and not in_time else None


def _end(session: Session, image_id: str, holder: str, at: datetime) -> bool:
    """Mark a holder's leases on a scan as released; whether one ran."""
    query = select(Lease).filter_by(image_id=image_id, holder=holder).where(Lease.released.is_(None))
    leases = list(session.scalars(query))
    for lease in leases:
        lease.released = at
    return any(lease.expires > at for lease in leases)


def _held(session: Session, at: datetime) -> dict[str, str]:
    """Holder of each scan; two columns only, as there may be hundreds and each "next" asks twice."""
    return dict(session.execute(_HELD, {"at": at, "latest": at + _CLOCKS_DIFFER}).tuples().all())


def _running(at: datetime) -> Select[Any]:
    return select(Lease).where(*_runs(at))


def _runs(at: datetime) -> tuple[ColumnElement[bool], ...]:
    return Lease.released.is_(None), Lease.expires > at, Lease.taken <= at + _CLOCKS_DIFFER


def _span(at: datetime, seconds: float) -> dict[str, datetime]:
    return {"taken": at, "expires": at + timedelta(seconds=seconds)}
