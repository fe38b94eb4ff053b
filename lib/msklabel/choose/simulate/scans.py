"""The scans of a simulation, prepared once."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging import same_grid
from msklabel.imaging.files import stamp_of
from msklabel.imaging.names import without_suffix
from msklabel.imaging.scan import Scan
from msklabel.pipeline.preprocess import Prepared, Preprocess
from msklabel.store.folder import parts
from msklabel.store.folder import read_folder as find_images
from msklabel.system import System

_FACTS = "facts.csv"
Drawn = dict[int, set[int]]
"""For each scan of a pool, by its number, the slices that are drawn."""


@dataclass(frozen=True)
class LabelledScan:
    """A scan with its true labels.

    Attributes:
        id: Identifier.
        patient: Whose it is.
        site: Where it was made.
        scan: The scan.
        labels: Shape (X, Y, Z) of the scan, uint8.
    """

    id: str
    patient: str
    site: str
    scan: Scan
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """A scan on its working crop.

    Attributes:
        labels: Shape (X, Y, Z) of the crop, uint8.
        voxel_cm2: In-plane size of a voxel.
    """

    id: str
    patient: str
    site: str
    prepared: Prepared
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def slices(self) -> int:
        """Slices of the crop."""
        return int(self.labels.shape[2])

    @property
    def voxel_cm2(self) -> float:
        """In-plane size of a voxel of the crop."""
        return self.spacing_mm[0] * self.spacing_mm[1] / 100


@dataclass(frozen=True)
class Split:
    """A pool to query, and cases to test with that are never queried; no patient is in both."""

    pool: tuple[Case, ...]
    test: tuple[Case, ...]


def prepare(system: System, labelled: LabelledScan) -> Case:
    """Bring a scan to the working grid of a system."""
    preprocess = Preprocess(system)
    prepared = preprocess(labelled.scan)
    grid = prepared.grid
    labels = preprocess.labels(labelled.labels, grid).numpy()
    return Case(labelled.id, labelled.patient, labelled.site, prepared, labels, grid.steps_mm(labelled.scan.spacing_mm))


def split(cases: Sequence[Case], test_share: float, seed: int) -> Split:
    """Part cases by patient.

    Raises:
        UserError: If there are fewer than four patients.
    """
    patients = sorted({case.patient for case in cases})
    if len(patients) < 4:
        raise UserError(f"a simulation needs scans of at least 4 patients, there are {len(patients)}")
    order = np.random.default_rng([seed, 1]).permutation(len(patients))
    tested = {patients[i] for i in order[: max(1, round(test_share * len(patients)))]}
    pool = tuple(case for case in cases if case.patient not in tested)
    return Split(pool, tuple(case for case in cases if case.patient in tested))


def read_folder(system: System, folder: Path) -> Iterable[LabelledScan]:
    """Read ``images/`` and, under the same names, ``truth/``, in any format that the datastore takes.

    ``facts.csv`` may give ``image`` (with suffix or without), ``patient`` or ``patient_id``, and ``site``. Where it
    says nothing of a scan, its DICOM header does, else it is taken for a patient of its own.

    Raises:
        UserError: If there are no pairs, two files have one name, ``facts.csv`` speaks of none of them, a scan or a
            label cannot be read, or a label does not lie on its scan.
    """
    from msklabel.predict.source import read_for

    pairs = _pairs(system, folder)
    if not pairs:
        raise UserError(f"{folder}: expected images/NAME.nii.gz with labels under truth/NAME.nii.gz")
    facts: dict[str, dict[str, str]] = {}
    if (folder / _FACTS).is_file():
        with (folder / _FACTS).open(newline="", encoding="utf-8-sig") as file:
            facts = {without_suffix(row["image"]): row for row in csv.DictReader(file) if row.get("image")}
        if not any(pair.names & facts.keys() for pair in pairs):
            raise UserError(f"{folder / _FACTS} names none of the scans in its column 'image'")
    for pair in pairs:
        said = next((facts[name] for name in sorted(pair.names) if name in facts), {})
        scan = read_for(system, pair.image)
        patient = said.get("patient") or said.get("patient_id") or scan.facts.get("patient") or pair.name
        site = said.get("site") or scan.facts.get("site") or ""
        yield LabelledScan(pair.name, patient, site, scan, _labels(pair.truth, scan))


def _labels(file: Path, scan: Scan) -> NDArray[np.uint8]:
    """The true labels on their scan's grid."""
    from msklabel.imaging.read import read_labels
    from msklabel.imaging.seg_read import is_segmentation

    if is_segmentation(file):
        raise UserError(f"{file}: is a DICOM Segmentation; a true label is a label map, such as NIfTI or NRRD")
    labels = read_labels(file)
    if not same_grid(labels.array.shape, labels.affine, scan.shape, scan.affine):
        raise UserError(f"{file}: the label does not lie on its scan")
    return labels.array


def folder_key(system: System, folder: Path) -> str:
    """Changes whenever a scan, a label or a fact of a folder does."""
    facts: list[tuple[str, int, int]] = []
    for pair in _pairs(system, folder):
        for path, channels in ((pair.image, _channels(system)), (pair.truth, ())):
            place = (path if path.is_dir() else path.parent).relative_to(folder)
            facts += [(str(place / name), size, time) for name, size, time in stamp_of(path, channels)]
    for file in folder.glob(_FACTS):
        facts.append((file.name, file.stat().st_size, file.stat().st_mtime_ns))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class _Pair:
    """A scan and its true labels.

    Attributes:
        name: File or folder of the scan, below ``images``; of several channels the first.
        names: All that it may be called elsewhere, without suffixes.
        image: The file or folder itself.
        truth: File or folder of the labels.
    """

    name: str
    names: frozenset[str]
    image: Path
    truth: Path


def _pairs(system: System, folder: Path) -> list[_Pair]:
    images, truth = _files(folder / "images", _channels(system)), _files(folder / "truth", ())
    pairs = []
    for image_id, file in images.items():
        place = file.rpartition("/")[0]
        beside = [Path(place, path.name) for path in parts(folder / "images", file, _channels(system))]
        names = frozenset(without_suffix(str(name)) for name in (image_id, *beside))
        label = next((truth[name] for name in (image_id, *sorted(names)) if name in truth), None)
        if label is not None:
            pairs.append(_Pair(file, names, folder / "images" / file, folder / "truth" / label))
    return pairs


def _files(folder: Path, channels: Sequence[str]) -> dict[str, str]:
    """Files and DICOM folders by their identifiers, as the datastore finds them.

    Raises:
        UserError: If one of them would be passed over there.
    """
    if not folder.is_dir():
        return {}
    found = find_images(folder, channels=channels)
    if found.left_out:
        raise UserError(f"{folder}: {found.left_out[0]}")
    return {name: image.file for name, image in found.images.items()}


def _channels(system: System) -> Sequence[str]:
    return system.channels if len(system.channels) > 1 else ()
