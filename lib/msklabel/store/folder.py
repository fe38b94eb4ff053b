"""Find the images in a folder: NIfTI, NRRD and MetaImage files, and folders of DICOM series."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msklabel.imaging.names import is_image, without_suffix
from msklabel.store.names import LABELS, is_image_id

logger = logging.getLogger(__name__)
_SETTLED_NS = 2_000_000_000  # file systems keep folder times to up to 2 s


@dataclass(frozen=True)
class Found:
    """An image in the folder: its id, its path below the folder, its size and last change."""

    id: str
    file: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Contents:
    """The images by id, and the time of each folder that was read; 0 where it may have changed meanwhile."""

    images: dict[str, Found]
    folder_times_ns: dict[str, int]

    def is_current(self) -> bool:
        """Whether no folder changed since: no image came, went or was renamed."""
        return all(_folder_time_ns(folder) == time_ns for folder, time_ns in self.folder_times_ns.items())


def read_folder(studies: Path, skip: Iterable[Path] = ()) -> Contents:
    """Find all images below a folder, without opening any but DICOM files that have no suffix.

    A folder below ``studies`` that directly holds DICOM files is one image; DICOM files in ``studies`` itself are
    images each. Hidden files, the folder ``labels`` and those in ``skip`` are left out. Of two images that would get
    one id (``a.nii``, ``a.nrrd``) the first by name counts.
    """
    images: dict[str, Found] = {}
    times: dict[str, int] = {}
    skipped = {str(path) for path in (studies / LABELS, *skip)}
    for found in _walk(str(studies), "", skipped, times, set()):
        if not is_image_id(found.id):
            logger.warning("image %r left out: its name cannot be an id; rename the file", found.file)
        elif found.id in images:
            logger.warning("image %r left out: %r has the same id", found.file, images[found.id].file)
        else:
            images[found.id] = found
    return Contents(images, times)


def measure(path: Path) -> tuple[int, int]:
    """Size in bytes and last change in ns of an image file, or of a series: the sum and the latest of its files.

    Raises:
        FileNotFoundError: If it is not there.
    """
    if not path.is_dir():
        facts = path.stat()
        return facts.st_size, facts.st_mtime_ns
    return _sum(entry for entry in os.scandir(path) if not entry.name.startswith(".") and entry.is_file())


def _walk(
    folder: str, relative: str, skip: set[str], times: dict[str, int], seen: set[tuple[int, int]]
) -> Iterator[Found]:
    try:
        facts = Path(folder).stat()
        if (facts.st_dev, facts.st_ino) in seen:
            return  # a link that leads back
        seen.add((facts.st_dev, facts.st_ino))
        times[folder] = facts.st_mtime_ns if time.time_ns() - facts.st_mtime_ns > _SETTLED_NS else 0
        entries = sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        logger.warning("folder %r left out: %s", folder, error)
        return
    files = [entry for entry in entries if entry.is_file()]
    dicom = [entry for entry in files if entry.name.lower().endswith(".dcm")]
    if relative and (dicom or any("." not in entry.name and _is_dicom(entry.path) for entry in files)):
        yield Found(relative.rstrip("/"), relative.rstrip("/"), *_sum(files))
        files = [entry for entry in files if entry not in dicom]
    for entry in files:
        if is_image(Path(entry.name)):
            yield Found(relative + without_suffix(entry.name), relative + entry.name, *_sum([entry]))
    for entry in entries:
        if entry.is_dir() and entry.path not in skip:
            yield from _walk(entry.path, f"{relative}{entry.name}/", skip, times, seen)


def _sum(files: Iterable[os.DirEntry[str]]) -> tuple[int, int]:
    facts = []
    for entry in files:
        with suppress(FileNotFoundError):  # gone since the folder was read
            facts.append(entry.stat())
    return sum(f.st_size for f in facts), max((f.st_mtime_ns for f in facts), default=0)


def _is_dicom(file: str) -> bool:
    try:
        with Path(file).open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _folder_time_ns(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return -1
