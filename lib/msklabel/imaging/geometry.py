"""Geometry of voxel grids: 4x4 affines from voxel index to RAS+ coordinates in mm, voxel centres.

The convention is that of NIfTI: ``affine @ (i, j, k, 1)`` is the centre of voxel (i, j, k), first axis to the
patient's right, second to anterior, third to superior. ITK and DICOM use LPS; :func:`to_lps` and :func:`from_lps`
are the only places that convert.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CODES = (("L", "R"), ("P", "A"), ("I", "S"))


def spacing_mm(affine: Affine) -> tuple[float, float, float]:
    """Distance between neighbouring voxel centres along each array axis, in mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def closest_axes(affine: Affine) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Match array axes to anatomical axes.

    Args:
        affine: Voxel index to RAS mm; may be oblique.

    Returns:
        For each of right, anterior, superior: the array axis that runs closest to it, and +1 or -1 for its sense.
        The matching with the largest total alignment is chosen, so each array axis is used once.
    """
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes = max(itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[i, p[i]]) for i in range(3)))
    signs = tuple(1 if cosines[i, axes[i]] >= 0 else -1 for i in range(3))
    return axes, signs  # type: ignore[return-value]


def orientation_codes(affine: Affine) -> str:
    """Anatomical direction in which each array axis runs, such as ``RAS`` or ``LPS``."""
    axes, signs = closest_axes(affine)
    codes = [""] * 3
    for world, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        codes[axis] = _CODES[world][sign > 0]
    return "".join(codes)


def same_grid(
    shape: tuple[int, ...],
    affine: Affine,
    other_shape: tuple[int, ...],
    other_affine: Affine,
    tolerance_voxels: float = 0.02,
) -> bool:
    """Whether two grids place every voxel at the same point, within a fraction of a voxel.

    The far corner is compared as well as the origin, so that a small error of spacing or direction cannot add up.
    """
    if tuple(shape) != tuple(other_shape):
        return False
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape))), dtype=float)
    points = corners @ affine[:3, :3].T + affine[:3, 3]
    others = corners @ other_affine[:3, :3].T + other_affine[:3, 3]
    return bool(np.abs(points - others).max() <= tolerance_voxels * min(spacing_mm(affine)))


def to_lps(
    affine: Affine,
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Origin (mm), spacing (mm) and row-major direction cosines in LPS, as ITK and DICOM want them."""
    lps = _LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    direction = lps[:3, :3] / spacing
    return tuple(lps[:3, 3].tolist()), tuple(spacing.tolist()), tuple(direction.ravel().tolist())


def from_lps(origin_mm: tuple[float, ...], spacing: tuple[float, ...], direction: tuple[float, ...]) -> Affine:
    """Inverse of :func:`to_lps`."""
    lps = np.eye(4)
    lps[:3, :3] = np.asarray(direction).reshape(3, 3) * np.asarray(spacing)
    lps[:3, 3] = origin_mm
    return _LPS @ lps
