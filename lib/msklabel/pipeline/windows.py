"""Where a network looks: window positions that cover an image, and the weight of each voxel in a window."""

from __future__ import annotations

import itertools

import torch

from msklabel.sections import WindowPlaces

Starts = tuple[int, int, int]


def plan_windows(
    shape: tuple[int, int, int],
    patch_voxels: tuple[int, int, int],
    overlap: float,
    occupied: torch.Tensor | None = None,
    places: WindowPlaces = "spread",
) -> list[Starts]:
    """First voxel of each window, neighbours overlapping by at least the share asked for.

    Args:
        shape: Voxels of the image, at least those of a patch along each axis.
        patch_voxels: Voxels of a window.
        overlap: Share of a window, from 0 to below 1.
        occupied: Boolean, of the image's shape; windows without any occupied voxel are left out.
        places: Evenly spread, or in fixed steps from the first voxel.

    Returns:
        Starts in order of the last axis, so that slices of a 2D system come one after another.
    """
    axes = [_starts(n, patch, overlap, places) for n, patch in zip(shape, patch_voxels, strict=True)]
    windows = [(x, y, z) for z, y, x in itertools.product(*reversed(axes))]
    if occupied is None:
        return windows
    return [start for start in windows if bool(occupied[window_slices(start, patch_voxels)].any())]


def reach_of_windows(part: slice, size: int, patch: int, overlap: float) -> slice:
    """All that those windows in fixed steps from an image's edge cover, along one axis, that touch a part of it.

    Windows that are planned over it alone, in fixed steps too, are these.

    Args:
        part: Voxels of the image.
        size: All its voxels along the axis.
        patch: Voxels of a window.
        overlap: Share of a window.
    """
    if size <= patch:
        return slice(0, size)
    starts = _starts(size, patch, overlap, "from_edge")
    touching = [start for start in starts if start < part.stop and start + patch > part.start]
    return slice(touching[0], touching[-1] + patch)


def window_slices(start: Starts, patch_voxels: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """The part of an image that a window covers."""
    x, y, z = (slice(first, first + size) for first, size in zip(start, patch_voxels, strict=True))
    return x, y, z


def with_channels(place: tuple[slice, slice, slice]) -> tuple[slice, slice, slice, slice]:
    """The same part of an image that has channels first."""
    return slice(None), *place


def blend_weights(patch_voxels: tuple[int, int, int], blend: str) -> torch.Tensor:
    """Weight of each voxel of a window, of the window's shape, at most 1.

    ``gaussian`` falls off from the middle with a standard deviation of an eighth of the window (as nnU-Net and MONAI
    do), never below a thousandth so that every voxel counts.
    """
    if blend == "constant":
        return torch.ones(patch_voxels)
    weights = torch.ones(())
    for size in patch_voxels:
        offset = torch.arange(size) - (size - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (offset / max(size / 8, 1e-6)) ** 2)
    return weights.clamp_min(1e-3)


def _starts(size: int, patch: int, overlap: float, places: WindowPlaces) -> list[int]:
    if size < patch:
        raise ValueError(f"the image has {size} voxels along an axis where a patch has {patch}; pad it first")
    step = max(1, int(patch * (1 - overlap)))
    count = -(-(size - patch) // step) + 1
    if places == "from_edge":
        return [min(i * step, size - patch) for i in range(count)]
    return [round(i * (size - patch) / max(count - 1, 1)) for i in range(count)]
