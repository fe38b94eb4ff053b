"""How a working grid lies in its scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging.geometry import closest_axes
from msklabel.imaging.scan import Scan
from msklabel.pipeline.resample import AxisMap, AxisMaps


@dataclass(frozen=True)
class Grid:
    """How a working crop lies in its scan.

    Attributes:
        native_shape: Voxels of the scan as stored.
        axes: Stored axis for each working axis.
        flipped: Whether the stored axis runs against the working axis.
        along: How the whole working grid lies along each axis of the scan, after turning its axes.
        crop: Start and stop of the crop on the working grid, per axis.
    """

    native_shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    along: AxisMaps
    crop: tuple[slice, slice, slice]

    @property
    def oriented_shape(self) -> tuple[int, int, int]:
        """Voxels of the scan after turning its axes, before resampling."""
        x, y, z = (self.native_shape[axis] for axis in self.axes)
        return x, y, z

    @property
    def working_shape(self) -> tuple[int, int, int]:
        """Voxels of the whole working grid."""
        x, y, z = (axis.size_out for axis in self.along)
        return x, y, z

    def steps_mm(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Voxel size along each working axis, of a scan's along its stored axes."""
        x, y, z = (spacing_mm[axis] * along.step for axis, along in zip(self.axes, self.along, strict=True))
        return x, y, z

    def orient(self, array: NDArray) -> NDArray:
        """Turn an array (..., X, Y, Z) from stored to working axes; a view."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        x, y, z = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return turned[..., x, y, z]

    def deorient(self, array: NDArray) -> NDArray:
        """Inverse of :meth:`orient` for (X, Y, Z)."""
        back = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        return np.ascontiguousarray(back.transpose(np.argsort(self.axes)))


def turned_grid(scan: Scan, codes: str) -> Grid:
    """The grid of a whole scan with its axes turned to the closest anatomical ones, not resampled."""
    axes, signs = closest_axes(scan.affine)
    wanted = [1 if code in "RAS" else -1 for code in codes]
    x, y, z = (sign != want for sign, want in zip(signs, wanted, strict=True))
    i, j, k = (scan.shape[axis] for axis in axes)
    along = AxisMap(i, i), AxisMap(j, j), AxisMap(k, k)
    return Grid(scan.shape, axes, (x, y, z), along, (slice(0, i), slice(0, j), slice(0, k)))
