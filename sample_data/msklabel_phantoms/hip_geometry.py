"""Where the structures of a hip are: distances to bones, muscles, cavity and skin on a voxel grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms import hip_anatomy as anatomy
from msklabel_phantoms import shapes
from msklabel_phantoms.hip_patient import HipPatient
from msklabel_phantoms.sections import FAR_MM, Grid, Space, nearest_tube, rows_at, section_distance

Array = npt.NDArray[np.float32]
SOCKET_GAP_MM = 3.0


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


def hip_geometry(patient: HipPatient, grid: Grid) -> HipGeometry:
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
        here = _bones(Space(u, v, height), patient.metal_side == side)
        soft = Space(u + 2 * sign * warp["muscle_warp_x"][near], v + 2 * warp["muscle_warp_y"][near], height)
        here["muscle_mm"], here["muscle_gap_mm"], index = _muscles(soft, patient, side)
        here["vessel_mm"] = nearest_tube(soft, anatomy.VESSELS.values())
        own = here["muscle_mm"] < far["muscle_mm"][near]
        np.copyto(muscle[near], index, where=own)
        np.copyto(far["muscle_gap_mm"][near], here.pop("muscle_gap_mm"), where=own)
        for name, distance in here.items():
            np.minimum(far[name][near], distance, out=far[name][near])

    rows = rows_at(anatomy.CAVITY, z)
    end_mm = np.maximum(anatomy.CAVITY[-1][0] - z, 0)
    cavity = shapes.ellipse(x + warp["muscle_warp_x"], y - rows[0], rows[1], rows[2]) + end_mm
    return HipGeometry(x, y, z, muscle=muscle, cavity_mm=cavity, **far)


_WARPS = ("warp_x", "warp_y", "muscle_warp_x", "muscle_warp_y")
_SIDE_DISTANCES = ("muscle_mm", "muscle_gap_mm", "femur_mm", "pelvis_mm", "head_mm", "vessel_mm", "metal_mm")


def _bones(space: Space, metal: bool) -> dict[str, Array]:
    """Return the distances to one side's femur, pelvis, head centre and implant."""
    cu, cv, cz = anatomy.HEAD_CENTRE_MM
    radius_mm = anatomy.HEAD_RADIUS_MM
    du, dv, dz = space.u - np.float32(cu), space.v - np.float32(cv), space.z - np.float32(cz)
    head = np.sqrt(du * du + dv * dv + dz * dz)
    femur = shapes.smooth_union(nearest_tube(space, anatomy.FEMUR.values(), 5), head - radius_mm, 4)

    shell = np.abs(head - (radius_mm + SOCKET_GAP_MM + 2.5)) - 2.5
    opening = 0.75 * du + 0.20 * dv - 0.63 * dz - 4
    pelvis = shapes.smooth_union(nearest_tube(space, anatomy.PELVIS.values(), 6), np.maximum(shell, opening), 10)
    pelvis = np.maximum(pelvis, radius_mm + SOCKET_GAP_MM - head)

    implant = np.full(head.shape, FAR_MM, np.float32)
    if metal:
        implant = shapes.tapered_tube(space.u, space.v, space.z, anatomy.IMPLANT)
    return {"femur_mm": femur, "pelvis_mm": pelvis, "head_mm": head, "metal_mm": implant}


def _muscles(space: Space, patient: HipPatient, side: int) -> tuple[Array, Array, npt.NDArray[np.uint8]]:
    """Return distance to the nearest muscle, the lead over the second nearest, and which it is."""
    nearest = np.full(space.u.shape, FAR_MM, np.float32)
    second = np.full(space.u.shape, FAR_MM, np.float32)
    index = np.zeros(space.u.shape, np.uint8)
    for number, rows in enumerate(anatomy.MUSCLES.values()):
        jitter = patient.muscle_jitter[side, number]
        own = np.array(rows, float)
        own[:, 1:3] += jitter[:2]
        own[:, 3:5] *= 1 + np.array((0.05, 0.08)) * jitter[2:4]
        own[:, 5] += 3 * jitter[4]
        box, distance = section_distance(space, tuple(map(tuple, own.tolist())), patient.bulk_mm)
        closer = distance < nearest[box]
        second[box] = np.where(closer, nearest[box], np.minimum(second[box], distance))
        np.copyto(index[box], np.uint8(number), where=closer)
        nearest[box] = np.minimum(nearest[box], distance)
    return nearest, second - nearest, index
