"""Label files by content and their append-only history."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import BindParameter, Select, bindparam, case, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from msklabel.durable import flush, sha256_of
from msklabel.errors import NotFound, UserError
from msklabel.imaging import LabelMap
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.write import nifti_bytes
from msklabel.store.annotation import to_json
from msklabel.store.audit import add_event
from msklabel.store.database import Database
from msklabel.store.files import storage_full_told
from msklabel.store.leases import settle
from msklabel.store.names import checked_info
from msklabel.store.reviews import WITHDRAWN, Review, add_review, newest_held
from msklabel.store.schema import OPEN, Image, LabelVersion, now
from msklabel.store.worklist import NEWEST, Newest, Worklist, is_done, newest_of

FINAL = "final"
ORIGINAL = "original"
SUFFIX = ".nii.gz"
_INCOMING = ".incoming-"
_LEFTOVER_S = 3600
_LARGEST_ID = 2**31 - 1  # that PostgreSQL's integer holds; databases raise on larger numbers


@dataclass(frozen=True)
class Submission:
    """A checked label and where it comes from.

    Attributes:
        labels: Voxels hold the indices of ``system``, on the grid of the image.
        classes: Names of the labels that occur.
        annotated: What of the scan it speaks of.
        warnings: Sentences on what looks wrong.
        origin: None is found out: automatic under the tag ``original``, corrected where the system has an automatic
            label on the image, else manual.
        holder: Whose lease on the scan ends with it; None for nobody's.
        follows: Version that must be the newest that counts still, 0 for none; None where that does not matter.
    """

    image_id: str
    tag: str
    system: str
    labels: LabelMap
    classes: list[str]
    annotated: Annotated = field(default_factory=Annotated)
    warnings: list[str] = field(default_factory=list)
    author: str | None = None
    origin: str | None = None
    base_model: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    holder: str | None = None
    follows: int | None = None


class Overtaken(Exception):
    """Another version came before a submission that was to follow the one before."""


class Labels:
    """All versions of all labels.

    Args:
        database: Where they are recorded.
        folder: Holds the files, ``<sha256>.nii.gz``.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._worklist = Worklist(database)

    def tidy(self) -> None:
        """Remove what a crash left of files that were being written; every recorded file stays."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for room in self._folder.glob(f"{_INCOMING}*"):
            with suppress(FileNotFoundError):
                if time.time() - room.stat().st_mtime > _LEFTOVER_S:
                    shutil.rmtree(room) if room.is_dir() else room.unlink()

    def file(self, version: LabelVersion) -> Path:
        """Path of the label file of a version."""
        return self._folder / f"{version.sha256}{SUFFIX}"

    def add(self, submission: Submission, once: bool = False) -> LabelVersion:
        """Store a label. When this returns, file and record are on disk.

        Args:
            submission: The label.
            once: If the same label is there already, give that version instead.

        Raises:
            UserError: If it is empty.
            StorageFull: If the disk is full; then nothing is left.
            Overtaken: If it does not follow the newest version; then nothing is left, too.
        """
        if not submission.classes:
            raise UserError("the label is empty: nothing is labelled, and no slice was drawn before")
        content = nifti_bytes(submission.labels)
        sha256, size_bytes = hashlib.sha256(content).hexdigest(), len(content)
        with storage_full_told(), self._written(content) as incoming:
            try:
                with self._database.write() as session:
                    old = _same(session, submission, sha256) if once else None
                    if old:
                        return old
                    newest = _standing(submission.image_id, submission.tag, submission.system)
                    if submission.follows is not None and (session.scalar(newest) or 0) != submission.follows:
                        raise Overtaken
                    file = self._folder / f"{sha256}{SUFFIX}"
                    if not file.is_file() or sha256_of(file) != sha256:  # its copies tell what they are by its time
                        incoming.replace(file)
                        flush(self._folder)
                    version = _version(session, submission, sha256, size_bytes)
                    session.add(version)
                    session.flush()
                    facts = {"image": version.image_id, "version": version.id, "tag": version.tag, "sha256": sha256}
                    add_event(session, "submit", version.author, facts)
            except BaseException:
                self._forget(sha256)
                raise
        return version

    def get(self, version_id: int) -> LabelVersion:
        """One version.

        Raises:
            NotFound: If there is none.
        """
        version = None
        if 0 < version_id <= _LARGEST_ID:
            with self._database.read() as session:
                version = session.get(LabelVersion, version_id)
        if version is None:
            raise NotFound(f"there is no label version {str(version_id)[:80]}")
        return version

    def newest(self, image_id: str, tag: str, system: str | None = None) -> LabelVersion:
        """The newest version of a label that was not removed.

        Raises:
            NotFound: If there is none.
        """
        query = select(LabelVersion).where(LabelVersion.image_id == image_id, LabelVersion.tag == tag)
        query = _of_system(query, system).where(LabelVersion.withdrawn.is_(None))
        with self._database.read() as session:
            version = session.scalar(query.order_by(LabelVersion.id.desc()).limit(1))
        if version is None:
            kind = f" of {system}" if system else ""
            raise NotFound(f"image {str(image_id)[:200]!r} has no label{kind} with the tag {tag!r}")
        return version

    def standing(self, image_id: str, tag: str, system: str) -> LabelVersion | None:
        """The newest version that was neither removed nor rejected; None if there is none."""
        with self._database.read() as session:
            return session.scalar(select(LabelVersion).where(LabelVersion.id.in_(_standing(image_id, tag, system))))

    def history(self, image_id: str, tag: str | None = None, system: str | None = None) -> list[LabelVersion]:
        """All versions on an image, the removed ones too, oldest first."""
        query = _of_system(select(LabelVersion).where(LabelVersion.image_id == image_id), system)
        if tag:
            query = query.where(LabelVersion.tag == tag)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(LabelVersion.id)))

    def by_image(self, tag: str) -> dict[str, list[LabelVersion]]:
        """All versions of a tag, the removed ones too, by image id, oldest first."""
        found: dict[str, list[LabelVersion]] = {}
        with self._database.read() as session:
            for version in session.scalars(select(LabelVersion).filter_by(tag=tag).order_by(LabelVersion.id)):
                found.setdefault(version.image_id, []).append(version)
        return found

    def current(
        self, tag: str | None = None, system: str | None = None, rejected: bool = True
    ) -> list[tuple[LabelVersion, Image]]:
        """For each image that is there and each tag: the newest version that was not removed, by image id.

        Args:
            tag: Of this tag only.
            system: Of this system only.
            rejected: Whether a version counts that a reviewer rejected; if not, an older one may.
        """
        newest = select(func.max(LabelVersion.id)).where(LabelVersion.withdrawn.is_(None))
        if not rejected:
            newest = newest.where(LabelVersion.state != "rejected")
        newest = _of_system(newest, system).group_by(LabelVersion.image_id, LabelVersion.tag)
        if tag:
            newest = newest.where(LabelVersion.tag == tag)
        query = select(LabelVersion, Image).join(Image).where(Image.present, LabelVersion.id.in_(newest))
        with self._database.read() as session:
            rows = session.execute(query.order_by(LabelVersion.image_id, LabelVersion.tag))
            return [(row[0], row[1]) for row in rows]

    def newest_of_each(self, tag: str, system: str | None = None, image_id: str | None = None) -> list[LabelVersion]:
        """The newest version of each image that is there (or of one) and each system (or of one), by image id."""
        query = select(LabelVersion).join(Image).where(Image.present)
        query = query.where(Image.id == image_id) if image_id else query
        query = query.where(LabelVersion.id.in_(_newest(tag, [system] if system else None)))
        with self._database.read() as session:
            return list(session.scalars(query.order_by(LabelVersion.image_id, LabelVersion.system)))

    def finished(self, tag: str, systems: Iterable[str] | None = None, whole: bool = False) -> set[str]:
        """Ids of the images that have a label of a tag, of any of some systems, and none that is to be made again.

        With ``whole`` a label of some slices does not count.
        """
        return self._worklist.done(tag, systems, whole)

    def finished_of(self, tag: str, system: str) -> Mapping[str, Newest]:
        """The newest label of a system on each finished image; the same mapping as long as nothing is new."""
        return self._worklist.finished(tag, system)

    def submissions(self, tag: str, systems: Iterable[str] | None = None) -> int:
        """How many versions of a tag were ever submitted, of any of some systems."""
        return self._worklist.submissions(tag, None if systems is None else set(systems))

    def to_mend(self, author: str, tag: str) -> set[str]:
        """Ids of the images whose newest label is by an author, and was rejected or opened again."""
        with self._database.read() as session:
            ids = set(session.scalars(_TO_MEND, {"author": author, "tag": tag}))
        return {image_id for image_id in ids if not self.is_finished(image_id, tag)}

    def is_finished(self, image_id: str, tag: str, systems: Iterable[str] | None = None, whole: bool = False) -> bool:
        """Whether one image is among the finished ones."""
        asked = {"image_id": image_id, "tag": tag, "systems": list(systems or ())}
        with self._database.read() as session:
            rows = session.execute(_OF_IMAGE if systems is None else _OF_IMAGE_AND_SYSTEMS, asked)
            newest = [newest_of(*row) for row in rows]
        return is_done(newest, whole)

    def to_review(
        self, systems: Iterable[str] | None = None, held: bool = False, most: int = 100
    ) -> list[LabelVersion]:
        """Newest finished labels of each image and system that no reviewer has judged: those held back first.

        Args:
            systems: Of these systems only.
            held: Only those that a training holds back.
            most: At most so many, the oldest of each kind first.
        """
        doubted = newest_held().with_only_columns(Review.version_id)
        query = select(LabelVersion).join(Image).where(Image.present, LabelVersion.id.in_(_newest(FINAL, systems)))
        query = query.where(LabelVersion.state == "submitted")
        if held:
            query = query.where(LabelVersion.id.in_(doubted))
        first = case((LabelVersion.id.in_(doubted), 0), else_=1)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(first, LabelVersion.id).limit(most)))

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of images that are there and have a label, for each tag and system; the system ``""`` is any."""
        images = func.count(LabelVersion.image_id.distinct())
        query = select(LabelVersion.tag, LabelVersion.system, images).join(Image)
        query = query.where(Image.present, LabelVersion.withdrawn.is_(None))
        anything = query.with_only_columns(LabelVersion.tag, images, maintain_column_froms=True)
        with self._database.read() as session:
            rows = session.execute(query.group_by(LabelVersion.tag, LabelVersion.system))
            counts = {(tag, system): number for tag, system, number in rows}
            for tag, number in session.execute(anything.group_by(LabelVersion.tag)):
                counts[tag, ""] = number
        return counts

    def withdraw(self, image_id: str, tag: str, system: str | None = None, who: str | None = None) -> None:
        """Mark all versions of a label as removed; without a system, those of the newest version's system.

        One that is submitted meanwhile stays: whoever removed the label did not know of it.

        Raises:
            NotFound: If there is none.
        """
        newest = self.newest(image_id, tag, system)
        query = select(LabelVersion).where(LabelVersion.image_id == image_id, LabelVersion.tag == tag)
        query = query.where(LabelVersion.system == newest.system, LabelVersion.id <= newest.id)
        with self._database.write() as session:
            for version in session.scalars(query.where(LabelVersion.withdrawn.is_(None))):
                version.withdrawn = now()
                add_review(session, version, WITHDRAWN, None, who)

    def note(self, version_id: int, info: dict[str, Any]) -> None:
        """Add to what is noted about one version; a key that is there is replaced."""
        with self._database.write() as session:
            version = session.get_one(LabelVersion, version_id)
            version.info = {**version.info, **checked_info(info)}

    def merge_info(self, image_id: str, tag: str, info: dict[str, Any]) -> LabelVersion:
        """Add to what is noted about the newest version of a label, and return it; a key that is there is replaced.

        Raises:
            NotFound: If there is none.
        """
        version_id = self.newest(image_id, tag).id
        with self._database.write() as session:
            version = session.get_one(LabelVersion, version_id)
            version.info = {**version.info, **checked_info(info)}
        return version

    @contextmanager
    def _written(self, content: bytes) -> Iterator[Path]:
        """A new file with this content, on disk, under a temporary name; removed if it still has that name."""
        handle, name = tempfile.mkstemp(prefix=_INCOMING, dir=self._folder)
        incoming = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                written_ns = time.time_ns()  # the file system's own clock is so coarse that two files may share a time
                os.utime(stream.fileno(), ns=(written_ns, written_ns))
                os.fsync(stream.fileno())
            yield incoming
        finally:
            incoming.unlink(missing_ok=True)

    def _forget(self, sha256: str) -> None:
        """Remove a file that no version has; with the lock held, so that none gets it meanwhile."""
        with suppress(OperationalError), self._database.write() as session:
            if session.scalar(select(LabelVersion.id).filter_by(sha256=sha256).limit(1)) is None:
                (self._folder / f"{sha256}{SUFFIX}").unlink(missing_ok=True)


def _same(session: Session, new: Submission, sha256: str) -> LabelVersion | None:
    query = select(LabelVersion).filter_by(image_id=new.image_id, tag=new.tag, system=new.system, sha256=sha256)
    return session.scalar(query.limit(1))


def _standing(image_id: str, tag: str, system: str) -> Select[Any]:
    """Id of the newest version that was neither removed nor rejected."""
    query = select(func.max(LabelVersion.id)).filter_by(image_id=image_id, tag=tag, system=system)
    return query.where(LabelVersion.withdrawn.is_(None), LabelVersion.state != "rejected")


def _version(session: Session, submission: Submission, sha256: str, size_bytes: int) -> LabelVersion:
    origin = submission.origin
    if origin is None and submission.tag == ORIGINAL:
        origin = "automatic"
    if origin is None:
        automatic = select(LabelVersion.id).filter_by(image_id=submission.image_id, system=submission.system)
        query = automatic.where(LabelVersion.origin == "automatic").limit(1)
        origin = "manual" if session.scalar(query) is None else "corrected"
    late = settle(session, submission.image_id, submission.holder, now()) if submission.holder else None
    return LabelVersion(
        image_id=submission.image_id,
        tag=submission.tag,
        system=submission.system,
        author=submission.author,
        origin=origin,
        base_model=submission.base_model,
        sha256=sha256,
        size_bytes=size_bytes,
        classes=submission.classes,
        annotated=to_json(submission.annotated),
        warnings=[*submission.warnings, *([late] if late else [])],
        info=checked_info(submission.info),
    )


def _newest(tag: str | BindParameter[str], systems: Iterable[str] | None = None) -> Select[Any]:
    """Ids of the newest versions that count, of each image and system."""
    newest = select(func.max(LabelVersion.id)).where(LabelVersion.tag == tag, LabelVersion.withdrawn.is_(None))
    if systems is not None:
        newest = newest.where(LabelVersion.system.in_(list(systems)))
    return newest.group_by(LabelVersion.image_id, LabelVersion.system)


def _of_system(query: Select[Any], system: str | None) -> Select[Any]:
    return query.where(LabelVersion.system == system) if system else query


# Made once, as each "next" asks them.
_TO_MEND = select(LabelVersion.image_id).where(
    LabelVersion.state.in_(OPEN), LabelVersion.author == bindparam("author"), LabelVersion.tag == bindparam("tag")
)
_NEWEST_OF_IMAGE = _newest(bindparam("tag")).where(LabelVersion.image_id == bindparam("image_id"))
_OF_IMAGE, _OF_IMAGE_AND_SYSTEMS = (
    select(*NEWEST).join(Image).where(LabelVersion.id.in_(ids))
    for ids in (_NEWEST_OF_IMAGE, _NEWEST_OF_IMAGE.where(LabelVersion.system.in_(bindparam("systems", expanding=True))))
)
