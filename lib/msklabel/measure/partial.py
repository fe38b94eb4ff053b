"""What of a measurement holds where a label speaks of a part of its scan only: the rest is unknown, never empty.

- A structure counts if all of its labels were looked for.
- A volume counts if all slices that it is taken over were looked at; so does the area of a slice, and so does a
  distance of surfaces in 3D: one that ends with the last slice that was looked at is no surface of the structure.
- Means are those of the slices that were looked at; so are shares, if all labels of the group were looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging.annotated import Annotated
from msklabel.imaging.geometry import Affine, closest_axes
from msklabel.measure.quantities import SHARE
from msklabel.measure.slab import VOXELS
from msklabel.measure.structures import Part
from msklabel.system import System


@dataclass(frozen=True)
class LookedAt:
    """A label's part of its scan, on the grid of the scan.

    Attributes:
        system: Whose labels they are.
        indices: Values that were looked for; the background is not among them.
        slices: Which slices along ``axis`` were looked at, boolean; None: all.
        axis: Array axis of these slices.
        axial: Which axial slices were looked at wholly, from the lowest, boolean; all of them where ``slices`` is None.
    """

    system: System
    indices: frozenset[int]
    slices: NDArray[np.bool_] | None
    axis: int
    axial: NDArray[np.bool_]

    @property
    def whole(self) -> bool:
        """Whether all slices were looked at."""
        return self.slices is None

    def counts(self, part: Part) -> bool:
        """Whether all labels of a part were looked for."""
        return set(part.indices) <= self.indices

    def only(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A label map without what lies outside the slices, and without labels that were not looked for."""
        others = [value for value in self.system.label_indices.values() if value not in self.indices]
        kept = labels
        if others:
            table = np.arange(256, dtype=np.uint8)
            table[others] = 0
            kept = table[labels]
        if self.slices is None:
            return kept
        kept = kept.copy()
        np.moveaxis(kept, self.axis, 0)[~self.slices] = 0
        return kept

    def passed_over(self, shape: tuple[int, ...], half: tuple[slice, ...]) -> int:
        """Number of voxels of a part of the grid that lie in slices which were not looked at."""
        if self.slices is None:
            return 0
        sizes = [len(range(*part.indices(n))) for part, n in zip(half, shape, strict=True)]
        others = int(np.prod([size for axis, size in enumerate(sizes) if axis != self.axis]))
        return others * int((~self.slices[half[self.axis]]).sum())

    def words(self) -> str:
        """Which share of the slices was looked at."""
        return "" if self.slices is None else f"{int(self.slices.sum())} of {len(self.slices)} slices were looked at"


def looked_at(annotated: Annotated | None, system: System, shape: tuple[int, ...], affine: Affine) -> LookedAt:
    """What a label speaks of, on its grid.

    Args:
        annotated: As it was said; None is everything.
        system: Whose labels they are.
        shape: Voxels along each axis.
        affine: Voxel index to RAS mm.
    """
    said = annotated or Annotated()
    names = system.labels if said.classes is None else said.classes
    indices = frozenset(system.labels[name].index for name in names)
    axes, signs = closest_axes(affine)
    axial = np.ones(shape[axes[2]], bool)
    if said.slices is None or len(set(said.slices)) == shape[said.slice_axis]:
        return LookedAt(system, indices, None, said.slice_axis, axial)
    slices = np.zeros(shape[said.slice_axis], bool)
    slices[list(said.slices)] = True
    axial = slices[:: signs[2]] if said.slice_axis == axes[2] else ~axial
    return LookedAt(system, indices, slices, said.slice_axis, axial)


def withhold(row: dict[str, Any], seen: LookedAt, at: int | None, over: slice | NDArray[np.integer]) -> None:
    """Take out of a row what cannot be told from the slices that were looked at.

    Args:
        row: Quantities by column name; changed.
        seen: What was looked at.
        at: The axial slice of its areas, from the lowest; None: none was chosen.
        over: The axial slices of its volumes.
    """
    for name in row:
        lacks_labels = name.endswith(SHARE) and not _indices_of(seen.system, name.removesuffix(SHARE)) <= seen.indices
        lacks_volume = (name.startswith("volume") or name == VOXELS) and not seen.axial[over].all()
        lacks_area = name.startswith("area") and at is not None and not seen.axial[at]
        if lacks_labels or lacks_volume or lacks_area:
            row[name] = float("nan")


def _indices_of(system: System, group: str) -> set[int]:
    return {system.labels[name].index for name in system.groups[group]}
