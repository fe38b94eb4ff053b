"""Resampling along each axis by small weight matrices: exact extents, and an exact way back.

Grids are aligned at their outer edges: a working grid of ``m`` voxels covers the same length as the native grid of
``n`` voxels, so its true spacing is ``n * spacing / m``, within half a voxel over the whole length of what was asked
for, and going there and back never shifts the image.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_SLICES_AT_ONCE = 8


def resampled_shape(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    target_mm: tuple[float | None, float | None, float | None],
) -> tuple[int, int, int]:
    """Voxels along each axis after resampling to the target spacing; None keeps the axis as it is."""
    x, y, z = (
        n if target is None else max(1, round(n * step / target))
        for n, step, target in zip(shape, spacing_mm, target_mm, strict=True)
    )
    return x, y, z


def linear_weights(size_in: int, size_out: int, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
    """Linear interpolation along one axis as a matrix; a coarser grid averages over what it covers (no aliasing).

    Args:
        size_in: Voxels of the source along the axis.
        size_out: Voxels of the whole target along the axis.
        start: First target voxel wanted.
        stop: One past the last target voxel wanted; all by default.

    Returns:
        Shape (stop - start, size_in); each row sums to 1.
    """
    scale = size_in / size_out
    centres = (np.arange(start, size_out if stop is None else stop) + 0.5) * scale - 0.5
    centres, reach = np.clip(centres, 0, size_in - 1)[:, None], max(scale, 1.0)
    index = np.ceil(centres - reach).astype(np.intp) + np.arange(int(2 * reach) + 1)
    inside = (index >= 0) & (index < size_in)
    weights = np.where(inside, np.maximum(0, 1 - np.abs(centres - index) / reach), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(index), size_in), np.float32)
    matrix[np.nonzero(inside)[0], index[inside]] = weights[inside]
    return matrix


def nearest_index(size_in: int, size_out: int) -> NDArray[np.intp]:
    """For each target voxel along one axis the source voxel that its centre lies in."""
    return np.minimum(((np.arange(size_out) + 0.5) * size_in / size_out).astype(np.intp), size_in - 1)


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


def resample_scan(array: NDArray, shape: tuple[int, int, int], device: torch.device | str = "cpu") -> torch.Tensor:
    """Resample voxels (C, X, Y, Z) of any real type to another shape in float32, a few slices of them at a time.

    Args:
        array: The voxels.
        shape: Along each axis.
        device: Where that is computed; the result is on the processor.
    """
    x, y, z = (
        None if n == m else torch.from_numpy(linear_weights(n, m)) for n, m in zip(array.shape[1:], shape, strict=True)
    )
    flat = torch.empty((len(array), shape[0], shape[1], array.shape[3]), device=device)
    for start in range(0, array.shape[3], _SLICES_AT_ONCE):
        part = array[..., start : start + _SLICES_AT_ONCE]
        voxels = torch.from_numpy(np.array(part, dtype=np.float32, order="K"))  # in the order they lie in: quicker
        flat[..., start : start + part.shape[3]] = apply_weights(voxels.to(device), (x, y, None))
    return apply_weights(flat, (None, None, z)).cpu()


def resample_nearest(labels: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Resample a label map (X, Y, Z) to another shape, edges aligned, by the nearest voxel."""
    return labels[np.ix_(*(nearest_index(n, m) for n, m in zip(labels.shape, shape, strict=True)))]
