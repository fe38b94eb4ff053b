"""Reviews of labels: accepted, rejected with a reason, or opened again; each is an event that stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Select, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from msklabel.errors import Conflict, NotFound, UserError
from msklabel.store import slicer_review
from msklabel.store.audit import add_event
from msklabel.store.database import Database
from msklabel.store.schema import STATES, Base, LabelVersion, now

WITHDRAWN = "withdrawn"
"""State of the event by which a label is removed; the version keeps the state that it had."""
HELD = "held"
RELEASED = "released"
"""Events of a training: it holds a label back for a reviewer, or finds no longer that it should; neither is a state."""
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

    def hold(self, judged: Mapping[int, str]) -> None:
        """Note which labels a training holds back until a reviewer accepts them, each time that this changes.

        Args:
            judged: For each version that was looked at the reason why it is held back, empty where it is not.
        """
        with self._database.read() as session:
            known = _held(session, judged)
        changed = {version: reason for version, reason in judged.items() if known.get(version, "") != reason}
        if not changed:
            return
        with self._database.write() as session:
            for version_id, reason in changed.items():
                version = session.get(LabelVersion, version_id)
                if version is not None and version.withdrawn is None:
                    kept = reason[:_REASON_CHARACTERS] or None
                    add_review(session, version, HELD if reason else RELEASED, kept, None)

    def held(self, versions: Iterable[int]) -> dict[int, str]:
        """Which of some versions are held back, and why."""
        with self._database.read() as session:
            return _held(session, versions)

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


def newest_held() -> Select[Any]:
    """Version and reason of the labels of which the newest event is that they are held back."""
    newest = select(func.max(Review.id)).group_by(Review.version_id)
    columns: Select[Any] = select(Review.version_id, Review.reason)  # type: ignore[assignment]
    return columns.where(Review.id.in_(newest), Review.state == HELD)


def _held(session: Session, versions: Iterable[int]) -> dict[int, str]:
    wanted = set(versions)
    return {version: reason or "" for version, reason in session.execute(newest_held()) if version in wanted}
