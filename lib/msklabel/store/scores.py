"""Scores: what a model said of a scan, as far as choosing the next one needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import ForeignKey, Index, bindparam, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from msklabel.store.database import Database
from msklabel.store.names import plain
from msklabel.store.schema import Base, now

NO_VERSION = ""  # of the row that says that what was known of a scan is of a file that is there no more


class ScoreRow(Base):
    """One scan seen by one version of a system's model.

    Attributes:
        model_version: Name of the version.
        summary: Arrays, as the strategies write them; at most some ten KB.
        values: Single figures by name.
    """

    __tablename__ = "score"
    __table_args__ = (
        Index("score_of_model", "system", "model_version", "image_id", unique=True),
        Index("score_of_image", "system", "image_id"),
        Index("score_since", "system", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("image.id"))
    system: Mapped[str]
    model_version: Mapped[str]
    summary: Mapped[bytes]
    values: Mapped[dict[str, float]] = mapped_column("figures")
    created: Mapped[datetime] = mapped_column(default=now)


_SINCE = (  # made once, as each "next" asks it
    select(ScoreRow)
    .where(ScoreRow.system == bindparam("system"), ScoreRow.id > bindparam("row_id"))
    .order_by(ScoreRow.id)
    .limit(bindparam("most"))
)


class Scores:
    """Scores of all scans.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, image_id: str, system: str, model_version: str, summary: bytes, values: Mapping[str, float]) -> None:
        """Keep the score of a scan by a model version, in place of an earlier one by the same."""
        same = delete(ScoreRow).filter_by(image_id=image_id, system=system, model_version=model_version)
        row = ScoreRow(image_id=image_id, system=system, model_version=model_version, summary=summary)
        row.values = plain(dict(values))
        with self._database.write(lasting=False) as session:
            session.execute(same)
            session.add(row)

    def of(self, system: str, model_version: str) -> dict[str, ScoreRow]:
        """Scores by one model version, by image id."""
        with self._database.read() as session:
            return _by_image(session.scalars(select(ScoreRow).filter_by(system=system, model_version=model_version)))

    def newest(self, system: str) -> dict[str, ScoreRow]:
        """The last score of each scan by any version, by image id."""
        last = select(func.max(ScoreRow.id)).filter_by(system=system).group_by(ScoreRow.image_id)
        with self._database.read() as session:
            return _by_image(session.scalars(select(ScoreRow).where(ScoreRow.id.in_(last))))

    def since(self, system: str, row_id: int, most: int) -> list[ScoreRow]:
        """Rows that came after one (0 for all), oldest first, not more than so many."""
        with self._database.read() as session:
            return list(session.scalars(_SINCE, {"system": system, "row_id": row_id, "most": most}))

    def newest_of(self, image_id: str, system: str) -> list[ScoreRow]:
        """All scores of one scan, the newest first."""
        query = select(ScoreRow).filter_by(image_id=image_id, system=system).order_by(ScoreRow.id.desc())
        with self._database.read() as session:
            return list(session.scalars(query))


def forget(session: Session, image_id: str) -> None:
    """A scan's file is another one: what models said of it counts no more, for readers of newer rows, too."""
    systems = session.scalars(select(ScoreRow.system).filter_by(image_id=image_id).distinct()).all()
    session.execute(delete(ScoreRow).filter_by(image_id=image_id))
    for system in systems:
        row = ScoreRow(image_id=image_id, system=system, model_version=NO_VERSION, summary=b"")
        row.values = {}
        session.add(row)


def _by_image(rows: Iterable[ScoreRow]) -> dict[str, ScoreRow]:
    return {row.image_id: row for row in rows}
