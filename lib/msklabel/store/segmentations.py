"""Segmentations in the PACS: ours are put there, those of other programs are taken in as labels.

What is to be done is computed from what is stored, so that a PACS that is down for a while, or a restart, loses
nothing: a finished label that no segmentation is noted for is still to be sent, a segmentation that nothing is noted of
is still to be looked at.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy.exc import SQLAlchemyError

from msklabel import __version__
from msklabel.errors import Conflict, NotFound, Unreachable, UserError
from msklabel.imaging import LabelMap
from msklabel.imaging.read import read_labels
from msklabel.imaging.scan import ImageError
from msklabel.imaging.seg_read import read_seg, referenced_series
from msklabel.imaging.seg_write import MANUFACTURER, Drawn, write_seg
from msklabel.imaging.viewer_frames import labelled_files
from msklabel.imaging.write import write_labels
from msklabel.store.core import Store
from msklabel.store.labels import FINAL
from msklabel.store.pacs import Pacs, Series
from msklabel.store.schema import Image, LabelVersion
from msklabel.system import System

logger = logging.getLogger(__name__)
_KINDS = {"automatic": "AUTOMATIC", "corrected": "SEMIAUTOMATIC"}
_PREFIX = "segmentation "  # of the settings that note what became of those of others
_MARK = "segmentation"  # key of a label version's info: the series in the PACS that holds it


class SegmentationExchange:
    """Keeps the labels of a store and the segmentations of a PACS in step.

    Args:
        store: The labels.
        pacs: The segmentations.
    """

    def __init__(self, store: Store, pacs: Pacs) -> None:
        self._store = store
        self._pacs = pacs
        self._failed: dict[str, None] = {}  # what the PACS did not take or give, the longest ago first
        self._elsewhere: dict[str, list[str]] = {}  # segmentations of unlisted scans, and the series they are of

    def __call__(self) -> tuple[int, int]:
        """Send and take in what is new; returns how many segmentations were sent and taken in.

        Raises:
            Unreachable: If the PACS does not answer; the rest is done at the next call.
        """
        refusal, sent = None, 0
        try:
            sent = self.send()
        except Unreachable as error:  # it may take nothing of ours, and yet have something for us
            refusal = error
        taken = self.take_in()
        if refusal and not taken:
            raise refusal
        return sent, taken

    def send(self) -> int:
        """Store a segmentation for each finished label that has none yet."""
        current = [self._store.labels.current(FINAL, name, rejected=False) for name in self._store.systems]
        unsent = {f"label {v.id}": (v, image) for one in current for v, image in one if _MARK not in v.info}
        sent = 0
        for key in self._in_turn(unsent):
            with self._last_if_it_fails(key):
                sent += self._send(*unsent[key])
        return sent

    def _send(self, version: LabelVersion, image: Image) -> bool:
        try:
            segmentation = self._written(version, image)
        except ImageError as error:  # it will not become right by trying again
            self._store.labels.note(version.id, {_MARK: f"not sent: {error}"})
            logger.warning("label %d of %s is not sent to the PACS: %s", version.id, image.id, error)
            return False
        except Exception as error:  # of a library: this one label must not keep the others back
            self._store.labels.note(version.id, {_MARK: f"not sent: {type(error).__name__}"})
            logger.exception("label %d of %s is not sent to the PACS", version.id, image.id)
            return False
        uid = str(segmentation.SeriesInstanceUID)
        self._pacs.store(segmentation)
        self._remember(uid, f"sent, label {version.id}")
        self._store.labels.note(version.id, {_MARK: uid})
        return True

    def take_in(self) -> int:
        """Submit each segmentation of our images that came from elsewhere."""
        taken = 0
        listed = {series.uid: series for series in self._pacs.segmentations()}
        for uid in self._in_turn(listed):
            series = listed[uid]
            if self._store.setting(_key(uid), "") or self._is_elsewhere(uid):
                continue
            try:
                with self._last_if_it_fails(uid):
                    outcome = self._taken(series)
            except (UserError, Conflict) as error:
                if error.status >= 500:
                    raise
                outcome = f"refused: {error}"
                logger.warning("segmentation %s is not taken in: %s", series.uid, error)
            except (SQLAlchemyError, OSError, MemoryError):
                raise  # it may go the next time
            except Exception as error:  # of a library: this one must not keep the others back
                outcome = f"refused: it cannot be read ({type(error).__name__})"
                logger.exception("segmentation %s is not taken in", series.uid)
            taken += outcome.startswith("taken")
            self._remember(series.uid, outcome)
        return taken

    def _in_turn(self, keys: Collection[str]) -> list[str]:
        """Those that failed come last, so that the others are done whatever becomes of them."""
        return [*(key for key in keys if key not in self._failed), *(key for key in self._failed if key in keys)]

    @contextmanager
    def _last_if_it_fails(self, key: str) -> Iterator[None]:
        self._failed.pop(key, None)
        try:
            yield
        except Unreachable:
            self._failed[key] = None
            raise

    def outcomes(self) -> dict[str, str]:
        """What became of each segmentation of the PACS that was looked at, by its Series Instance UID."""
        return self._store.settings(_PREFIX)

    def _written(self, version: LabelVersion, image: Image) -> pydicom.Dataset:
        system = self._store.systems[version.system]
        sources = _sources(self._store.images.path(image.id))
        labels = read_labels(self._store.labels.file(version))
        kind: Any = _KINDS.get(version.origin, "MANUAL")
        drawn = Drawn(
            kind=kind,
            model=system.name if kind != "MANUAL" else "",
            version=version.base_model or "",
            author=version.author or "",
            description=f"msklabel {__version__} label {version.id} {version.state}",
        )
        return write_seg(labels, sources, system.labels, drawn, system.name)

    def _taken(self, series: Series) -> str:
        """Submit one segmentation; says what became of it."""
        instances = self._pacs.instances(series.study, series.uid)
        if len(instances) != 1:
            return f"refused: {len(instances)} objects in one series of segmentations"
        segmentation = self._pacs.get(series.study, series.uid, instances[0])
        if segmentation.get("Manufacturer") == MANUFACTURER:
            return "refused: written by msklabel itself"
        referenced = list(referenced_series(segmentation))
        image = self._image(referenced)
        if image is None:  # of a scan that is not listed here, or not yet
            self._elsewhere[series.uid] = referenced
            return ""
        sources, grid = _sources(self._store.images.path(image.id)), self._store.images.grid(image.id)
        system, labels = self._fitting(segmentation, sources, grid.affine)
        author = str(segmentation.get("ContentCreatorName") or "") or "PACS"
        notes = {"model": system.name, "author": author.strip("^ "), _MARK: series.uid}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "label.nrrd"
            write_labels(file, labels, system.labels)
            version = self._store.submit(image.id, file, FINAL, notes, origin="imported")
        return f"taken, label {version.id}"

    def _is_elsewhere(self, uid: str) -> bool:
        """Whether a segmentation was looked at already, and its scan is still not listed: the PACS is not asked."""
        referenced = self._elsewhere.get(uid)
        return referenced is not None and self._image(referenced) is None

    def _image(self, referenced: Sequence[str]) -> Image | None:
        for uid in referenced:
            try:
                return self._store.images.get(uid)
            except NotFound:
                continue
        return None

    def _fitting(
        self, segmentation: pydicom.Dataset, sources: list[pydicom.Dataset], affine: Any
    ) -> tuple[System, LabelMap]:
        """The one system that has a label for every segment, and the label in its indices."""
        fitting: dict[str, LabelMap] = {}
        refused: dict[str, str] = {}
        for name, system in self._systems(str(sources[0].Modality)).items():
            try:
                fitting[name] = read_seg(segmentation, sources, affine, system.labels)
            except ImageError as error:
                refused[name] = str(error)
        said = str(segmentation.get("SeriesDescription") or "").removeprefix("msklabel ")
        if said in fitting:
            return self._store.systems[said], fitting[said]
        if len(fitting) == 1:
            name = next(iter(fitting))
            return self._store.systems[name], fitting[name]
        if fitting:
            raise ImageError(
                f"the segments fit {' and '.join(fitting)}; name one in the Series Description: msklabel SYSTEM"
            )
        raise ImageError("; ".join(refused.values()) or "no system is served for images of this kind")

    def _systems(self, modality: str) -> Mapping[str, System]:
        return {name: system for name, system in self._store.systems.items() if modality in system.modality}

    def _remember(self, uid: str, outcome: str) -> None:
        if outcome:
            self._store.set_setting(_key(uid), outcome)


def _key(uid: str) -> str:
    return f"{_PREFIX}{uid}"


def _sources(path: Path) -> list[pydicom.Dataset]:
    """Headers of the images that a label lies on, in the order of their slices; of several series the first."""
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in labelled_files(path)]
