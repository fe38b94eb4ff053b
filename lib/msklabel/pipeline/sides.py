"""Left and right: split an image at the mid-sagittal plane, mirror the left half, and put results together again.

One network serves both sides (Huysmans et al. 2023, doi:10.3389/fneur.2023.1200727): the left half is mirrored to look
like a right one. Both halves then start at the plane and run outwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from msklabel.errors import UserError

_SEARCH_FRACTION = 0.1  # of the body's width, to either side of its middle
_ONE_SIDE_WIDTH_TO_DEPTH = 1.35  # two thighs or a pelvis are wider than this, one thigh is about round
_MIDDLE_MM = 20.0  # a single leg nearer to the scanner's middle than this could be either


@dataclass(frozen=True)
class Sides:
    """Where left and right lie along the first axis of a working crop, which runs from left to right.

    Attributes:
        plane: First voxel of the right half; 0 where only a right side is there, the whole width for only a left one.
        width: Voxels of the crop along the axis.
    """

    plane: int
    width: int

    @property
    def half_width(self) -> int:
        """Voxels of the wider half: both are brought to it."""
        return max(self.plane, self.width - self.plane)

    @property
    def widths(self) -> list[int]:
        """Voxels of each half that is there, the left one first, without those that it is widened by."""
        return [width for width in (self.plane, self.width - self.plane) if width]

    def split(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Split (..., X, Y, Z) into the mirrored left half and the right half, as far as they are there.

        The narrower half is padded outwards with its lowest value.
        """
        left, right = image[..., : self.plane, :, :].flip(-3), image[..., self.plane :, :, :]
        halves = [half for half in (left, right) if half.shape[-3]]
        return [_widen(half, self.half_width) for half in halves]

    def join(self, halves: Sequence[torch.Tensor]) -> torch.Tensor:
        """Inverse of :meth:`split`."""
        rest = list(halves)
        left = rest.pop(0)[..., : self.plane, :, :].flip(-3) if self.plane else None
        right = rest.pop(0)[..., : self.width - self.plane, :, :] if self.plane < self.width else None
        return torch.cat([half for half in (left, right) if half is not None], dim=-3)


def find_sides(
    foreground: NDArray[np.bool_],
    step_mm: Sequence[float],
    middle_mm: float,
    facts: Mapping[str, str],
    projection: bool = False,
) -> Sides:
    """Find the mid-sagittal plane of a working crop in RAS.

    Args:
        foreground: Shape (X, Y, Z); what is neither air nor noise.
        step_mm: Voxel size along each axis.
        middle_mm: Where the body's middle lies along the left-right axis of the scanner, to the right.
        facts: ``side`` (``L`` or ``R``) of the scan decides where only one side is in it.
        projection: Whether it is a radiograph; one that is taller than wide shows one joint.

    Raises:
        UserError: If only one leg is there and nothing tells which.
    """
    width = foreground.shape[0]
    profile = foreground.sum(axis=(1, 2)).astype(float)
    inside = np.flatnonzero(profile > 0)
    first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (0, width - 1)
    deep = np.flatnonzero(foreground.any(axis=(0, 2)))
    depth_mm = (int(np.ptp(deep)) + 1) * step_mm[1] if len(deep) else step_mm[1]
    width_mm = (last - first + 1) * step_mm[0]
    if width_mm < (1.0 if projection else _ONE_SIDE_WIDTH_TO_DEPTH) * depth_mm:
        return Sides(0 if _is_right(facts, middle_mm, projection) else width, width)
    reach = max(1, round(_SEARCH_FRACTION * (last - first)))
    middle = (first + last + 1) // 2
    smooth = ndimage.uniform_filter1d(profile, max(1, reach // 2))
    around = np.arange(max(1, middle - reach), min(width - 1, middle + reach) + 1)
    lowest = around[smooth[around] <= smooth[around].min() + 0.02 * smooth.max()]
    return Sides(int(lowest[np.argmin(np.abs(lowest - middle))]), width)


def _is_right(facts: Mapping[str, str], middle_mm: float, projection: bool) -> bool:
    side = facts.get("side", "").upper()[:1]
    if side in ("L", "R"):
        return side == "R"
    if projection:
        return True  # an image of one joint without a word about its side is taken as it is
    if abs(middle_mm) < _MIDDLE_MM:
        raise UserError("only one leg is in this scan, and neither its header nor its position tells which")
    return middle_mm > 0


def _widen(half: torch.Tensor, width: int) -> torch.Tensor:
    missing = width - half.shape[-3]
    if not missing:
        return half
    if half.dtype == torch.uint8:
        return functional.pad(half, (0, 0, 0, 0, 0, missing))
    floor = half.amin(dim=(-3, -2, -1), keepdim=True)
    return functional.pad(half - floor, (0, 0, 0, 0, 0, missing)) + floor
