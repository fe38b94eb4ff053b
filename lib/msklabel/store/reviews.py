"""Reviews of labels: accepted, rejected with a reason, or opened again; each is an event that stays."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from msklabel.errors import Conflict, NotFound, UserError
from msklabel.store import slicer_review
from msklabel.store.audit import add_event
from msklabel.store.database import Database
from msklabel.store.schema import STATES, Base, LabelVersion, now

WITHDRAWN = "withdrawn"
"""State of the event by which a label is removed; the version keeps the state that it had."""
_REASON_CHARACTERS = 2000


class Review(Base):
    """One review of a label version; the newest tells its state."""

    __tablename__ = "review"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("label_version.id"), index=True)
    state: Mapped[str]
    reason: Mapped[str | None]
    who: Mapped[str | None]
    created: Mapped[datetime] = mapped_column(default=now)


class Reviews:
    """All reviews.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, version_id: int, state: str, reason: str | None = None, who: str | None = None, noted: bool = False
    ) -> LabelVersion:
        """Say what is thought of a label version.

        Args:
            version_id: The version.
            state: ``accepted``; ``rejected``, with a reason; ``reopened``, to have it made again though it was not bad;
                ``submitted``, to take a review back.
            reason: A sentence for the annotator.
            who: The reviewer.
            noted: Whether 3D Slicer's reviewer module wrote its own note of it already.

        Raises:
            UserError: If there is no such state, or a rejection has no reason.
            NotFound: If there is no such version.
            Conflict: If the version was removed.
        """
        reason = (reason or "").strip()[:_REASON_CHARACTERS] or None
        if state not in STATES:
            raise UserError(f"state {state[:80]!r}: expected one of {', '.join(STATES)}")
        if state == "rejected" and not reason:
            raise UserError("a rejection needs a reason, so that the annotator knows what to mend")
        with self._database.write() as session:
            version = session.get(LabelVersion, version_id)
            if version is None:
                raise NotFound(f"there is no label version {version_id}")
            if version.withdrawn:
                raise Conflict(f"label version {version_id} was removed, so it cannot be reviewed")
            version.state = state
            if not noted:
                version.info = {**version.info, slicer_review.KEY: slicer_review.note_for(version, state, reason, who)}
            add_review(session, version, state, reason, who)
        return version

    def of(self, versions: Iterable[int]) -> dict[int, list[Review]]:
        """Reviews of some versions, oldest first."""
        found: dict[int, list[Review]] = {version_id: [] for version_id in versions}
        with self._database.read() as session:
            for review in session.scalars(select(Review).where(Review.version_id.in_(found)).order_by(Review.id)):
                found[review.version_id].append(review)
        return found


def add_review(session: Session, version: LabelVersion, state: str, reason: str | None, who: str | None) -> None:
    """Add an event, and its line in the audit trail, within a transaction."""
    session.add(Review(version_id=version.id, state=state, reason=reason, who=who))
    facts = {"image": version.image_id, "version": version.id, "state": state, "reason": reason}
    add_event(session, "review", who, facts)
