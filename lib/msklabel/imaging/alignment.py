"""How two voxel grids that should fit together do not, in words."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging.geometry import orientation_codes
from msklabel.imaging.scan import Scan

_STEP_TOLERANCE_FRACTION = 0.01  # of the slice spacing, between stacks that follow each other


def misfit(
    reference: Scan, other: Scan, names: tuple[str, str], along: int | None = None, tolerance_voxels: float = 0.02
) -> str | None:
    """Say how a scan's grid differs from another's.

    Args:
        reference: The grid that is right.
        other: The grid that is compared with it.
        names: What to call the two, in this order.
        along: Array axis along which the two may lie apart and differ in size (stacks of slices); None: none.
        tolerance_voxels: Largest distance of corresponding voxels, in units of the smallest voxel edge that counts.

    Returns:
        None where they fit; else a sentence on the first difference: size, orientation, spacing, rotation, shift.
    """
    right, wrong = names
    axes = [axis for axis in range(3) if axis != along]
    sizes = [" x ".join(str(scan.shape[axis]) for axis in axes) for scan in (other, reference)]
    if sizes[0] != sizes[1]:
        return f"{wrong} has {sizes[0]} voxels, {right} has {sizes[1]}"
    codes = [orientation_codes(scan.affine) for scan in (other, reference)]
    if codes[0] != codes[1]:
        return f"{wrong} has its axes along {codes[0]}, {right} along {codes[1]}"
    spacing, wanted = np.array(other.spacing_mm), np.array(reference.spacing_mm)
    step_differs = along is not None and abs(spacing[along] / wanted[along] - 1) > _STEP_TOLERANCE_FRACTION
    tolerance_mm = tolerance_voxels * wanted[axes].min()
    if not step_differs and _offsets_mm(reference, other, axes).max() <= tolerance_mm:
        return None
    extent = np.array(other.shape) - 1
    if step_differs or (np.abs(spacing - wanted) * extent)[axes].max() > tolerance_mm:
        return f"{wrong} has voxels of {_mm(spacing)} mm, {right} of {_mm(wanted)} mm"
    angle = _largest_angle(reference, other)
    if angle * (spacing * extent).max() > tolerance_mm / 2:
        return f"{wrong} is rotated by {np.degrees(angle):.2g} degrees against {right}"
    shift_mm = _offsets_mm(reference, other, axes).max()
    return f"{wrong} is shifted by {shift_mm:.3g} mm{'' if along is None else ' in plane'} against {right}"


def _offsets_mm(reference: Scan, other: Scan, axes: list[int]) -> NDArray[np.float64]:
    """Distance of each corner voxel from where the reference has it, along each of some axes, mm."""
    to_reference = np.linalg.inv(reference.affine) @ other.affine
    corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in other.shape))], dtype=float)
    moved = (corners @ to_reference.T - corners)[:, axes]
    return np.abs(moved) * np.array(reference.spacing_mm)[axes]


def _largest_angle(reference: Scan, other: Scan) -> float:
    """Largest angle between corresponding array axes, radians."""
    a, b = (scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0) for scan in (reference, other))
    chord = np.linalg.norm(a - b, axis=0).max()  # an arc cosine would lose small angles
    return float(2 * np.arcsin(min(1.0, chord / 2)))


def _mm(spacing: NDArray[np.float64]) -> str:
    return " x ".join(f"{mm:.4g}" for mm in spacing)
