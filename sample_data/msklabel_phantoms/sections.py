"""Tables of cross-sections and tubes, evaluated on a voxel grid only where they matter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from msklabel_phantoms import shapes

Array = npt.NDArray[np.float32]
Rows: TypeAlias = tuple[tuple[float, ...], ...]

FAR_MM = np.float32(200)
# Shapes are evaluated only this near to them; blends and fat planes reach less far.
MARGIN_MM = 14


@dataclass(frozen=True)
class Grid:
    """A voxel grid in the scanner's frame (x right, y anterior, z superior), in mm."""

    x_mm: Array
    y_mm: Array
    z_mm: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""
        return len(self.x_mm), len(self.y_mm), len(self.z_mm)


class Space:
    """Positions of one side of the body, and which part of the grid comes near a box.

    Args:
        u_mm: First in-plane coordinate, shape (X, Y, Z), about the same along Y and Z.
        v_mm: Second in-plane coordinate, shape (X, Y, Z), about the same along X and Z.
        z_mm: Height, ascending, shape (Z,).
    """

    def __init__(self, u_mm: Array, v_mm: Array, z_mm: Array) -> None:
        self.u, self.v, self.z = u_mm, v_mm, z_mm
        ends = slice(None, None, max(u_mm.shape[2] - 1, 1))
        self._ranges = (
            (u_mm[..., ends].min(axis=(1, 2)), u_mm[..., ends].max(axis=(1, 2))),
            (v_mm[..., ends].min(axis=(0, 2)), v_mm[..., ends].max(axis=(0, 2))),
            (z_mm, z_mm),
        )

    def near(self, low_mm: Sequence[float], high_mm: Sequence[float]) -> tuple[slice, slice, slice]:
        """Return the part of the grid, perhaps empty, within ``MARGIN_MM`` of the corners low and high (u, v, z)."""
        slices = []
        for (first, last), lower, upper in zip(self._ranges, low_mm, high_mm, strict=True):
            inside = np.flatnonzero((last > lower - MARGIN_MM) & (first < upper + MARGIN_MM))
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        return slices[0], slices[1], slices[2]


def rows_at(rows: Rows, z_mm: Array) -> list[Array]:
    """Interpolate a table linearly at some heights.

    Args:
        rows: Rows of a height and values, highest first.
        z_mm: Heights, shape (Z,); beyond the table its first and last row hold.

    Returns:
        One array of shape (Z,) for each column of values.
    """
    columns = np.asarray(rows[::-1], float).T
    return [np.interp(z_mm, columns[0], column).astype(np.float32) for column in columns[1:]]


def nearest_tube(space: Space, tubes: Iterable[Rows], blend_mm: float = 0) -> Array:
    """Measure the distance to the nearest of several tubes.

    Args:
        space: Where to evaluate.
        tubes: Nodes (u, v, z, radius) of each tube.
        blend_mm: Join the tubes with a fillet of this size; 0 for none.

    Returns:
        Signed distance in mm, ``FAR_MM`` far from all, shape (X, Y, Z).
    """
    distance = np.full(space.u.shape, FAR_MM, np.float32)
    for nodes in tubes:
        for pair in pairwise(nodes):
            low = [min(node[axis] - node[3] for node in pair) for axis in range(3)]
            high = [max(node[axis] + node[3] for node in pair) for axis in range(3)]
            box = space.near(low, high)
            if not distance[box].size:
                continue
            piece, so_far = shapes.tapered_tube(space.u[box], space.v[box], space.z[box[2]], pair), distance[box]
            distance[box] = shapes.smooth_union(so_far, piece, blend_mm) if blend_mm else np.minimum(so_far, piece)
    return distance


def section_distance(space: Space, rows: Rows, swell_mm: float = 0.0) -> tuple[tuple[slice, slice, slice], Array]:
    """Measure the distance to a solid given by its cross-sections, where it is near.

    Args:
        space: Where to evaluate.
        rows: Cross-sections (z, u, v, half_a, half_b, degrees, bend), highest first, linear in z between.
        swell_mm: How much larger than the table the solid is on all sides but its ends.

    Returns:
        The part of the grid that was evaluated, perhaps empty, and the signed distance in mm there.
    """
    cu, cv, half_a, half_b, degrees, bend = np.asarray(rows, float).T[1:]
    turn = np.deg2rad(degrees)
    # A bent ellipse lies within the box of its long axis, thickened by its short axis and the bend.
    sag = np.abs(bend) * half_a**2 + half_b + max(swell_mm, 0.0)
    reach_u = half_a * np.abs(np.cos(turn)) + sag
    reach_v = half_a * np.abs(np.sin(turn)) + sag
    # Beyond its first and last section the solid tapers off within the depth of the section.
    depth = np.minimum(half_a, half_b) + max(swell_mm, 0.0)
    low = ((cu - reach_u).min(), (cv - reach_v).min(), rows[-1][0] - depth[-1])
    high = ((cu + reach_u).max(), (cv + reach_v).max(), rows[0][0] + depth[0])
    box = space.near(low, high)
    z = space.z[box[2]]
    if not space.u[box].size:
        return box, np.zeros(space.u[box].shape, np.float32)
    cu, cv, half_a, half_b, degrees, bend = rows_at(rows, z)
    distance = shapes.bent_ellipse(
        space.u[box], space.v[box], cu, cv, half_a, half_b, np.deg2rad(degrees).astype(np.float32), bend
    )
    beyond_mm = np.maximum(np.maximum(z - rows[0][0], rows[-1][0] - z), 0).astype(np.float32)
    return box, distance + beyond_mm - np.float32(swell_mm)
