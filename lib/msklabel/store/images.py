"""The images of a store, kept in step with the folder or the PACS that they come from."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import String, bindparam, cast, func, insert, select
from sqlalchemy.orm import Session

from msklabel.durable import sha256_of
from msklabel.errors import Conflict, NotFound, UserError
from msklabel.imaging import same_grid, spacing_mm
from msklabel.imaging.channels import CHANNELS_FACT, read_channels
from msklabel.imaging.geometry import Affine
from msklabel.imaging.names import DETACHED_SUFFIXES, is_image, with_notes, without_suffix
from msklabel.imaging.read import read_scan
from msklabel.imaging.scan import DOUBTS, ImageError
from msklabel.store.database import Database
from msklabel.store.files import copy_whole, storage_full_told
from msklabel.store.folder import Contents, Found, parts
from msklabel.store.headers import check_self_contained
from msklabel.store.names import HEIGHT, checked_image_info, is_image_id
from msklabel.store.quantities import forget_of
from msklabel.store.schema import Image, Setting
from msklabel.store.scores import forget
from msklabel.store.source import Source, contents_of

logger = logging.getLogger(__name__)
UNREADABLE = "unreadable"  # noted about an image: why it cannot be read, as long as its file does not change
CHANNELS = "channels"  # likewise: the names of its channels, or how many it has; one alone only where that matters
_CHANGES = "image_changes"  # the setting that counts how often images came or went
_GLANCE_S = 3.0  # a look for new images happens at most this often
_CHANGED_BETWEEN = select(
    func.count(Image.id), func.coalesce(func.sum(Image.changed - bindparam("first_us")), 0)
).where(Image.changed > bindparam("first_us"), Image.changed <= bindparam("last_us"))


@dataclass(frozen=True)
class Grid:
    """The voxel grid of a scan: voxels along each axis, and the 4x4 matrix from voxel index to RAS mm."""

    shape: tuple[int, ...]
    affine: Affine

    def __str__(self) -> str:
        size = " x ".join(str(n) for n in self.shape)
        return f"{size} voxels of {' x '.join(f'{mm:.4g}' for mm in spacing_mm(self.affine))} mm"


class Images:
    """The images and what is known of them.

    Args:
        database: Where they are recorded.
        source: Where they come from.
        skip: Folders below its root that hold no images.
        channels: Names of the channels that systems of several need; files of one image are put together by them.
    """

    def __init__(
        self, database: Database, source: Source, skip: Iterable[Path] = (), channels: Iterable[str] = ()
    ) -> None:
        self._database = database
        self._source = source
        self._studies = source.root
        self._skip = tuple(skip)
        self._channels = tuple(channels)
        self._glance_s = _GLANCE_S
        self._contents: Contents | None = None
        self._next_glance_s = 0.0
        self._looking = threading.Lock()
        self._listing = threading.Lock()
        self._ids: tuple[str | None, list[str]] | None = None

    def refresh(self) -> None:
        """Look for images and record what came, went or changed; nothing where nothing can be recorded or reached."""
        contents = None if self._database.refused else contents_of(self._source)
        if contents is None:
            return
        with self._database.read() as session:
            changed = _differences(session, contents)
        if changed:
            with self._database.write() as session:
                self._record(session, contents)
        self._contents = contents

    def glance(self) -> None:
        """Refresh if some folder changed; at most every few seconds, and never while another thread does."""
        if time.monotonic() < self._next_glance_s or not self._looking.acquire(blocking=False):
            return
        try:
            if self._contents is None or self._source.may_have_changed(self._contents):
                self.refresh()
            self._next_glance_s = time.monotonic() + self._glance_s
        finally:
            self._looking.release()

    def get(self, image_id: str) -> Image:
        """What is recorded of an image.

        Raises:
            NotFound: If there never was such an image.
        """
        for look in (self.glance, None):  # it may have been put there a moment ago
            if is_image_id(image_id):
                image = self._database.once((Image, image_id), lambda session: session.get(Image, image_id))
                if image:
                    return image
                if look:
                    look()
        raise NotFound(f"there is no image {str(image_id)[:200]!r}")

    def ids(self) -> list[str]:
        """Ids of the images that are there, in order."""
        self.glance()
        with self._listing, self._database.read() as session:
            changes = session.scalar(select(Setting.value).filter_by(key=_CHANGES))
            if self._ids is None or self._ids[0] != changes:
                query = select(Image.id).where(Image.present).order_by(Image.id)
                self._ids = changes, list(session.scalars(query))
            return list(self._ids[1])

    def changes_between(self, first_us: int, last_us: int) -> tuple[int, int]:
        """How many images were written last after one instant and until another, and the sum of the times since."""
        with self._database.read() as session:
            number, total = session.execute(_CHANGED_BETWEEN, {"first_us": first_us, "last_us": last_us}).one()
        return int(number), int(total)

    def path(self, image_id: str) -> Path:
        """Absolute path of the file, of the first of several that are its channels, or of the folder of the series.

        Raises:
            NotFound: If there is no such image, or its file is not there at present.
        """
        return self._source.locate(image_id, self.get(image_id).file or "")

    def files(self, image_id: str) -> list[Path]:
        """Absolute paths of all files of an image: of the series, or of its channels and the notes beside it.

        Raises:
            NotFound: If there is no such image, or its file is not there at present.
        """
        path = self.path(image_id)
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        found = with_notes(parts(self._studies, path.relative_to(self._studies).as_posix(), self._channels))
        return [file for file in found if file.is_file()]

    def grid(self, image_id: str) -> Grid:
        """The voxel grid; the scan is read once, and again when its file changed.

        Raises:
            ImageError: If it cannot be read.
            NotFound: If its file is not there and was never read.
        """
        image = self.get(image_id)
        try:
            size_bytes, mtime_ns = self._source.measure(image.file or "")
        except FileNotFoundError:
            size_bytes, mtime_ns = image.size_bytes, image.mtime_ns
        if (size_bytes, mtime_ns) == (image.size_bytes, image.mtime_ns):
            if image.shape and image.affine:
                return Grid(tuple(image.shape), np.array(image.affine))
            if UNREADABLE in image.info:
                raise ImageError(str(image.info[UNREADABLE]))
        return self._look(image_id, (size_bytes, mtime_ns))

    def look_again(self, image_id: str) -> None:
        """Read an image of which nothing is noted that could say why a system cannot use it.

        Raises:
            UserError: If it cannot be read.
        """
        image = self.get(image_id)
        if not {CHANNELS, UNREADABLE} & image.info.keys():
            self._look(image_id, (image.size_bytes, image.mtime_ns))

    def can_be_opened(self, image_id: str) -> bool:
        """Whether what is wrong with an image is in its files, and not that they are away or may not be read."""
        try:
            return _can_be_opened(self.path(image_id))
        except UserError:
            return False

    def _look(self, image_id: str, file: tuple[int, int]) -> Grid:
        """Read an image of a size and date, and note what is found."""
        path = self.path(image_id)
        try:
            scan = read_channels(path) if self._channels else read_scan(path)
        except ImageError as error:
            if _can_be_opened(path):
                self._note_unreadable(image_id, file, str(error))
            raise
        if self._database.refused:
            return Grid(scan.shape, scan.affine)
        with self._database.write(lasting=False) as session:
            row = session.get_one(Image, image_id)
            _take_file(session, row, file)
            row.shape, row.affine = list(scan.shape), scan.affine.tolist()
            for fact in ("patient", "site", "modality"):
                setattr(row, fact, scan.facts.get(fact) or getattr(row, fact))
            doubts = {name: scan.facts[name] for name in DOUBTS if name in scan.facts}
            found: list[str] | int = scan.facts.get(CHANNELS_FACT, "").split() or len(scan.array)
            channels = {CHANNELS: found} if self._channels or found != 1 else {}
            row.info = {**_unread(row.info), **doubts, **channels}
        return Grid(scan.shape, scan.affine)

    def unreadable(self) -> dict[str, str]:
        """Images that are there and cannot be read, with the reason, as far as somebody tried."""
        noted = cast(Image.info, String).contains(f'"{UNREADABLE}"')
        with self._database.read() as session:
            rows = session.execute(select(Image.id, Image.info).where(Image.present, noted).order_by(Image.id))
            return {image_id: str(info[UNREADABLE]) for image_id, info in rows if UNREADABLE in info}

    def _note_unreadable(self, image_id: str, file: tuple[int, int], reason: str) -> None:
        """Note it once, so that nobody is offered the image, and nobody reads it in vain, until its file changes."""
        logger.warning("%s cannot be read: %s", image_id, reason)
        if not self._database.refused:
            with self._database.write(lasting=False) as session:
                row = session.get_one(Image, image_id)
                _take_file(session, row, file)
                row.shape = row.affine = None
                row.info = {**_unread(row.info), UNREADABLE: reason}

    def merge_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is noted about an image; a key that is there is replaced."""
        checked = _unread(checked_image_info(info))
        self.get(image_id)
        with self._database.write(lasting=False) as session:
            row = session.get_one(Image, image_id)
            if checked.get(HEIGHT, row.info.get(HEIGHT)) != row.info.get(HEIGHT):
                forget_of(session, image_id)
            row.info = {**row.info, **checked}

    def add(self, image_id: str | None, file: Path, info: dict[str, Any]) -> str:
        """Put an uploaded image into the studies folder.

        Args:
            image_id: None takes the file's name without suffix.
            file: A NIfTI, NRRD, MetaImage or DICOM file.
            info: Noted with it.

        Returns:
            The id. The same file under the same id again changes nothing.

        Raises:
            UserError: If the id cannot be one, or the file is no readable image.
            Conflict: If there is another image of that id.
            StorageFull: If it does not fit.
        """
        if not self._source.takes_uploads:
            raise Conflict("the studies lie in a PACS: store the image there, and it is listed here")
        image_id = image_id or without_suffix(file.name)
        suffix = file.name[len(without_suffix(file.name)) :].lower()
        target_file = f"{image_id}{suffix}"
        target = self._studies / target_file
        if not is_image_id(image_id) or any(target.is_relative_to(folder) for folder in self._skip):
            raise UserError(f"image id {str(image_id)[:200]!r}: expected a relative path, such as siteA/scan1")
        if not is_image(Path(file.name)) or suffix in DETACHED_SUFFIXES or (suffix == ".dcm" and "/" in image_id):
            raise UserError(f"{file.name}: expected one NIfTI, NRRD or MetaImage file (.nii.gz, .nii, .nrrd, .mha)")
        if others := [p.name for p in parts(self._studies, target_file, self._channels) if p != target]:
            raise Conflict(f"{target.name} and {others[0]} are channels of one image; upload one file of all channels")
        info = _unread(checked_image_info(info))
        check_self_contained(file)
        scan = read_scan(file)
        self.refresh()
        with self._database.read() as session:
            old = session.get(Image, image_id)
        if not (old and old.present and self._same_file(old, file)):
            self._check_free(old, Grid(scan.shape, scan.affine))
            try:
                with storage_full_told():
                    copy_whole(file, target, replace=False)
            except (FileExistsError, NotADirectoryError) as error:
                raise Conflict(f"image {image_id!r}: {error.filename!r} is in its place; choose another id") from error
        self.refresh()
        with self._database.write() as session:
            row = session.get_one(Image, image_id)
            row.uploaded = row.uploaded or not (old and old.present)
            row.info = {**row.info, **info}
        return image_id

    def remove(self, image_id: str) -> None:
        """Remove an image that was uploaded; its labels and their history stay.

        Raises:
            Conflict: If it is one of the user's own files, which are never deleted here.
        """
        image = self.get(image_id)
        if not image.uploaded:
            raise Conflict(f"image {image_id!r} was not uploaded; the user's own files are never deleted here")
        (self._studies / (image.file or "")).unlink(missing_ok=True)
        with self._database.write() as session:
            session.get_one(Image, image_id).present = False
            _count_change(session)

    def _same_file(self, image: Image, file: Path) -> bool:
        path = self._studies / (image.file or "")
        return path.is_file() and path.stat().st_size == file.stat().st_size and sha256_of(path) == sha256_of(file)

    def _check_free(self, image: Image | None, grid: Grid) -> None:
        if image and image.present:
            raise Conflict(f"there is another image {image.id!r}; choose another id")
        if image and image.shape and not same_grid(tuple(image.shape), np.array(image.affine), grid.shape, grid.affine):
            raise Conflict(f"image {image.id!r} was there before with another size or place; choose another id")

    def _record(self, session: Session, contents: Contents) -> None:
        """Write the differences; called with the write lock, so compared once more."""
        new = []
        _count_change(session)
        known = set(session.scalars(select(Image.id)))  # of thousands of new ones, none is asked for one by one
        for image_id, found in _differences(session, contents).items():
            row = session.get(Image, image_id) if image_id in known else None
            if found is None:
                assert row is not None  # a difference without a file is a row
                # it may have come since the folder was read
                row.present = self._source.takes_uploads and (self._studies / (row.file or "")).exists()
            elif row is None:
                facts = {"id": found.id, "file": found.file, "size_bytes": found.size_bytes}
                noted = {"info": dict(found.noted), **found.facts}
                new.append({**facts, **noted, "mtime_ns": found.mtime_ns, "present": True})
            else:
                _take_file(session, row, (found.size_bytes, found.mtime_ns))
                row.file, row.present = found.file, True
        if new:
            session.execute(insert(Image), new)


def _take_file(session: Session, row: Image, file: tuple[int, int]) -> None:
    """Note size and date of an image's file; where it is another one, nothing that was found out of it counts."""
    if (row.size_bytes, row.mtime_ns) != file:
        row.size_bytes, row.mtime_ns = file
        row.shape = row.affine = None
        row.info = _unread(row.info)
        forget(session, row.id)


def _can_be_opened(path: Path) -> bool:
    """Whether what is wrong is in the files themselves, and not with a share that is away or a permission."""
    try:
        for file in [path] if path.is_file() else sorted(path.iterdir()):
            with file.open("rb") as stream:
                stream.read(1)
    except OSError:
        return False
    return True


def _unread(info: dict[str, Any]) -> dict[str, Any]:
    """What is noted about an image, but not what was found by reading it and holds until its file changes."""
    return {key: value for key, value in info.items() if key not in (UNREADABLE, CHANNELS, *DOUBTS)}


def _count_change(session: Session) -> None:
    """Tell every process that images came or went."""
    row = session.get(Setting, _CHANGES) or Setting(key=_CHANGES, value="0")
    row.value = str(int(row.value) + 1)
    session.add(row)


def _differences(session: Session, contents: Contents) -> dict[str, Found | None]:
    """Images that are new, changed or back, with their file; None for those that are gone."""
    rows = session.execute(select(Image.id, Image.file, Image.size_bytes, Image.mtime_ns, Image.present))
    known = {row.id: row for row in rows}
    changed: dict[str, Found | None] = {key: None for key, row in known.items() if row.present}
    for image_id, found in contents.images.items():
        row = known.get(image_id)
        if row and row.present and tuple(row)[1:4] == (found.file, found.size_bytes, found.mtime_ns):
            del changed[image_id]
        else:
            changed[image_id] = found
    return changed
