"""The audit trail: who did what, when; lines are only added."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from msklabel.store.database import Database
from msklabel.store.names import checked_info
from msklabel.store.schema import Base, now


class Audit(Base):
    """One event.

    Attributes:
        event: What happened, such as ``submit`` or ``publish``.
        who: The user or client; none where the server itself did it.
        facts: What else is to be known.
    """

    __tablename__ = "audit"
    __table_args__ = (Index("audit_of_event", "event"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    event: Mapped[str]
    who: Mapped[str | None]
    facts: Mapped[dict[str, Any]]
    created: Mapped[datetime] = mapped_column(default=now)


def add_event(session: Session, event: str, who: str | None, facts: dict[str, Any]) -> None:
    """Add an event within a transaction, so that it is noted if and only if the transaction holds."""
    session.add(Audit(event=event, who=who, facts=checked_info(facts)))


def events(database: Database, event: str | None = None, newest: int | None = None) -> list[Audit]:
    """Events, oldest first.

    Args:
        database: Where they are recorded.
        event: Of this kind only.
        newest: The last so many only.
    """
    query = select(Audit).order_by(Audit.id.desc()).limit(newest)
    with database.read() as session:
        return list(session.scalars(query.filter_by(event=event) if event else query))[::-1]
