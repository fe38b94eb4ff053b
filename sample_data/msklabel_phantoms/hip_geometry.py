"""Where the structures of a hip are: distances to bones, muscles, cavity and skin on a voxel grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from msklabel_phantoms import hip_anatomy as anatomy
from msklabel_phantoms import shapes
from msklabel_phantoms.hip_patient import HipPatient

Array = npt.NDArray[np.float32]
FAR_MM = np.float32(200)
SOCKET_GAP_MM = 3.0
# Shapes are evaluated only this near to them; blends and fat planes reach less far.
_MARGIN_MM = 14


@dataclass(frozen=True)
class HipGrid:
    """A voxel grid in the scanner's frame (x right, y anterior, z superior, 0 in the middle), in mm."""

    x_mm: Array
    y_mm: Array
    z_mm: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""
        return len(self.x_mm), len(self.y_mm), len(self.z_mm)


@dataclass(frozen=True)
class HipGeometry:
    """Signed distances (mm, negative inside) and positions, each of shape (X, Y, Z) unless said otherwise.

    Attributes:
        x_mm: Position in the patient's frame, right of the mid-sagittal plane.
        y_mm: Position in the patient's frame, anterior of the femoral heads.
        z_mm: Height over the femoral necks, shape (Z,).
        muscle_mm: Distance to the nearest muscle.
        muscle_gap_mm: How much farther the second nearest muscle is: 0 on the plane between two.
        muscle: Index of the nearest muscle in ``hip_anatomy.MUSCLES``.
        femur_mm: Distance to the femur.
        pelvis_mm: Distance to hip bone, sacrum and coccyx.
        head_mm: Distance to the centre of the femoral head.
        vessel_mm: Distance to the nearest vessel, nerve or cord.
        metal_mm: Distance to the implant.
        cavity_mm: Distance to the pelvic cavity.
    """

    x_mm: Array
    y_mm: Array
    z_mm: Array
    muscle_mm: Array
    muscle_gap_mm: Array
    muscle: npt.NDArray[np.uint8]
    femur_mm: Array
    pelvis_mm: Array
    head_mm: Array
    vessel_mm: Array
    metal_mm: Array
    cavity_mm: Array


def hip_geometry(patient: HipPatient, grid: HipGrid) -> HipGeometry:
    """Place a patient's anatomy on a grid.

    Args:
        patient: Whose anatomy.
        grid: Where to evaluate it.

    Returns:
        Distances to all structures.
    """
    warp = {name: patient.fields[name].on_grid(grid.x_mm, grid.y_mm, grid.z_mm) for name in _WARPS}
    cosine, sine = np.float32(np.cos(patient.roll_rad)), np.float32(np.sin(patient.roll_rad))
    dx = grid.x_mm[:, None, None] - np.float32(patient.off_centre_mm[0])
    dy = grid.y_mm[None, :, None] - np.float32(patient.off_centre_mm[1])
    scale = np.float32(1 / patient.size)
    x = (dx * cosine + dy * sine) * scale + 2.2 * warp["warp_x"]
    y = (dy * cosine - dx * sine) * scale + 2.2 * warp["warp_y"]
    z = (grid.z_mm + np.float32(patient.slab_centre_mm)) * scale

    far = {name: np.full(grid.shape, FAR_MM, np.float32) for name in _SIDE_DISTANCES}
    muscle = np.zeros(grid.shape, np.uint8)
    for side, sign in enumerate((1, -1)):
        columns = np.flatnonzero((sign * x > -30).any(axis=(1, 2)))
        if not len(columns):
            continue
        near = slice(columns[0], columns[-1] + 1)
        shift = patient.side_shift_mm[side]
        u, v, height = sign * x[near] - shift[0], y[near] - shift[1], z - shift[2]
        here = _bones(_Plane(u, v), height, patient.metal_side == side)
        soft = _Plane(u + 2 * sign * warp["muscle_warp_x"][near], v + 2 * warp["muscle_warp_y"][near])
        here["muscle_mm"], here["muscle_gap_mm"], index = _muscles(soft, height, patient, side)
        here["vessel_mm"] = _nearest(soft, height, anatomy.VESSELS)
        own = here["muscle_mm"] < far["muscle_mm"][near]
        np.copyto(muscle[near], index, where=own)
        np.copyto(far["muscle_gap_mm"][near], here.pop("muscle_gap_mm"), where=own)
        for name, distance in here.items():
            np.minimum(far[name][near], distance, out=far[name][near])

    rows = _rows_at(anatomy.CAVITY[::-1], z)
    end_mm = np.maximum(anatomy.CAVITY[-1][0] - z, 0)
    cavity = shapes.ellipse(x + warp["muscle_warp_x"], y - rows[0], rows[1], rows[2]) + end_mm
    return HipGeometry(x, y, z, muscle=muscle, cavity_mm=cavity, **far)


_WARPS = ("warp_x", "warp_y", "muscle_warp_x", "muscle_warp_y")
_SIDE_DISTANCES = ("muscle_mm", "muscle_gap_mm", "femur_mm", "pelvis_mm", "head_mm", "vessel_mm", "metal_mm")


def _rows_at(rows: tuple[tuple[float, ...], ...], z: Array) -> list[Array]:
    """Interpolate a table, lowest row first, at the heights z; one array of shape (Z,) a column."""
    columns = np.asarray(rows, float).T
    return [np.interp(z, columns[0], column).astype(np.float32) for column in columns[1:]]


class _Plane:
    """In-plane positions of one side, and which rows and columns come near a rectangle."""

    def __init__(self, u: Array, v: Array) -> None:
        self.u, self.v = u, v
        ends = slice(None, None, max(u.shape[2] - 1, 1))
        self._rows = u[..., ends].min(axis=(1, 2)), u[..., ends].max(axis=(1, 2))
        self._columns = v[..., ends].min(axis=(0, 2)), v[..., ends].max(axis=(0, 2))

    def near(self, low: Sequence[float], high: Sequence[float]) -> tuple[slice, slice]:
        """Return the rows and columns, perhaps none, within ``_MARGIN_MM`` of the corners low and high (u, v)."""
        slices = []
        for (first, last), lower, upper in zip((self._rows, self._columns), low, high, strict=True):
            inside = np.flatnonzero((last > lower - _MARGIN_MM) & (first < upper + _MARGIN_MM))
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        return slices[0], slices[1]


def _nearest(plane: _Plane, z: Array, tubes: dict[str, tuple[tuple[float, ...], ...]], blend_mm: float = 0) -> Array:
    """Return the distance to the nearest of several tubes, joined with a fillet; far from all, ``FAR_MM``."""
    distance = np.full(plane.u.shape, FAR_MM, np.float32)
    for nodes in tubes.values():
        for pair in pairwise(nodes):
            low = [min(node[axis] - node[3] for node in pair) for axis in range(3)]
            high = [max(node[axis] + node[3] for node in pair) for axis in range(3)]
            if low[2] - _MARGIN_MM > z.max() or high[2] + _MARGIN_MM < z.min():
                continue
            box = plane.near(low[:2], high[:2])
            piece, so_far = shapes.tapered_tube(plane.u[box], plane.v[box], z, pair), distance[box]
            distance[box] = shapes.smooth_union(so_far, piece, blend_mm) if blend_mm else np.minimum(so_far, piece)
    return distance


def _bones(plane: _Plane, z: Array, metal: bool) -> dict[str, Array]:
    """Return the distances to one side's femur, pelvis, head centre and implant."""
    cu, cv, cz = anatomy.HEAD_CENTRE_MM
    radius_mm = anatomy.HEAD_RADIUS_MM
    du, dv, dz = plane.u - np.float32(cu), plane.v - np.float32(cv), z - np.float32(cz)
    head = np.sqrt(du * du + dv * dv + dz * dz)
    femur = shapes.smooth_union(_nearest(plane, z, anatomy.FEMUR, 5), head - radius_mm, 4)

    shell = np.abs(head - (radius_mm + SOCKET_GAP_MM + 2.5)) - 2.5
    opening = 0.75 * du + 0.20 * dv - 0.63 * dz - 4
    pelvis = shapes.smooth_union(_nearest(plane, z, anatomy.PELVIS, 6), np.maximum(shell, opening), 10)
    pelvis = np.maximum(pelvis, radius_mm + SOCKET_GAP_MM - head)

    implant = np.full(head.shape, FAR_MM, np.float32)
    if metal:
        implant = shapes.tapered_tube(plane.u, plane.v, z, anatomy.IMPLANT)
    return {"femur_mm": femur, "pelvis_mm": pelvis, "head_mm": head, "metal_mm": implant}


def _muscles(plane: _Plane, z: Array, patient: HipPatient, side: int) -> tuple[Array, Array, npt.NDArray[np.uint8]]:
    """Return distance to the nearest muscle, the lead over the second nearest, and which it is."""
    nearest = np.full(plane.u.shape, FAR_MM, np.float32)
    second = np.full(plane.u.shape, FAR_MM, np.float32)
    index = np.zeros(plane.u.shape, np.uint8)
    for number, rows in enumerate(anatomy.MUSCLES.values()):
        top, bottom = rows[0][0], rows[-1][0]
        if z.min() > top + 12 or z.max() < bottom - 12:
            continue
        jitter = patient.muscle_jitter[side, number]
        cu, cv, half_a, half_b, degrees, bend = _rows_at(rows[::-1], z)
        reach = half_a.max() * 1.2 + half_b.max()
        box = plane.near((cu.min() - reach, cv.min() - reach), (cu.max() + reach, cv.max() + reach))
        distance = shapes.bent_ellipse(
            plane.u[box],
            plane.v[box],
            cu + jitter[0],
            cv + jitter[1],
            half_a * (1 + np.float32(0.05) * jitter[2]),
            half_b * (1 + np.float32(0.08) * jitter[3]),
            np.deg2rad(degrees + 3 * jitter[4]),
            bend,
        )
        distance += np.maximum(np.maximum(z - top, bottom - z), 0) - np.float32(patient.bulk_mm)
        closer = distance < nearest[box]
        second[box] = np.where(closer, nearest[box], np.minimum(second[box], distance))
        np.copyto(index[box], np.uint8(number), where=closer)
        np.minimum(nearest[box], distance, out=nearest[box])
    return nearest, second - nearest, index
