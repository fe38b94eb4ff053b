"""From a patient to the voxels of a scan: field of view, slabs, painted tissues and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.acquisition import voxel_centres_mm
from msklabel_phantoms.phantom import Fact
from msklabel_phantoms.sections import Grid
from msklabel_phantoms.thigh_geometry import ThighGeometry, thigh_geometry
from msklabel_phantoms.thigh_patient import ThighPatient
from msklabel_phantoms.thigh_tissues import STRUCTURES, Layer, structures

Array = npt.NDArray[np.float32]
# A scan is made in slabs of about this many voxels, so that a large one needs little memory.
_SLAB_VOXELS = 3_000_000


@dataclass(frozen=True)
class View:
    """What a scanner is set to see.

    Attributes:
        shape: Voxels along right, anterior and superior.
        spacing_mm: Voxel size along the same axes in mm.
        centre_mm: Where the middle of the view lies in the patient: right of the mid-sagittal plane, anterior and
            superior of the femoral necks.

    Raises:
        ValueError: A shape or spacing is not three positive numbers.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or len(self.spacing_mm) != 3 or min(self.shape) < 1 or min(self.spacing_mm) <= 0:
            raise ValueError(f"expected three positive sizes and spacings, got {self.shape} and {self.spacing_mm}")

    @property
    def in_plane_mm(self) -> float:
        """Mean edge of a voxel in the axial plane."""
        return (self.spacing_mm[0] + self.spacing_mm[1]) / 2

    def affine(self, table_z_mm: float) -> npt.NDArray[np.float64]:
        """Return voxel index to RAS+ mm, the middle of the view at the scanner's axis and a height on the table."""
        affine = np.diag([*self.spacing_mm, 1.0]).astype(np.float64)
        affine[:3, 3] = -(np.asarray(self.shape) - 1) / 2 * np.asarray(self.spacing_mm) + (0, 0, table_z_mm)
        return affine


def view(shape: Sequence[int], spacing_mm: Sequence[float], centre_mm: tuple[float, float, float]) -> View:
    """Return a view of any sequences of sizes.

    Raises:
        ValueError: A shape or spacing is not three positive numbers.
    """
    return View(tuple(shape), tuple(spacing_mm), centre_mm)  # type: ignore[arg-type]


def slabs(patient: ThighPatient, seen: View) -> Iterator[tuple[slice, Grid, ThighGeometry]]:
    """Yield a scan's slices from the bottom up, a few at a time: which, where they are and the anatomy there."""
    x, y, z = (
        voxel_centres_mm(count, size_mm) + np.float32(middle_mm)
        for count, size_mm, middle_mm in zip(seen.shape, seen.spacing_mm, seen.centre_mm, strict=True)
    )
    thickness = max(1, _SLAB_VOXELS // (seen.shape[0] * seen.shape[1]))
    for start in range(0, len(z), thickness):
        here = slice(start, min(start + thickness, len(z)))
        grid = Grid(x, y, z[here] + np.float32(patient.table_shift_mm))
        yield here, grid, thigh_geometry(patient, grid)


def paint(canvas: Array, painted: Iterable[Layer], values: Mapping[str, float | Array]) -> Array:
    """Paint layers over each other, blending where they cover part of a voxel.

    Args:
        canvas: What is under all layers, shape (X, Y, Z).
        painted: Layers, the lowest first.
        values: What each tissue is painted with, a number or an array of the same shape.

    Returns:
        A new canvas.
    """
    for layer in painted:
        canvas = canvas + (np.asarray(values[layer.tissue], np.float32) - canvas) * layer.share
    return canvas


def label(geometry: ThighGeometry, label_of: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """Return the true labels of a system.

    Args:
        geometry: The anatomy.
        label_of: Label of each structure (a key of ``STRUCTURES``); those not named are background.

    Returns:
        Label of the structure at each voxel's centre, shape (X, Y, Z).
    """
    table = np.zeros(len(STRUCTURES) + 1, np.uint8)
    for name, index in STRUCTURES.items():
        table[index] = label_of.get(name, 0)
    return table[structures(geometry)]


def patient_facts(patient: ThighPatient) -> dict[str, Fact]:
    """Return what the generator drew about a patient."""
    return {
        "patient_id": patient.patient_id,
        "sex": patient.sex,
        "age_years": patient.age_years,
        "height_cm": patient.height_cm,
        "body_scale": round(patient.size, 3),
        "adiposity": round(patient.adiposity, 3),
        "muscle_bulk_mm": round(patient.bulk_mm, 2),
        "flexion_degrees": round(float(np.rad2deg(np.arctan(patient.flexion.mean()))), 1),
        "twist_degrees": round(float(np.rad2deg(patient.twist_rad.mean())), 1),
    }


def volumes_cm3(labels: npt.NDArray[np.uint8], label_of: Mapping[str, int], seen: View) -> dict[str, Fact]:
    """Return the volume of each label as facts named ``<label>_cm3``."""
    counts = np.bincount(labels.ravel(), minlength=256) * float(np.prod(seen.spacing_mm)) / 1000
    return {f"{name}_cm3": round(float(counts[index]), 2) for name, index in label_of.items()}
