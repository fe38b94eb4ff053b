"""The store: images and label versions of one studies folder, for the server, for training and for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from sqlalchemy import select

from msklabel.errors import NotFound, UserError
from msklabel.imaging import LabelMap, same_grid
from msklabel.imaging.radiograph import viewer_affine
from msklabel.imaging.read import read_labels
from msklabel.store.database import Database
from msklabel.store.existing import import_folder
from msklabel.store.headers import check_self_contained, segment_names
from msklabel.store.images import Grid, Images
from msklabel.store.labels import FINAL, ORIGINAL, Labels, Submission
from msklabel.store.names import checked_info, checked_tag
from msklabel.store.schema import Image, LabelVersion, Setting
from msklabel.store.values import Hints, indices_in, stated, system_of, value_names
from msklabel.store.view import IMPORTED, View
from msklabel.system import System


@dataclass(frozen=True)
class TrainingPair:
    """A scan and its finished label for one system; ``patient`` is what a split must keep together."""

    image_id: str
    patient: str
    image: Path
    label: Path
    sha256: str


class Store:
    """Images and labels of a studies folder; safe to use from many threads and processes.

    Args:
        studies: The user's images.
        state: Our own folder: database and label files.
        systems: The systems that labels can belong to, by name.
        models: Name of the system of each model name that a request may use; left out: the systems' own names.
    """

    def __init__(
        self, studies: Path, state: Path, systems: Mapping[str, System], models: Mapping[str, str] | None = None
    ) -> None:
        self.studies = studies.resolve()
        self.state = state.resolve()
        self.systems = dict(systems)
        self.models = {**{name: name for name in systems}, **(models or {})}
        self._database = Database(self.state / "msklabel.db")
        channels = {name for system in systems.values() if len(system.channels) > 1 for name in system.channels}
        self.images = Images(self._database, self.studies, (self.state,), sorted(channels))
        self.labels = Labels(self._database, self.state / "labels")
        self._view = View(self.studies, self.state, self.labels)

    def open(self) -> None:
        """Make what is missing, read the folder, and import labels of an existing MONAI Label folder."""
        self.state.mkdir(parents=True, exist_ok=True)
        with FileLock(self.state / ".open.lock"):
            self._database.create()
            self.labels.tidy()
            self.images.refresh()
            import_folder(self)
            self._view.rebuild()

    def submit(
        self,
        image_id: str,
        file: Path,
        tag: str,
        info: Mapping[str, Any],
        origin: str | None = None,
    ) -> LabelVersion:
        """Check a label and store it as a new version; it is on disk when this returns.

        Args:
            image_id: The scan.
            file: The label in any format that can be read.
            tag: ``final``, ``original`` or another.
            info: The request's parameters: ``model``, ``label_info``, ``client_id`` and what else is to be noted.
            origin: See :class:`Submission`.

        Raises:
            UserError: If it cannot be right; nothing is stored.
        """
        own = {key: value for key, value in checked_info(info).items() if key != IMPORTED}
        version = self.labels.add(self.check(image_id, file, tag, own, origin))
        self._view.refresh(image_id, version.tag)
        return version

    def check(
        self, image_id: str, file: Path, tag: str, info: Mapping[str, Any], origin: str | None = None
    ) -> Submission:
        """Check a label as :meth:`submit` does, and bring its voxels to the indices of its system.

        Raises:
            UserError: If it cannot be right.
        """
        tag = checked_tag(tag)
        grid = self.images.grid(image_id)
        check_self_contained(file)
        labels = read_labels(file)
        labels = _placed(labels, grid, self.images.path(image_id))
        system, labels = self._in_scheme(self.images.get(image_id), labels, segment_names(file), info)
        used = set(np.unique(labels.array).tolist())
        params = info.get("params")
        model_version = info.get("model_version") or (params.get("model_version") if isinstance(params, dict) else None)
        return Submission(
            image_id=image_id,
            tag=tag,
            system=system.name,
            labels=labels,
            classes=[name for name, index in system.label_indices.items() if index in used],
            author=_text(info.get("author") or info.get("user") or info.get("client_id")),
            origin=origin,
            base_model=_text(model_version),
            info=dict(info),
        )

    def withdraw(self, image_id: str, tag: str, system: str | None = None) -> None:
        """Remove a label: its versions are marked, an older label of another system counts again."""
        self.labels.withdraw(image_id, checked_tag(tag), system)
        self._view.refresh(image_id, tag)

    def training_pairs(self, system: str) -> list[TrainingPair]:
        """The newest finished label of each scan that is there, for one system, by image id."""
        return [
            TrainingPair(
                image_id=image.id,
                patient=patient_of(image),
                image=self.studies / str(image.file),
                label=self.labels.file(version),
                sha256=version.sha256,
            )
            for version, image in self.labels.current(FINAL, system)
        ]

    def all_images(self) -> list[Image]:
        """What is recorded of the images that are there, by id."""
        self.images.glance()
        with self._database.read() as session:
            return list(session.scalars(select(Image).where(Image.present).order_by(Image.id)))

    def setting(self, key: str, default: str) -> str:
        """A value that belongs to the whole store."""
        with self._database.read() as session:
            row = session.get(Setting, key)
        return row.value if row else default

    def set_setting(self, key: str, value: str) -> None:
        """Keep a value that belongs to the whole store."""
        with self._database.write() as session:
            session.merge(Setting(key=key, value=str(value)))

    def _in_scheme(
        self, image: Image, labels: LabelMap, header: Mapping[int, str] | None, info: Mapping[str, Any]
    ) -> tuple[System, LabelMap]:
        """The system of a label, and the label in the indices of that system."""
        present = [value for value in np.unique(labels.array).tolist() if value]
        if not present:
            raise UserError("the label is empty: no voxel is labelled")
        said = stated(info.get("label_info"))
        hints = Hints(image.info.get("modality") or image.modality, self._proposed(image))
        system = system_of(info, value_names(present, said, header), self.systems, self.models, hints)
        table = np.zeros(256, np.uint8)
        for value, index in indices_in(system, present, said, header).items():
            table[value] = index
        array = table[labels.array]
        if not array.any():
            raise UserError("the label is empty: only background is labelled")
        return system, LabelMap(array, labels.affine)

    def _proposed(self, image: Image) -> str | None:
        """System of the newest automatic label, else the one that was noted when a model was run on the image."""
        try:
            return self.labels.newest(image.id, ORIGINAL).system
        except NotFound:
            return image.info.get("system")


def patient_of(image: Image) -> str:
    """The patient by what was noted, else by the file, else each image is taken for a patient of its own."""
    for key in ("patient", "PatientID"):
        if noted := image.info.get(key):
            return str(noted)
    return image.patient or image.id


def _placed(labels: LabelMap, scan: Grid, file: Path) -> LabelMap:
    """The label on the grid of its scan.

    On a radiograph whose pixel size is noted beside it, or corrected for magnification, viewers draw in a grid of
    another pixel size; a label that lies exactly there lies on the scan, pixel by pixel.

    Raises:
        UserError: If it does not lie on the voxels of its scan.
    """
    seen = viewer_affine(file) if scan.shape[2] == 1 else None
    if seen is not None and same_grid(labels.array.shape, labels.affine, scan.shape, seen):
        return LabelMap(labels.array, scan.affine)
    _check_grid(labels, scan)
    return labels


def _check_grid(labels: LabelMap, scan: Grid) -> None:
    """Refuse a label that does not lie on the voxels of its scan."""
    got = Grid(labels.array.shape, labels.affine)
    if same_grid(got.shape, got.affine, scan.shape, scan.affine):
        return
    if str(got) != str(scan):
        raise UserError(f"the label does not lie on its scan: expected {scan}, got {got}")
    wanted, given = (" ".join(f"{number:.4g}" for number in grid.affine[:3].ravel()) for grid in (scan, got))
    raise UserError(f"the label does not lie on its scan: expected the matrix to RAS mm {wanted}, got {given}")


def _text(value: Any) -> str | None:
    return str(value)[:200] if value is not None and value != "" else None
