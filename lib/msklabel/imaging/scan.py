"""A scan and a label map: an array with its place in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.geometry import Affine, spacing_mm

_BLOCK_VOXELS = 2**16


class ImageError(UserError):
    """A file that cannot be used as a scan or a label map."""


# Facts of a scan that are sentences, for whoever works with it: what compression lost, and what a header leaves open.
DOUBTS = ("lossy", "unoriented")


@dataclass(frozen=True)
class Scan:
    """An image of one or more channels.

    Attributes:
        array: Shape (C, X, Y, Z), any real dtype, in the stored axis order; HU for CT. A radiograph has Z = 1.
        affine: Shape (4, 4), voxel index to RAS+ mm.
        facts: What the file says beside the voxels (modality, patient, body part), as far as it does.
        beside: Channels that were there and are none of the system's, by name, each (X, Y, Z): water and fat of a Dixon
            scan, which tell what its phases leave open.
    """

    array: NDArray[Any]
    affine: Affine
    facts: dict[str, str] = field(default_factory=dict)
    beside: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or 0 in self.array.shape:
            raise ValueError(f"a scan's array needs shape (C, X, Y, Z), got {self.array.shape}")
        _check_affine(self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis, without the channels."""
        return self.array.shape[1:]  # type: ignore[return-value]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along each axis, mm."""
        return spacing_mm(self.affine)


@dataclass(frozen=True)
class LabelMap:
    """One label index for each voxel.

    Attributes:
        array: Shape (X, Y, Z), uint8; 0 is background.
        affine: Shape (4, 4), voxel index to RAS+ mm.
    """

    array: NDArray[np.uint8]
    affine: Affine

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.array.dtype != np.uint8:
            raise ValueError(f"a label map needs uint8 (X, Y, Z), got {self.array.dtype} {self.array.shape}")
        _check_affine(self.affine)

    def present(self) -> list[int]:
        """The indices that occur, without the background's 0, ascending; ``np.unique`` would sort all voxels."""
        voxels = self.array.ravel(order="K")
        counts = np.zeros(256, np.int64)
        for start in range(0, len(voxels), _BLOCK_VOXELS):  # bincount widens what it counts to eight bytes each
            counts += np.bincount(voxels[start : start + _BLOCK_VOXELS], minlength=256)
        return [index for index in np.flatnonzero(counts).tolist() if index]


def is_usable(affine: Affine) -> bool:
    """Whether a matrix from voxel index to mm is 4x4, finite and can be inverted."""
    return affine.shape == (4, 4) and bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) >= 1e-9


def _check_affine(affine: Affine) -> None:
    if not is_usable(affine):
        raise ValueError("the affine must be a finite, invertible 4x4 matrix")
