"""Signed distances to simple solids: negative inside, in mm.

Positions are arrays that broadcast against each other, usually (X, Y, Z) for in-plane coordinates and (Z,)
for the height, so that every shape can change from slice to slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Scalar = float | Array


def bent_ellipse(
    u_mm: Array,
    v_mm: Array,
    centre_u_mm: Scalar,
    centre_v_mm: Scalar,
    half_a_mm: Scalar,
    half_b_mm: Scalar,
    angle_rad: Scalar,
    bend_per_mm: Scalar = 0.0,
) -> Array:
    """Approximate the distance to an ellipse whose long axis follows a parabola: a muscle's cross-section.

    Args:
        u_mm: First in-plane coordinate.
        v_mm: Second in-plane coordinate.
        centre_u_mm: Centre along u.
        centre_v_mm: Centre along v.
        half_a_mm: Half axis along the rotated u.
        half_b_mm: Half axis along the rotated v.
        angle_rad: Rotation of the first axis from u towards v.
        bend_per_mm: Curvature: the ends of the first axis bend towards the rotated v.

    Returns:
        Signed distance in mm.
    """
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    du, dv = u_mm - centre_u_mm, v_mm - centre_v_mm
    along = du * cosine + dv * sine
    across = dv * cosine - du * sine - bend_per_mm * np.square(along)
    return ellipse(along, across, half_a_mm, half_b_mm)


def ellipse(u_mm: Array, v_mm: Array, half_u_mm: Scalar, half_v_mm: Scalar) -> Array:
    """Approximate the distance to an ellipse around the origin to first order."""
    return ellipsoid((u_mm, v_mm), (half_u_mm, half_v_mm))


def ellipsoid(offsets_mm: Sequence[Array], half_axes_mm: Sequence[Scalar]) -> Array:
    """Approximate the distance to an axis-parallel ellipsoid of any dimension to first order.

    Args:
        offsets_mm: Position minus centre, one array an axis.
        half_axes_mm: Half axis along each axis.

    Returns:
        Signed distance in mm.
    """
    radius_squared: Array = np.zeros((), np.float32)
    slope_squared: Array = np.full((), 1e-6, np.float32)
    for offset_mm, half_mm in zip(offsets_mm, half_axes_mm, strict=True):
        ratio_squared = np.square(offset_mm / half_mm)
        radius_squared = radius_squared + ratio_squared
        slope_squared = slope_squared + ratio_squared / np.square(half_mm)
    radius = np.sqrt(radius_squared)
    return np.asarray(radius * (radius - 1) / np.sqrt(slope_squared), dtype=np.float32)


def superellipse(u_mm: Array, v_mm: Array, half_u_mm: Scalar, half_v_mm: Scalar, exponent: float) -> Array:
    """Measure along the ray from the origin the distance to a superellipse: a trunk's outline.

    Args:
        u_mm: First coordinate.
        v_mm: Second coordinate.
        half_u_mm: Half axis along u.
        half_v_mm: Half axis along v; may differ from place to place (front and back).
        exponent: 2 is an ellipse, larger is squarer.

    Returns:
        Signed distance in mm.
    """
    power = np.abs(u_mm / half_u_mm) ** np.float32(exponent) + np.abs(v_mm / half_v_mm) ** np.float32(exponent)
    radius = np.maximum(power, 1e-6) ** np.float32(1 / exponent)
    return np.asarray((1 - 1 / radius) * np.hypot(u_mm, v_mm), dtype=np.float32)


def tapered_tube(u_mm: Array, v_mm: Array, z_mm: Array, nodes_mm: Sequence[Sequence[float]]) -> Array:
    """Measure the distance to a tube along a polyline, its radius changing linearly between the nodes.

    Args:
        u_mm: First in-plane coordinate.
        v_mm: Second in-plane coordinate.
        z_mm: Height.
        nodes_mm: At least two nodes (u, v, z, radius).

    Returns:
        Signed distance in mm.
    """
    distance: Array | None = None
    for start, end in pairwise(nodes_mm):
        axis = [float(e - s) for s, e in zip(start, end, strict=True)]
        length_squared = sum(a * a for a in axis[:3])
        du, dv, dz = u_mm - start[0], v_mm - start[1], z_mm - start[2]
        t = np.clip((du * axis[0] + dv * axis[1] + dz * axis[2]) / length_squared, 0, 1)
        squared = np.square(du - t * axis[0]) + np.square(dv - t * axis[1]) + np.square(dz - t * axis[2])
        piece = np.sqrt(squared) - (start[3] + t * axis[3])
        distance = piece if distance is None else np.minimum(distance, piece)
    if distance is None:
        raise ValueError(f"a tube needs two nodes or more, got {len(nodes_mm)}")
    return distance


def smooth_union(first_mm: Array, second_mm: Array, blend_mm: float) -> Array:
    """Join two solids with a fillet of about ``blend_mm`` (polynomial smooth minimum)."""
    overlap = np.maximum(blend_mm - np.abs(first_mm - second_mm), 0) / blend_mm
    return np.asarray(np.minimum(first_mm, second_mm) - overlap * overlap * (blend_mm / 4), dtype=np.float32)
