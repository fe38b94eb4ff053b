"""The tables that hold what there is: images as they lie in the studies folder, and every version of every label.

A label version is never changed or deleted: the database itself refuses it (triggers in ``migrations``). Only three
columns may change: ``info`` (remarks), ``state`` (that of the newest review event) and ``withdrawn`` (a removed label
is marked). Tables of the work on them stand beside their classes (leases, reviews, scores, splits, jobs, quantities,
audit).
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Index
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""All versions of the schema, oldest first; each is a script in ``migrations/versions``."""
ORIGINS = ("automatic", "corrected", "manual", "imported")
STATES = ("submitted", "accepted", "rejected", "reopened")
OPEN = ("rejected", "reopened")
"""States in which a label is to be made again."""


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(timezone.utc)


def now_us() -> int:
    """The time in µs since 1970."""
    return time.time_ns() // 1000


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC; databases keep it without zone, so it is put back on the way out."""

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
        dict[str, Any]: JSON(none_as_null=True),
        dict[str, float]: JSON,
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
        changed: When the row was last written, µs since 1970: who keeps images in memory reads only what came after.
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
    changed: Mapped[int] = mapped_column(BigInteger, default=now_us, onupdate=now_us, index=True)


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
        annotated: What of the scan it speaks of, as :mod:`msklabel.store.annotation` writes it; None for all.
        warnings: Sentences on what looked wrong when it came.
        state: One of ``STATES``.
        withdrawn: When it was removed; none while it counts.
    """

    __tablename__ = "label_version"
    __table_args__ = (
        Index("label_version_of_image", "image_id", "tag", "system"),
        Index("label_version_of_tag", "tag", "system", "image_id"),
        Index("label_version_file", "sha256"),
        Index("label_version_of_state", "state", "author"),
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
    annotated: Mapped[dict[str, Any] | None]
    warnings: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    state: Mapped[str] = mapped_column(default="submitted", server_default="submitted")


class Setting(Base):
    """A value that belongs to the whole store, such as its name."""

    __tablename__ = "setting"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
