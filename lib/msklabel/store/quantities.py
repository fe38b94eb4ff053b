"""What was measured of each label version, after it was stored: volumes, areas, means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from msklabel import __version__
from msklabel.store.database import Database
from msklabel.store.names import plain
from msklabel.store.schema import Base, Image, LabelVersion, now

_REASON_CHARACTERS = 500
_AT_ONCE = 500  # versions in one question


class Quantity(Base):
    """What was found of one version.

    Attributes:
        measured: ``rows``, ``slices``, ``volume_slices`` and ``notes`` as :class:`msklabel.measure.quantify.Quantified`
            has them; None where nothing could be measured.
        error: Why nothing could be.
        software: Version of msklabel that measured.
    """

    __tablename__ = "quantity"

    version_id: Mapped[int] = mapped_column(ForeignKey("label_version.id"), primary_key=True, autoincrement=False)
    measured: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    software: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=now)


@dataclass(frozen=True)
class Known:
    """A label version and what was measured of it; None while it was not measured yet."""

    version: LabelVersion
    quantity: Quantity | None


class Quantities:
    """All measurements.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, version_id: int, measured: Mapping[str, Any] | None, error: str | None = None) -> None:
        """Keep what was measured of a version, in place of what was there.

        Args:
            version_id: The version.
            measured: ``rows``, ``slices``, ``volume_slices``, ``notes``; what is not a number becomes null.
            error: Why nothing could be measured.
        """
        with self._database.write(lasting=False) as session:
            session.merge(
                Quantity(
                    version_id=version_id,
                    measured=plain(dict(measured)) if measured is not None else None,
                    error=error[:_REASON_CHARACTERS] if error else None,
                    software=__version__,
                    created=now(),
                )
            )

    def missing(self, tag: str, most: int) -> list[int]:
        """Ids of the versions that count and are not measured yet, the newest first."""
        query = select(LabelVersion.id).join(Image).outerjoin(Quantity, Quantity.version_id == LabelVersion.id)
        query = query.where(Image.present, LabelVersion.withdrawn.is_(None), LabelVersion.tag == tag)
        with self._database.read() as session:
            found = session.scalars(
                query.where(Quantity.version_id.is_(None)).order_by(LabelVersion.id.desc()).limit(most)
            )
            return list(found)

    def forget_failed(self) -> None:
        """Let what could not be measured be tried again, such as when a server starts."""
        with self._database.write() as session:
            session.execute(delete(Quantity).where(Quantity.error.is_not(None)))

    def of_versions(self, versions: Iterable[int]) -> dict[int, Quantity]:
        """What is known of some versions."""
        query = select(Quantity).where(Quantity.version_id.in_(list(versions)))
        with self._database.read() as session:
            return {found.version_id: found for found in session.scalars(query)}

    def of(self, versions: Iterable[LabelVersion]) -> list[Known]:
        """What is known of some versions, in their order."""
        listed = list(versions)
        known: dict[int, Quantity] = {}
        for start in range(0, len(listed), _AT_ONCE):
            known |= self.of_versions(version.id for version in listed[start : start + _AT_ONCE])
        return [Known(version, known.get(version.id)) for version in listed]


def forget_of(session: Session, image_id: str) -> None:
    """What was measured of an image's labels counts no more, as they were divided by another height: it is due anew."""
    versions = select(LabelVersion.id).filter_by(image_id=image_id)
    session.execute(delete(Quantity).where(Quantity.version_id.in_(versions)))


def describe(known: Known) -> dict[str, Any]:
    """A measurement as plain JSON; ``state`` is ``waiting``, ``measured`` or ``failed``."""
    version, found = known.version, known.quantity
    told: dict[str, Any] = {"image": version.image_id, "version": version.id, "system": version.system}
    told |= {"author": version.author, "review": version.state, "sha256": version.sha256}
    if found is None:
        return {**told, "state": "waiting"}
    told |= {"software": f"msklabel {found.software}", "created": found.created.isoformat()}
    if found.measured is None:
        return {**told, "state": "failed", "error": found.error}
    return {**told, "state": "measured", **found.measured}


def flat_rows(found: Iterable[Known]) -> list[dict[str, Any]]:
    """One row for each structure and side of every measured version."""
    rows = []
    for known in found:
        version = known.version
        if known.quantity is None or known.quantity.measured is None:
            continue
        first = {"image": version.image_id, "version": version.id, "system": version.system}
        first |= {"author": version.author, "review": version.state, "sha256": version.sha256}
        rows += [{**first, **_without(row, "scan")} for row in known.quantity.measured["rows"]]
    return rows


def _without(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
