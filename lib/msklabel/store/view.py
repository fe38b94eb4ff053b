"""``<studies>/labels/<tag>/<image>.nii.gz``: the newest labels where users of MONAI Label look for them.

A view only: the files are copies, so that one who edits them cannot touch the store, and are made anew when missing.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from filelock import FileLock

from msklabel.durable import sha256_of
from msklabel.store.files import copy_whole
from msklabel.store.labels import SUFFIX, Labels
from msklabel.store.names import LABELS
from msklabel.store.schema import LabelVersion

logger = logging.getLogger(__name__)
IMPORTED = "imported"  # key of a version's info: the file that it was read from


class View:
    """Copies of the newest label of each image and tag.

    Args:
        studies: Holds the folder ``labels``.
        state: Holds the lock.
        labels: What is shown.
    """

    def __init__(self, studies: Path, state: Path, labels: Labels) -> None:
        self._folder = studies / LABELS
        self._lock = state / ".view.lock"
        self._turn = threading.Lock()  # who waits for a lock file looks at it only now and then
        self._labels = labels

    def refresh(self, image_id: str, tag: str) -> None:
        """Show the newest version; a failure is logged, as the label itself is safe.

        A file in its place that is not our copy is the user's: it is kept beside, as ``<name>.replaced-<version>``.
        """
        file = self._file(image_id, tag)
        try:
            with self._turn, FileLock(self._lock):  # so that of two submissions the newer is shown last
                versions = self._labels.history(image_id, tag)
                counting = [version for version in versions if version.withdrawn is None]
                if counting and self._shows(file, counting[-1]):
                    return
                if _holds_something(file) and not any(
                    is_copy(file, self._labels.file(version)) for version in versions
                ):
                    file.rename(file.with_name(f"{file.name}.replaced-{versions[-1].id}"))
                if counting:
                    copy_whole(self._labels.file(counting[-1]), file, replace=True, lasting=False)
                else:
                    file.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s could not be written, the label is stored nevertheless: %s", file, error)

    def rebuild(self) -> None:
        """Make the files that are missing or show an older version; leave what is not ours."""
        for version, image in self._labels.current():
            file = self._file(image.id, version.tag)
            if not _holds_something(file) or (not self._shows(file, version) and self._is_ours(file, version)):
                self.refresh(image.id, version.tag)

    def _file(self, image_id: str, tag: str) -> Path:
        return self._folder / tag / f"{image_id}{SUFFIX}"

    def _shows(self, file: Path, version: LabelVersion) -> bool:
        return is_copy(file, self._labels.file(version)) or is_source(file, version)

    def _is_ours(self, file: Path, version: LabelVersion) -> bool:
        return knows(file, self._labels.history(version.image_id, version.tag), self._labels)


def _holds_something(file: Path) -> bool:
    """Whether a file is there that somebody may miss; an empty one is what a loss of power leaves of a copy."""
    return file.exists() and file.stat().st_size > 0


def knows(file: Path, versions: list[LabelVersion], labels: Labels) -> bool:
    """Whether a file is a copy of one of these versions, or one that was imported from it."""
    if any(is_copy(file, labels.file(version)) or is_source(file, version) for version in versions):
        return True
    return bool(versions) and sha256_of(file) in {version.sha256 for version in versions}


def is_copy(file: Path, original: Path) -> bool:
    """Whether size and time are those of the original, as :func:`copy_whole` leaves them."""
    try:
        ours, theirs = file.stat(), original.stat()
    except FileNotFoundError:
        return False
    return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)


def is_source(file: Path, version: LabelVersion) -> bool:
    """Whether a version was imported from this very file, unchanged since."""
    try:
        facts = file.stat()
    except FileNotFoundError:
        return False
    noted = version.info.get(IMPORTED) or {}
    return (noted.get("file"), noted.get("size_bytes"), noted.get("mtime_ns")) == (
        file.name,
        facts.st_size,
        facts.st_mtime_ns,
    )
