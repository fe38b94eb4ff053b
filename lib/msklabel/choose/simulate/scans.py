"""The scans of a simulation, prepared once."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging import same_grid
from msklabel.imaging.names import without_suffix
from msklabel.imaging.scan import Scan
from msklabel.pipeline.preprocess import Prepared, Preprocess
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
    """Read ``images/`` and, under the same names, ``truth/``.

    ``facts.csv`` may give ``image`` (with suffix or without), ``patient`` or ``patient_id``, and ``site``. A scan of
    which it says no patient is taken for a patient of its own.

    Raises:
        UserError: If there are no pairs, ``facts.csv`` speaks of none of them, or a label does not lie on its scan.
    """
    from msklabel.imaging.read import read_labels
    from msklabel.predict.source import read_for

    pairs = _pairs(folder)
    if not pairs:
        raise UserError(f"{folder}: expected images/NAME.nii.gz with labels under truth/NAME.nii.gz")
    facts: dict[str, dict[str, str]] = {}
    if (folder / _FACTS).is_file():
        with (folder / _FACTS).open(newline="", encoding="utf-8-sig") as file:
            facts = {without_suffix(row["image"]): row for row in csv.DictReader(file) if row.get("image")}
        if not any(without_suffix(image.name) in facts for image, _ in pairs):
            raise UserError(f"{folder / _FACTS} names none of the scans in its column 'image'")
    for image, truth in pairs:
        said = facts.get(without_suffix(image.name), {})
        patient = said.get("patient") or said.get("patient_id") or image.name
        scan, labels = read_for(system, image), read_labels(truth)
        if not same_grid(labels.array.shape, labels.affine, scan.shape, scan.affine):
            raise UserError(f"{truth}: the label does not lie on its scan")
        yield LabelledScan(image.name, patient, said.get("site") or "", scan, labels.array)


def folder_key(folder: Path) -> str:
    """Changes whenever a scan, a label or a fact of a folder does."""
    files = [*chain.from_iterable(_pairs(folder)), *folder.glob(_FACTS)]
    facts = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    pairs = [(image, folder / "truth" / image.name) for image in sorted((folder / "images").glob("*.nii*"))]
    return [(image, truth) for image, truth in pairs if truth.exists()]
