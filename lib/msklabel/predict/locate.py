"""Coarse to fine: where in an image a network finds anything, at low resolution and so for few windows."""

from __future__ import annotations

from collections.abc import Callable

import torch

from msklabel.pipeline.resample import AxisMap, apply_weights, linear_weights
from msklabel.pipeline.windows import plan_windows, window_slices, with_channels
from msklabel.sections import Locate

Box = tuple[slice, slice, slice]
Found = Callable[[torch.Tensor], torch.Tensor]
"""Maps windows (B, C, *patch) to whether each voxel (B, *patch) has a label, boolean."""


def coarse_image(image: torch.Tensor, locate: Locate) -> torch.Tensor:
    """Average (C, X, Y, Z) to the coarse grid, edges aligned; at least one voxel along each axis."""
    weights = []
    for size, factor in zip(image.shape[1:], locate.coarsen, strict=True):
        coarse = max(1, round(size / factor))
        weights.append(None if coarse == size else torch.from_numpy(linear_weights(AxisMap(size, coarse))))
    return apply_weights(image, tuple(weights))


def labelled_box(
    image: torch.Tensor, patch_voxels: tuple[int, int, int], overlap: float, batch: int, found: Found
) -> Box | None:
    """The box around all voxels of an image that have a label.

    Args:
        image: Shape (C, X, Y, Z), at least a patch along each axis.
        patch_voxels: Voxels of a window.
        overlap: Share of a window that its neighbour covers again; one window that finds a label is enough.
        batch: Windows at once.
        found: Says where labels are.

    Returns:
        Voxels of the image along each axis; None where nothing has a label.
    """
    occupied = (image > image.amin(dim=(1, 2, 3), keepdim=True)).any(0)
    x, y, z = occupied.shape
    places = [window_slices(s, patch_voxels) for s in plan_windows((x, y, z), patch_voxels, overlap, occupied)]
    there = torch.zeros_like(occupied)
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        labelled = found(torch.stack([image[with_channels(place)] for place in some]))
        for place, here in zip(some, labelled, strict=True):
            there[place] |= here
    return _around(there)


def fine_box(coarse: Box, coarse_shape: tuple[int, ...], shape: tuple[int, ...], margin_voxels: tuple[int, ...]) -> Box:
    """The same place on the working grid, with a margin, inside the image.

    Args:
        coarse: Voxels of the coarse grid.
        coarse_shape: All of them along each axis.
        shape: Voxels of the working grid along each axis; both grids cover the same length.
        margin_voxels: Added at both ends of each axis.
    """
    parts = []
    for part, many, size, margin in zip(coarse, coarse_shape, shape, margin_voxels, strict=True):
        start, stop = part.start * size // many - margin, -(-part.stop * size // many) + margin
        parts.append(slice(min(max(0, start), size - 1), max(1, min(size, stop))))
    x, y, z = parts
    return x, y, z


def widened(box: Box, shape: tuple[int, ...], patch_voxels: tuple[int, ...]) -> Box:
    """A box that has room for a window along each axis, as near to its old middle as the image allows."""
    parts = []
    for part, size, patch in zip(box, shape, patch_voxels, strict=True):
        missing = max(0, patch - (part.stop - part.start))
        start = min(max(0, part.start - missing // 2), size - max(patch, part.stop - part.start))
        parts.append(slice(start, start + max(patch, part.stop - part.start)))
    x, y, z = parts
    return x, y, z


def _around(there: torch.Tensor) -> Box | None:
    """Bounding box of a boolean volume."""
    parts = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        inside = torch.nonzero(there.any(others[1]).any(others[0])).flatten().tolist()
        if not inside:
            return None
        parts.append(slice(inside[0], inside[-1] + 1))
    x, y, z = parts
    return x, y, z
