"""Resampling along each axis by small weight matrices, and the way back.

Grids are aligned at their outer edges, unless a system asks for MONAI's way: a working grid of ``m`` voxels covers the
same length as the native grid of ``n`` voxels, so its true spacing is ``n * spacing / m``, within half a voxel over the
whole length of what was asked for, and going there and back never shifts the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from msklabel.sections import Resampling

_SLICES_AT_ONCE = 8
_Place = TypeVar("_Place", float, NDArray[np.float64])
_SAME_MM = 1e-3  # spacings no further apart than this are the same to MONAI


@dataclass(frozen=True)
class AxisMap:
    """How the voxels of a target lie along one axis of a source.

    Attributes:
        size_in: Voxels of the source.
        size_out: Voxels of the target.
        from_first: Source voxels from one target voxel to the next, where both first ones have the same centre and
            values are interpolated between two neighbours; None where the target covers the source from edge to edge
            and, where it is coarser, averages over what its voxels cover.
    """

    size_in: int
    size_out: int
    from_first: float | None = None

    @property
    def step(self) -> float:
        """Source voxels from one target voxel to the next."""
        return self.size_in / self.size_out if self.from_first is None else self.from_first

    @property
    def keeps(self) -> bool:
        """Whether the target's voxels are the source's."""
        return self.size_in == self.size_out and self.step == 1

    def centres(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """Where the centres of target voxels lie, in source voxels; 0 is the centre of the first."""
        return (index + 0.5) * self.step - 0.5 if self.from_first is None else index * self.from_first

    def edge(self, edge: _Place) -> _Place:
        """Where a border between target voxels lies between source voxels; 0 is the outer edge of the first."""
        if self.from_first is None:
            return edge * self.size_in / self.size_out
        return edge * self.from_first + (1 - self.from_first) / 2

    def back(self) -> AxisMap:
        """How the source's voxels lie along the target."""
        return AxisMap(self.size_out, self.size_in, None if self.from_first is None else 1 / self.from_first)


AxisMaps = tuple[AxisMap, AxisMap, AxisMap]


def axis_maps(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    target_mm: tuple[float | None, float | None, float | None],
    resampling: Resampling = "edge_to_edge",
) -> AxisMaps:
    """How a grid of the target spacing lies in one of a shape and spacing; None keeps the axis as it is.

    With ``from_first_voxel`` it is MONAI's Spacing's: as many voxels as bring the last nearest to the source's last.
    """
    wanted = [step if target is None else target for step, target in zip(spacing_mm, target_mm, strict=True)]
    if resampling == "edge_to_edge":
        sizes = [max(1, round(n * s / t)) for n, s, t in zip(shape, spacing_mm, wanted, strict=True)]
        x, y, z = (AxisMap(n, m) for n, m in zip(shape, sizes, strict=True))
        return x, y, z
    x, y, z = (_from_first(n, s, t) for n, s, t in zip(shape, spacing_mm, wanted, strict=True))
    return x, y, z


def _from_first(size: int, step_mm: float, wanted_mm: float) -> AxisMap:
    """MONAI's grid along one axis; of spacings that are the same to it the scan's own is kept."""
    if abs(wanted_mm - step_mm) <= _SAME_MM:
        return AxisMap(size, size, 1.0)
    # In this order, as halves are to be rounded as they are there.
    return AxisMap(size, round((size - 1) * (step_mm / wanted_mm) + 1), wanted_mm / step_mm)


def linear_weights(along: AxisMap, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
    """Linear interpolation along one axis as a matrix, of an average where one is wanted (no aliasing).

    Args:
        along: How the target lies along the source; what lies beyond the source is as its last voxel.
        start: First target voxel wanted.
        stop: One past the last target voxel wanted; all by default.

    Returns:
        Shape (stop - start, size_in); each row sums to 1.
    """
    centres = along.centres(np.arange(start, along.size_out if stop is None else stop))
    centres = np.clip(centres, 0, along.size_in - 1)[:, None]
    reach = max(along.step, 1.0) if along.from_first is None else 1.0
    index = np.ceil(centres - reach).astype(np.intp) + np.arange(int(2 * reach) + 1)
    inside = (index >= 0) & (index < along.size_in)
    weights = np.where(inside, np.maximum(0, 1 - np.abs(centres - index) / reach), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(index), along.size_in), np.float32)
    matrix[np.nonzero(inside)[0], index[inside]] = weights[inside]
    return matrix


def nearest_index(along: AxisMap) -> NDArray[np.intp]:
    """For each target voxel along one axis the source voxel that its centre lies in."""
    return np.minimum(along.edge(np.arange(along.size_out) + 0.5).astype(np.intp), along.size_in - 1)


def apply_weights(volume: torch.Tensor, weights: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
    """Apply one weight matrix to each spatial axis, the most shrinking first.

    Args:
        volume: Shape (C, X, Y, Z).
        weights: For each spatial axis a matrix (out, in), or None to keep it.

    Returns:
        Shape (C, out_x, out_y, out_z).
    """
    steps = [(w.shape[0] / w.shape[1], axis, w) for axis, w in enumerate(weights) if w is not None]
    for _, axis, matrix in sorted(steps, key=lambda step: step[:2]):
        volume = torch.tensordot(volume, matrix.to(volume), dims=([axis + 1], [1])).movedim(-1, axis + 1)
    return volume


def resample_scan(array: NDArray, along: AxisMaps, device: torch.device | str = "cpu") -> torch.Tensor:
    """Resample voxels (C, X, Y, Z) of any real type to another grid in float32, a few slices of them at a time.

    Args:
        array: The voxels.
        along: How that grid lies along each axis.
        device: Where that is computed; the result is on the processor.
    """
    x, y, z = (None if axis.keeps else torch.from_numpy(linear_weights(axis)) for axis in along)
    flat = torch.empty((len(array), along[0].size_out, along[1].size_out, array.shape[3]), device=device)
    for start in range(0, array.shape[3], _SLICES_AT_ONCE):
        part = array[..., start : start + _SLICES_AT_ONCE]
        voxels = torch.from_numpy(np.array(part, dtype=np.float32, order="K"))  # in the order they lie in: quicker
        flat[..., start : start + part.shape[3]] = apply_weights(voxels.to(device), (x, y, None))
    return apply_weights(flat, (None, None, z)).cpu()


def resample_nearest(labels: NDArray[np.uint8], along: AxisMaps) -> NDArray[np.uint8]:
    """Resample a label map (X, Y, Z) to another grid by the nearest voxel."""
    return labels[np.ix_(*(nearest_index(axis) for axis in along))]
