"""Where the images of a store come from: a folder, or a PACS of which a part is kept in a folder."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from msklabel.errors import NotFound, Unreachable
from msklabel.imaging.channels import channel_of_description
from msklabel.store.folder import Contents, Found, measure, read_folder
from msklabel.store.pacs import Pacs, Series

logger = logging.getLogger(__name__)
_LISTED_S = 30.0
_USED = ".used"
_PART = ".part-"  # begins the name of a folder that is not whole


class Source(Protocol):
    """What the images of a store are kept in step with.

    Attributes:
        root: Folder that the ``file`` of every image is below, once it is on this machine.
        takes_uploads: Whether an image may be put below ``root``.
    """

    root: Path
    takes_uploads: bool

    def contents(self) -> Contents:
        """All images that are there now."""

    def may_have_changed(self, since: Contents) -> bool:
        """Whether it is worth looking again."""

    def measure(self, file: str) -> tuple[int, int]:
        """Size in bytes and last change in ns; FileNotFoundError where it is not there, or does not change."""

    def locate(self, image_id: str, file: str) -> Path:
        """Path on this machine, fetched if need be; NotFound where it is not there."""


class FolderSource:
    """The user's own folder.

    Args:
        root: Nothing in it is changed; uploads are added to it.
        skip: Folders below it that hold no images.
        channels: Names of channels; files of one image are put together by them.
    """

    takes_uploads = True

    def __init__(self, root: Path, skip: Iterable[Path] = (), channels: Collection[str] = ()) -> None:
        self.root = root
        self._skip, self._channels = tuple(skip), tuple(channels)
        self._left_out: Sequence[str] = ()

    def contents(self) -> Contents:
        """All images below the folder; what is left out is told once."""
        found = read_folder(self.root, self._skip, self._channels)
        for sentence in found.left_out:
            if sentence not in self._left_out:
                logger.warning("%s", sentence)
        self._left_out = found.left_out
        return found

    def may_have_changed(self, since: Contents) -> bool:
        """Whether some folder changed."""
        return not since.is_current()

    def measure(self, file: str) -> tuple[int, int]:
        """Size and last change of an image."""
        return measure(self.root, file, self._channels)

    def locate(self, image_id: str, file: str) -> Path:
        """The file itself."""
        path = self.root / file
        if not file or not path.exists():
            raise NotFound(f"the file of image {image_id!r} is not in the studies folder at present")
        return path


class PacsSource:
    """Series on a DICOMweb server; those that are asked for are kept in a bounded folder.

    The id of an image is its Series Instance UID, as viewers name it. Series of one study whose descriptions name
    channels (water, fat, in and out of phase) are one image, under the UID of the first channel.

    Args:
        pacs: The server.
        root: Folder for the series that were fetched.
        modalities: Which series are images.
        channels: Names of the channels that systems of several need.
        most_bytes: The longest unused series go where there is more.
    """

    takes_uploads = False

    def __init__(
        self,
        pacs: Pacs,
        root: Path,
        modalities: Sequence[str],
        channels: Collection[str] = (),
        most_bytes: int = 50 << 30,
    ) -> None:
        self.root = root
        self._pacs, self._modalities, self._channels = pacs, tuple(modalities), frozenset(channels)
        self._most_bytes = most_bytes
        self._listed = 0.0
        self._tidying = threading.Lock()

    def contents(self) -> Contents:
        """All series of the modalities."""
        self._listed = time.monotonic()
        return Contents(_images(list(self._pacs.series(self._modalities)), self._channels), {})

    def may_have_changed(self, since: Contents) -> bool:
        """Whether the last listing is half a minute old."""
        return time.monotonic() - self._listed > _LISTED_S

    def measure(self, file: str) -> tuple[int, int]:
        """A series does not change under its UID."""
        raise FileNotFoundError(file)

    def locate(self, image_id: str, file: str) -> Path:
        """The folder of an image; its series are fetched whole, by one process at a time.

        Raises:
            NotFound: If the image has no series.
            Unreachable: If the server does not answer as it should.
            StorageFull: If they do not fit.
        """
        study, _, series = file.partition("/")
        uids = series.split("+")
        if not study or not series:
            raise NotFound(f"image {image_id!r} is no series of the PACS")
        folder = self.root / uids[0]
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock(uids[0]):
            fetched = not folder.is_dir()
            if fetched:
                self._fetch(study, uids, folder)
            (folder / _USED).touch()
        if fetched:
            self._tidy(keep=folder)
        return folder

    def _lock(self, uid: str) -> FileLock:
        """Whoever has it may make or remove the folder of an image, and the one that is not whole."""
        return FileLock(self.root / f".{uid}.lock")

    def _fetch(self, study: str, uids: Sequence[str], folder: Path) -> None:
        building = self.root / f"{_PART}{folder.name}"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            for uid in uids:
                self._pacs.fetch(study, uid, building / uid)
            whole = building / uids[0]
            for uid in uids[1:]:
                for file in (building / uid).iterdir():
                    file.rename(whole / f"{uid}-{file.name}")
            whole.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        logger.info("fetched %d series of study %s", len(uids), study)

    def _tidy(self, keep: Path) -> None:
        """Remove what ended processes left of others, and the longest unused series until the rest fit."""
        with self._tidying:
            for part in self.root.glob(f"{_PART}*"):
                self._remove(part.name.removeprefix(_PART), whole=False)
            folders = [path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")]
            sizes = {path: _size(path) for path in folders}
            for path in sorted(folders, key=_last_used):
                if sum(sizes.values()) <= self._most_bytes:
                    return
                if path != keep and self._remove(path.name):
                    del sizes[path]

    def _remove(self, uid: str, whole: bool = True) -> bool:
        """Remove an image unless somebody is at it; what bears its name is whole all the time."""
        part = self.root / f"{_PART}{uid}"
        try:
            with self._lock(uid).acquire(timeout=0):
                shutil.rmtree(part, ignore_errors=True)
                if whole:
                    (self.root / uid).rename(part)
                    shutil.rmtree(part, ignore_errors=True)
        except Timeout:
            return False
        except FileNotFoundError:  # another process was first
            pass
        return True


def contents_of(source: Source) -> Contents | None:
    """The contents, or None where the source cannot be reached: what is known of it stays as it is."""
    try:
        return source.contents()
    except Unreachable as error:
        logger.warning("images are not listed anew: %s", error)
        return None


def _size(folder: Path) -> int:
    """In bytes; what another process removes meanwhile counts as nothing."""
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except FileNotFoundError:
        return 0


def _last_used(folder: Path) -> float:
    try:
        return (folder / _USED).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _images(listed: Sequence[Series], channels: Collection[str]) -> dict[str, Found]:
    """One image for each series, or for the channels of a study together."""
    studies: dict[str, dict[str, list[Series]]] = {}
    alone: list[Series] = []
    for series in listed:
        channel = channel_of_description(series.description) if channels else None
        if channel in channels:
            studies.setdefault(series.study, {}).setdefault(str(channel), []).append(series)
        else:
            alone.append(series)
    found = [_found([series]) for series in alone]
    for by_channel in studies.values():
        if len(by_channel) > 1 and all(len(same) == 1 for same in by_channel.values()):
            found.append(_found([same[0] for same in by_channel.values()]))
        else:
            found += [_found([series]) for same in by_channel.values() for series in same]
    return {image.id: image for image in found}


def _found(series: Sequence[Series]) -> Found:
    ordered = sorted(series, key=lambda one: one.uid)
    first = ordered[0]
    noted = {
        "StudyInstanceUID": first.study,
        "SeriesInstanceUID": first.uid,
        "Modality": first.modality,
        "StudyDate": first.date,
        "StudyTime": first.time,
        "PatientID": first.patient,
        "SeriesDescription": " + ".join(one.description for one in ordered),
    }
    facts = {"patient": first.patient or None, "site": first.site or None, "modality": first.modality or None}
    return Found(first.uid, f"{first.study}/{'+'.join(one.uid for one in ordered)}", 0, 0, facts, noted)
