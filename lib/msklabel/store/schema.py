"""The tables: images as they lie in the studies folder, and every version of every label.

A label version is never changed or deleted: SQLite itself refuses it (triggers below). Only two columns may change,
``info`` (remarks, review states) and ``withdrawn`` (a removed label is marked).
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import DDL, JSON, BigInteger, DateTime, ForeignKey, Index, event
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

SCHEMA_VERSION = 1
ORIGINS = ("automatic", "corrected", "manual", "imported")


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(timezone.utc)


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite keeps no zone, so it is put back on the way out."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store without zone, in UTC."""
        return value and value.astimezone(timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give with zone."""
        return value and value.replace(tzinfo=timezone.utc)


class Base(DeclarativeBase):
    """All tables of the store."""

    type_annotation_map = {  # noqa: RUF012
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[str]: JSON,
        list[int]: JSON,
        list[list[float]]: JSON,
    }


class Image(Base):
    """A scan in the studies folder, or one that was there.

    Attributes:
        id: Path below the studies folder without image suffix, parts joined by ``/``.
        file: Path below the studies folder: a file, or the folder of a DICOM series.
        size_bytes: Of the file, or of all files of the series.
        mtime_ns: Last change, the latest of a series, ns since 1970.
        shape: Voxels along each axis, once the scan was read.
        affine: Rows of the 4x4 matrix from voxel index to RAS mm, once the scan was read.
        present: Whether the file is there now.
        uploaded: Whether it came through the server and not from the user's own folder.
        info: What clients and strategies noted about it.
    """

    __tablename__ = "image"

    id: Mapped[str] = mapped_column(primary_key=True)
    file: Mapped[str | None]
    patient: Mapped[str | None]
    site: Mapped[str | None]
    modality: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    mtime_ns: Mapped[int] = mapped_column(BigInteger, default=0)
    shape: Mapped[list[int] | None]
    affine: Mapped[list[list[float]] | None]
    present: Mapped[bool] = mapped_column(default=True, index=True)
    uploaded: Mapped[bool] = mapped_column(default=False)
    info: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created: Mapped[datetime] = mapped_column(default=now)


class LabelVersion(Base):
    """One submission, import or automatic result: a label file and where it came from.

    Attributes:
        id: Grows with time; the newest version has the largest.
        tag: ``final``, ``original`` or a name of the client's choice.
        system: Name of the System whose indices the voxels hold.
        origin: One of ``ORIGINS``.
        base_model: Version of the model whose result was the starting point.
        sha256: Of the label file, and its name.
        classes: Names of the labels that occur in it, in order of index.
        withdrawn: When it was removed; none while it counts.
    """

    __tablename__ = "label_version"
    __table_args__ = (
        Index("label_version_of_image", "image_id", "tag", "system"),
        Index("label_version_of_tag", "tag", "system", "image_id"),
        Index("label_version_file", "sha256"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("image.id"))
    tag: Mapped[str]
    system: Mapped[str]
    author: Mapped[str | None]
    origin: Mapped[str]
    base_model: Mapped[str | None]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    classes: Mapped[list[str]]
    info: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created: Mapped[datetime] = mapped_column(default=now)
    withdrawn: Mapped[datetime | None]


class Setting(Base):
    """A value that belongs to the whole store, such as its name."""

    __tablename__ = "setting"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


_FIXED = "image_id, tag, system, author, origin, base_model, sha256, size_bytes, classes, created"
for _name, _when in {"keep": "DELETE", "fixed": f"UPDATE OF {_FIXED}"}.items():
    event.listen(
        LabelVersion.__table__,
        "after_create",
        DDL(
            f"CREATE TRIGGER label_version_{_name} BEFORE {_when} ON label_version "
            "BEGIN SELECT RAISE(ABORT, 'label versions are never changed or deleted'); END"
        ).execute_if(dialect="sqlite"),
    )
