"""Voxels and intensities of every label in every axial slice of either side: all that quantities are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging.geometry import Affine, closest_axes, spacing_mm
from msklabel.measure.structures import SIDES_APART, Part, Plane

Slices = slice | NDArray[np.integer]
ALL = slice(None)


@dataclass(frozen=True)
class Tally:
    """Counts and sums, slices from inferior to superior.

    Attributes:
        counts: Voxels of each label, shape (halves, slices, classes); halves are left and right, or one for all.
        sums: For each image, the sum of its values over the voxels where it says something; the same shape.
        told: How many voxels those are; the same shape.
        voxel_mm3: Volume of a voxel.
        pixel_mm2: Area of a voxel in the slice.
        z_mm: Height of each slice's middle, superior growing, shape (slices,).
    """

    counts: NDArray[np.int64]
    sums: Mapping[str, NDArray[np.float64]]
    told: Mapping[str, NDArray[np.int64]]
    voxel_mm3: float
    pixel_mm2: float
    z_mm: NDArray[np.float64]

    @property
    def slices(self) -> int:
        """Number of axial slices."""
        return self.counts.shape[1]

    @property
    def slice_mm(self) -> float:
        """Height of a slice."""
        return self.voxel_mm3 / self.pixel_mm2

    def voxels(self, part: Part, slices: Slices = ALL) -> int:
        """Voxels of a part in some slices."""
        return int(self._of(self.counts, part, slices).sum())

    def volume_cm3(self, part: Part, slices: Slices = ALL) -> float:
        """Volume of a part in some slices."""
        return self.voxels(part, slices) * self.voxel_mm3 / 1000

    def area_cm2(self, part: Part, at: int) -> float:
        """Area of a part in one slice."""
        return self.voxels(part, slice(at, at + 1)) * self.pixel_mm2 / 100

    def mean(self, image: str, part: Part, slices: Slices = ALL) -> float:
        """Mean of an image over a part; NaN where it says nothing there or there is no such image."""
        if image not in self.sums:
            return float("nan")
        told = self._of(self.told[image], part, slices).sum()
        return float(self._of(self.sums[image], part, slices).sum() / told) if told else float("nan")

    def silent_voxels(self, image: str, part: Part) -> int:
        """Voxels of a part where an image says nothing (water + fat = 0)."""
        return self.voxels(part) - int(self._of(self.told[image], part, ALL).sum())

    def profile(self, part: Part) -> NDArray[np.int64]:
        """Voxels of a part in each slice."""
        return self._of(self.counts, part, ALL).sum(axis=(0, 2))

    def _of(self, table: NDArray, part: Part, slices: Slices) -> NDArray:
        halves = slice(None) if part.half is None else slice(*((0, 1) if part.half == "left" else (1, 2)))
        return table[halves][:, slices][..., list(part.indices)]


def tally(
    labels: NDArray[np.uint8],
    affine: Affine,
    classes: int,
    plane: Plane | None = None,
    images: Mapping[str, NDArray] | None = None,
) -> Tally:
    """Count every label, slice by slice.

    Args:
        labels: Shape (X, Y, Z), any axis order; values below `classes`.
        affine: Voxel index to RAS mm.
        classes: Number of values, background included.
        plane: Where left and right meet; None counts both together.
        images: Values by name, the same shape; NaN where an image says nothing.
    """
    axes, signs = closest_axes(affine)
    up = slice(None, None, signs[2])
    halves = [plane.half(side) for side in SIDES_APART] if plane else [(slice(None),) * 3]
    shape = (len(halves), labels.shape[axes[2]], classes)
    counts = np.zeros(shape, np.int64)
    sums = {name: np.zeros(shape) for name in images or {}}
    told = {name: np.zeros(shape, np.int64) for name in images or {}}
    for number, half in enumerate(halves):
        part = np.moveaxis(labels[half], axes[2], 0)[up]
        for z, slab in enumerate(part):
            counts[number, z] = np.bincount(slab.ravel(), minlength=classes)
        for name, image in (images or {}).items():
            for z, (slab, values) in enumerate(zip(part, np.moveaxis(image[half], axes[2], 0)[up], strict=True)):
                speaks = np.isfinite(values)
                told[name][number, z] = np.bincount(slab[speaks], minlength=classes)
                sums[name][number, z] = np.bincount(slab[speaks], values[speaks], minlength=classes)
    steps = spacing_mm(affine)
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    place = np.zeros((labels.shape[axes[2]], 4))
    place[:, :3] = (np.array(labels.shape) - 1) / 2  # the middle of each slice
    place[:, axes[2]], place[:, 3] = np.arange(labels.shape[axes[2]]), 1
    z_mm = (place @ affine.T)[up, 2]
    return Tally(counts, sums, told, voxel_mm3, voxel_mm3 / steps[axes[2]], z_mm)
