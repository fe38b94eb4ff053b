"""Dixon MR: water, fat, in-phase and out-of-phase images of one another, the fat fraction, and fat-water swaps.

Dixon WT, Simple proton spectroscopic imaging, Radiology 1984;153:189-94: in phase the signals of water and fat add,
out of phase they cancel. All arrays are magnitudes in any one unit, axis 2 running along the limb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msklabel.errors import UserError

Image = NDArray[np.floating[Any]]

_BODY_FRACTION = 0.1  # of the bright end of water + fat: between air and tissue
_RING_MM = (2.0, 6.0)  # depth below the surface: under the skin, within most subcutaneous fat
_CORE_DEPTH_MM = 15.0  # or half of the greatest depth in the slice, whichever is more
_SMALLEST_PIECE_MM2 = 1000.0  # a finger or noise is no limb
_CLEAR_PERCENT = 10.0  # difference of fat fractions of ring and core that decides
_NEARLY_ALL = 0.8
_SLICES_LOOKED_AT = 24


def in_out_of_phase(water: Image, fat: Image) -> tuple[Image, Image]:
    """In-phase (W + F) and out-of-phase (|W - F|) magnitudes of water and fat images of one shape."""
    _require_same_shape(water, fat)
    water, fat = _magnitude(water), _magnitude(fat)
    return water + fat, np.abs(water - fat)


def water_fat(
    in_phase: Image, out_of_phase: Image, fat_dominant: NDArray[np.bool_] | None = None
) -> tuple[Image, Image]:
    """Water and fat of in-phase and out-of-phase magnitudes: (IP + OP) / 2 and (IP - OP) / 2.

    Magnitudes do not say which of the two is the larger one. Where nothing else does, water is taken to be, and the fat
    fraction that follows cannot exceed 50 %.

    Args:
        in_phase: Any shape.
        out_of_phase: The same shape.
        fat_dominant: The same shape; where fat is known to be the larger one.
    """
    _require_same_shape(in_phase, out_of_phase)
    total, difference = _magnitude(in_phase), _magnitude(out_of_phase)
    larger, smaller = (total + difference) / 2, np.maximum(total - difference, 0) / 2
    if fat_dominant is None:
        return larger, smaller
    return np.where(fat_dominant, smaller, larger), np.where(fat_dominant, larger, smaller)


def fat_fraction_percent(water: Image, fat: Image, noise: float = 0.0) -> Image:
    """Fat fraction F / (W + F) in percent (Huysmans et al. 2023, section 2.1), voxel by voxel.

    Args:
        water: Any shape; values below 0 count as 0.
        fat: The same shape.
        noise: Where W + F is not above this there is no signal to tell.

    Returns:
        The same shape, float32, 0 to 100; NaN where there is no signal.
    """
    _require_same_shape(water, fat)
    water, fat = _magnitude(water), _magnitude(fat)
    total = water + fat
    signal = total > max(noise, 0.0)
    percent = np.minimum(100 * fat / np.where(signal, total, 1), 100)
    return np.where(signal, percent, np.nan).astype(np.float32)


def mean_fat_fraction(channels: Mapping[str, Image], mask: NDArray[np.bool_], water_dominant: bool = False) -> float:
    """Mean fat fraction over a region in percent.

    Args:
        channels: ``water`` and ``fat``, or else ``in_phase`` and ``out_of_phase``, each of one shape.
        mask: The same shape; the region.
        water_dominant: The region is known to hold more water than fat (no more than 50 % fat in any voxel), so that
            in-phase and out-of-phase images are enough.

    Returns:
        0 to 100; NaN if the region is empty or has no signal.

    Raises:
        UserError: If the channels do not tell the fat fraction.
    """
    if "water" in channels and "fat" in channels:
        water, fat = channels["water"], channels["fat"]
    elif "in_phase" in channels and "out_of_phase" in channels:
        if not water_dominant:
            raise UserError(
                "magnitudes of in_phase and out_of_phase do not tell a fat fraction above 50 % from one below; add the "
                "channels water and fat"
            )
        water, fat = water_fat(channels["in_phase"], channels["out_of_phase"])
    else:
        raise UserError(f"a fat fraction needs the channels water and fat, got {', '.join(channels) or 'none'}")
    _require_same_shape(water, mask)
    region = mask.astype(bool)
    values = fat_fraction_percent(water[region], fat[region])
    told = values[np.isfinite(values)]
    return float(told.mean(dtype=np.float64)) if told.size else float("nan")


def select_channels(channels: Mapping[str, Image], wanted: Sequence[str]) -> NDArray[Any]:
    """Channels in the order that a System wants them; in-phase and out-of-phase are made from water and fat if missing.

    Args:
        channels: By name, each of shape (X, Y, Z).
        wanted: Names in order.

    Returns:
        Shape (C, X, Y, Z).

    Raises:
        UserError: If a channel is missing and cannot be made.
    """
    known = dict(channels)
    if "water" in known and "fat" in known:
        in_phase, out_of_phase = in_out_of_phase(known["water"], known["fat"])
        known = {"in_phase": in_phase, "out_of_phase": out_of_phase, **known}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise UserError(f"missing channel {', '.join(missing)}; found {', '.join(channels)}")
    return np.stack([known[name] for name in wanted])


@dataclass(frozen=True)
class SwapVerdict:
    """Whether water and fat were exchanged, and what says so.

    Attributes:
        verdict: ``correct``; ``swapped`` in nearly every slice of every limb that can tell; ``partly`` swapped;
            ``unclear`` where ring and core hardly differ anywhere, or there is no limb in the image.
        ring_percent: Median over limbs and slices of the fat fraction 2 to 6 mm under the surface.
        core_percent: The same, deep inside.
        pieces: Limb cross-sections that were looked at.
        correct_pieces: Those with clearly more fat under the skin than inside.
        swapped_pieces: Those with clearly less.
        swapped_slices: Indices along axis 2 with a swapped piece.
    """

    verdict: Literal["correct", "swapped", "partly", "unclear"]
    ring_percent: float
    core_percent: float
    pieces: int
    correct_pieces: int
    swapped_pieces: int
    swapped_slices: tuple[int, ...]

    def __str__(self) -> str:
        facts = (
            f"fat fraction {self.ring_percent:.0f} % under the skin, {self.core_percent:.0f} % inside (expected more "
            f"under the skin); swapped in {self.swapped_pieces} of {self.pieces} limb cross-sections"
        )
        return f"water and fat: {self.verdict}; {facts}"


def detect_swapped(water: Image, fat: Image, spacing_mm: tuple[float, float, float]) -> SwapVerdict:
    """Tell by anatomy whether water and fat are exchanged: fat lies under the skin, muscle inside.

    Looked at limb by limb and slice by slice, because reconstructions also exchange them in one leg or in some slices.
    A swap mirrors every fat fraction at 50 %, so that the sign of ring minus core tells; where muscle has turned to fat
    and the skin covers little, the two are alike and the verdict is ``unclear`` rather than a guess.

    Args:
        water: Shape (X, Y, Z), axis 2 along the limb.
        fat: The same shape.
        spacing_mm: Voxel size along each axis.
    """
    _require_same_shape(water, fat)
    found = []
    total = _magnitude(water) + _magnitude(fat)
    level = _BODY_FRACTION * float(np.percentile(total[total > 0], 99)) if (total > 0).any() else 0.0
    fraction = fat_fraction_percent(water, fat, noise=level)
    for z in range(total.shape[2]):
        found += [(z, *pair) for pair in _rings_and_cores(total[..., z] > level, fraction[..., z], spacing_mm[:2])]
    if not found:
        return SwapVerdict("unclear", float("nan"), float("nan"), 0, 0, 0, ())
    slices, ring, core = (np.array(values) for values in zip(*found, strict=True))
    correct, swapped = ring - core >= _CLEAR_PERCENT, core - ring >= _CLEAR_PERCENT
    return SwapVerdict(
        verdict=_verdict(int(correct.sum()), int(swapped.sum()), len(found)),
        ring_percent=float(np.median(ring)),
        core_percent=float(np.median(core)),
        pieces=len(found),
        correct_pieces=int(correct.sum()),
        swapped_pieces=int(swapped.sum()),
        swapped_slices=tuple(sorted({int(z) for z in slices[swapped]})),
    )


def signal_under_skin(image: Image, spacing_mm: tuple[float, float, float]) -> float | None:
    """Median signal 2 to 6 mm under the surface of the limbs, where there is fat.

    Args:
        image: Shape (X, Y, Z), axis 2 along the limb; a channel in which neither water nor fat is dark.
        spacing_mm: Voxel size along each axis.

    Returns:
        None if there is no limb in the image.
    """
    magnitude = _magnitude(image)
    level = _BODY_FRACTION * float(np.percentile(magnitude[magnitude > 0], 99)) if (magnitude > 0).any() else 0.0
    step = max(1, magnitude.shape[2] // _SLICES_LOOKED_AT)
    found = []
    for z in range(0, magnitude.shape[2], step):
        found += [ring for ring, _ in _rings_and_cores(magnitude[..., z] > level, magnitude[..., z], spacing_mm[:2])]
    return float(np.median(found)) if found else None


def _rings_and_cores(
    tissue: NDArray[np.bool_], fraction: Image, spacing_mm: tuple[float, ...]
) -> list[tuple[float, float]]:
    """Median value (of the fat fraction, or another image) in ring and core of each limb in a slice (X, Y)."""
    limbs, number = ndimage.label(ndimage.binary_fill_holes(ndimage.binary_opening(tissue)))
    pairs = []
    for limb in range(1, number + 1):
        inside = limbs == limb
        if inside.sum() * np.prod(spacing_mm) < _SMALLEST_PIECE_MM2:
            continue
        depth = ndimage.distance_transform_edt(np.pad(inside, 1, mode="edge"), sampling=spacing_mm)[1:-1, 1:-1]
        told = inside & np.isfinite(fraction)
        ring = fraction[told & (depth > _RING_MM[0]) & (depth <= max(_RING_MM[1], _RING_MM[0] + max(spacing_mm)))]
        core = fraction[told & (depth > max(_CORE_DEPTH_MM, depth.max() / 2))]
        if ring.size and core.size:
            pairs.append((float(np.median(ring)), float(np.median(core))))
    return pairs


def _verdict(correct: int, swapped: int, pieces: int) -> Literal["correct", "swapped", "partly", "unclear"]:
    decided = correct + swapped
    if decided * 2 < pieces:
        return "unclear"
    if swapped >= _NEARLY_ALL * decided:
        return "swapped"
    return "correct" if correct >= _NEARLY_ALL * decided else "partly"


def _magnitude(image: Image) -> Image:
    return np.maximum(np.asarray(image, np.float32), 0)


def _require_same_shape(first: NDArray[Any], second: NDArray[Any]) -> None:
    if first.shape != second.shape:
        raise ValueError(f"images of one shape expected, got {first.shape} and {second.shape}")
