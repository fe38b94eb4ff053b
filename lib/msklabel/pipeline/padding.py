"""Images that are smaller than a window, filled up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from msklabel.sections import WindowPlaces


def margins(shape: Sequence[int], patch_voxels: Sequence[int], places: WindowPlaces) -> list[tuple[int, int]]:
    """Voxels that an image lacks to a patch, before its first and after its last one, along each axis.

    Args:
        shape: Voxels of the image along each axis.
        patch_voxels: Voxels of a patch.
        places: Windows in fixed steps from the edge have the image in their middle, as MONAI's have; evenly spread
            ones begin where it does.
    """
    missing = [max(0, patch - n) for n, patch in zip(shape, patch_voxels, strict=True)]
    return [(n // 2, n - n // 2) if places == "from_edge" else (0, n) for n in missing]


def padded(image: torch.Tensor, patch_voxels: Sequence[int], places: WindowPlaces) -> torch.Tensor:
    """Fill (C, X, Y, Z) up to at least a patch.

    Around the middle with what lies at the image's edge (as MONAI Label's segmentation app does), labels with those
    there; otherwise at the far ends with each channel's lowest value, labels (uint8) with 0.
    """
    wanted = margins(image.shape[1:], patch_voxels, places)
    if not any(map(any, wanted)):
        return image
    if places == "from_edge":
        for axis, (before, after) in enumerate(wanted, start=1):
            size = image.shape[axis]
            image = image.index_select(axis, torch.arange(-before, size + after).clamp(0, size - 1))
        return image
    far = [n for _, after in reversed(wanted) for n in (0, after)]
    if image.dtype == torch.uint8:
        return functional.pad(image, far)
    floor = image.amin(dim=(1, 2, 3), keepdim=True)
    return functional.pad(image - floor, far) + floor
