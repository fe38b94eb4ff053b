"""Find the images in a folder: NIfTI, NRRD and MetaImage files, and folders of DICOM series."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from msklabel.imaging.channels import group_channels
from msklabel.imaging.names import is_image, with_notes, without_suffix
from msklabel.store.names import LABELS, is_image_id

_DICOM = re.compile(r"(?!DICOMDIR$)[^.]+|.*\.(?:ima|dicom|\d+)", re.IGNORECASE)  # names of it that do not end in .dcm
_SETTLED_NS = 2_000_000_000  # file systems keep folder times to up to 2 s


@dataclass(frozen=True)
class Found:
    """An image as it was found.

    Attributes:
        id: Its id.
        file: Its path below the folder.
        size_bytes: Its size.
        mtime_ns: Its last change.
        facts: ``patient``, ``site`` and ``modality``, where they are known without reading it.
        noted: What clients are told about it.
    """

    id: str
    file: str
    size_bytes: int
    mtime_ns: int
    facts: Mapping[str, str | None] = field(default_factory=dict)
    noted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """What is there.

    Attributes:
        images: By id.
        folder_times_ns: When each folder that was read last changed; 0 where it may have changed meanwhile.
        left_out: A sentence for each image and folder that is none of them, with the reason.
    """

    images: dict[str, Found]
    folder_times_ns: dict[str, int]
    left_out: Sequence[str] = ()

    def is_current(self) -> bool:
        """Whether no folder changed since: no image came, went or was renamed."""
        return all(_folder_time_ns(folder) == time_ns for folder, time_ns in self.folder_times_ns.items())


def read_folder(studies: Path, skip: Iterable[Path] = (), channels: Collection[str] = ()) -> Contents:
    """Find all images below a folder, without opening any but what may be DICOM and does not end in ``.dcm``.

    A folder below ``studies`` that directly holds DICOM files is one image; DICOM files in ``studies`` itself are
    images each. Hidden files, the folder ``labels`` and those in ``skip`` are left out. Of two images that would get
    one id (``a.nii``, ``a.nrrd``) the first by name counts. Where systems of several ``channels`` are served, files
    whose names differ in the channel only are one image (:mod:`msklabel.imaging.channels`), under the first's path.
    """
    images: dict[str, Found] = {}
    times: dict[str, int] = {}
    left_out: list[str] = []
    skipped = {str(path) for path in (studies / LABELS, *skip)}
    for found in _walk(str(studies), "", skipped, channels, times, left_out, set()):
        if not is_image_id(found.id):
            left_out.append(f"image {found.file!r} left out: its name cannot be an id; rename the file")
        elif found.id in images:
            left_out.append(f"image {found.file!r} left out: {images[found.id].file!r} has the same id")
        else:
            images[found.id] = found
    return Contents(images, times, left_out)


def parts(studies: Path, file: str, channels: Collection[str]) -> list[Path]:
    """All files of the image that a file below the studies folder belongs to, by the names that are there and its own.

    Just that file where no channels are told apart, or it is no channel beside others.
    """
    path = studies / file
    if channels and path.parent.is_dir():
        names = {entry.name for entry in path.parent.iterdir()} | {path.name}
        for group in _groups(names, "/" in file, channels).values():
            if path.name in group:
                return [path.parent / name for name in group]
    return [path]


def measure(studies: Path, file: str, channels: Collection[str] = ()) -> tuple[int, int]:
    """Size in bytes and last change in ns of an image: of several files the sum and the latest; notes beside it count.

    Raises:
        FileNotFoundError: If it is not there.
    """
    path = studies / file
    if path.is_dir():
        return _sum(entry for entry in os.scandir(path) if not entry.name.startswith(".") and entry.is_file())
    path.stat()
    return _sum(with_notes(parts(studies, file, channels)))


def _walk(
    folder: str,
    relative: str,
    skip: set[str],
    channels: Collection[str],
    times: dict[str, int],
    left_out: list[str],
    seen: set[tuple[int, int]],
) -> Iterator[Found]:
    try:
        facts = Path(folder).stat()
        if (facts.st_dev, facts.st_ino) in seen:
            return  # a link that leads back
        seen.add((facts.st_dev, facts.st_ino))
        times[folder] = facts.st_mtime_ns if time.time_ns() - facts.st_mtime_ns > _SETTLED_NS else 0
        entries = sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        left_out.append(f"folder {folder!r} left out: {error}")
        return
    files = [entry for entry in entries if entry.is_file()]
    dicom = [entry for entry in files if entry.name.lower().endswith(".dcm")]
    if relative and (dicom or any(_DICOM.fullmatch(entry.name) and _is_dicom(entry.path) for entry in files)):
        yield Found(relative.rstrip("/"), relative.rstrip("/"), *_sum(files))
        files = [entry for entry in files if entry not in dicom]
    images = {entry.name: Path(entry.path) for entry in files if is_image(Path(entry.name))}
    groups = _groups(images, bool(relative), channels)
    grouped = {name for group in groups.values() for name in group}
    for name, file in images.items():
        if name not in grouped:
            yield Found(relative + without_suffix(name), relative + name, *_sum(with_notes([file])))
    for stem, group in groups.items():
        found = _sum(with_notes(images[name] for name in group))
        yield Found((relative + stem).rstrip("/"), relative + group[0], *found)
    for entry in entries:
        if entry.is_dir() and entry.path not in skip:
            yield from _walk(entry.path, f"{relative}{entry.name}/", skip, channels, times, left_out, seen)


def _groups(names: Iterable[str], nameless: bool, channels: Collection[str]) -> dict[str, list[str]]:
    """Files of one folder that are one image, by what their names begin with: nothing only in a folder of its own."""
    found = group_channels(names, channels) if channels else {}
    return {stem: list(chain.from_iterable(group.values())) for stem, group in found.items() if stem or nameless}


def _sum(files: Iterable[os.DirEntry[str] | Path]) -> tuple[int, int]:
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
