"""Where the structures of the thighs and pelvis are: distances on a voxel grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms import shapes
from msklabel_phantoms import thigh_anatomy as anatomy
from msklabel_phantoms.hip_anatomy import HEAD_CENTRE_MM, HEAD_RADIUS_MM
from msklabel_phantoms.sections import FAR_MM, Grid, Rows, Space, nearest_tube, rows_at, section_distance
from msklabel_phantoms.thigh_patient import ThighPatient

Array = npt.NDArray[np.float32]
SOCKET_GAP_MM = 3.0
# Muscles reach this far beyond their own shape until they meet: what is farther from all is fat between them.
REACH_MM = 3.0
# The fascia bridges grooves between muscles with a fillet of this size.
_FASCIA_MM = 12.0


@dataclass(frozen=True)
class ThighGeometry:
    """Signed distances (mm, negative inside) and positions, each of shape (X, Y, Z) unless said otherwise.

    Attributes:
        x_mm: Position in the patient's frame, right of the mid-sagittal plane.
        y_mm: Position in the patient's frame, anterior of the femoral heads.
        z_mm: Height over the femoral necks in the tables' mm, shape (Z,).
        fascia_mm: Distance to the wrap around the muscles.
        muscle_gap_mm: How much farther the second nearest muscle is: 0 on the plane between two.
        muscle: Index of the nearest muscle in ``thigh_anatomy.MUSCLES``.
        left: Whether the nearest muscle is a left one.
        femur_mm: Distance to the femur.
        hip_bone_mm: Distance to ilium, ischium and pubis.
        other_bone_mm: Distance to sacrum, spine, patella, tibia and fibula.
        head_mm: Distance to the centre of the femoral head.
        vessel_mm: Distance to the nearest vessel or nerve.
        cavity_mm: Distance to the abdominal and pelvic cavity.
        skin_mm: Distance to the skin.
    """

    x_mm: Array
    y_mm: Array
    z_mm: Array
    fascia_mm: Array
    muscle_gap_mm: Array
    muscle: npt.NDArray[np.uint8]
    left: npt.NDArray[np.bool_]
    femur_mm: Array
    hip_bone_mm: Array
    other_bone_mm: Array
    head_mm: Array
    vessel_mm: Array
    cavity_mm: Array
    skin_mm: Array


def thigh_geometry(patient: ThighPatient, grid: Grid) -> ThighGeometry:
    """Place a patient's anatomy on a grid.

    Args:
        patient: Whose anatomy.
        grid: Where to evaluate it; z = 0 is the height of the femoral necks.

    Returns:
        Distances to all structures.
    """
    warp = {name: patient.fields[name].on_grid(grid.x_mm, grid.y_mm, grid.z_mm) for name in _WARPS}
    cosine, sine = np.float32(np.cos(patient.roll_rad)), np.float32(np.sin(patient.roll_rad))
    dx = grid.x_mm[:, None, None] - np.float32(patient.off_centre_mm[0])
    dy = grid.y_mm[None, :, None] - np.float32(patient.off_centre_mm[1])
    scale = np.float32(1 / patient.size)
    x = (dx * cosine + dy * sine) * scale + 1.8 * warp["warp_x"]
    y = (dy * cosine - dx * sine) * scale + 1.8 * warp["warp_y"]
    z = (grid.z_mm / np.float32(patient.length)).astype(np.float32)

    far = {name: np.full(grid.shape, FAR_MM, np.float32) for name in _SIDE_DISTANCES}
    muscle, left = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.bool_)
    for side, sign in enumerate((1, -1)):
        columns = np.flatnonzero((sign * x > -30).any(axis=(1, 2)))
        if not len(columns):
            continue
        near = slice(columns[0], columns[-1] + 1)
        shift = patient.side_shift_mm[side]
        u, v, height = sign * x[near] - shift[0], y[near] - shift[1], z - shift[2]
        bones = Space(u, v, height)
        soft = Space(u + 1.3 * sign * warp["muscle_warp_x"][near], v + 1.3 * warp["muscle_warp_y"][near], height)
        here = _bones(bones, patient, side)
        nearest, here["muscle_gap_mm"], index, here["fascia_mm"] = _muscles(soft, patient, side)
        here["vessel_mm"] = nearest_tube(soft, _posed(patient, side, anatomy.VESSELS))
        here["skin_mm"] = _thigh_skin(bones, patient, side, warp["skin_fat"][near])
        own = nearest < far["muscle_mm"][near]
        np.copyto(far["muscle_mm"][near], nearest, where=own)
        np.copyto(muscle[near], index, where=own)
        np.copyto(left[near], side == 1, where=own)
        np.copyto(far["muscle_gap_mm"][near], here.pop("muscle_gap_mm"), where=own)
        for name, distance in here.items():
            np.minimum(far[name][near], distance, out=far[name][near])
    far.pop("muscle_mm")

    cv, half_u, half_v = rows_at(anatomy.CAVITY, z)
    end_mm = np.maximum(anatomy.CAVITY[-1][0] - z, 0)
    cavity = shapes.ellipse(x + warp["muscle_warp_x"], y - cv, half_u, half_v) + end_mm
    far["skin_mm"] = _skin(patient, (x, y, z), far, cavity, warp["skin_fat"])
    return ThighGeometry(x, y, z, muscle=muscle, left=left, cavity_mm=cavity, **far)


_WARPS = ("warp_x", "warp_y", "muscle_warp_x", "muscle_warp_y", "skin_fat")
_SIDE_DISTANCES = ("muscle_mm", "muscle_gap_mm", "fascia_mm", "femur_mm", "hip_bone_mm", "other_bone_mm", "head_mm",
                   "vessel_mm", "skin_mm")  # fmt: skip


def _posed(patient: ThighPatient, side: int, tubes: dict[str, Rows]) -> Iterable[Rows]:
    return [patient.pose_tube(side, nodes) for nodes in tubes.values()]


def _bones(space: Space, patient: ThighPatient, side: int) -> dict[str, Array]:
    """Return the distances to one side's femur, hip bone, other bones and centre of the femoral head."""
    cu, cv, cz = HEAD_CENTRE_MM
    du, dv, dz = space.u - np.float32(cu), space.v - np.float32(cv), space.z - np.float32(cz)
    head = np.sqrt(du * du + dv * dv + dz * dz)
    femur = shapes.smooth_union(nearest_tube(space, _posed(patient, side, anatomy.FEMUR), 6), head - HEAD_RADIUS_MM, 4)

    shell = np.abs(head - (HEAD_RADIUS_MM + SOCKET_GAP_MM + 2.5)) - 2.5
    opening = 0.75 * du + 0.20 * dv - 0.63 * dz - 4
    hip_bone = shapes.smooth_union(nearest_tube(space, anatomy.PELVIS.values(), 6), np.maximum(shell, opening), 10)
    box, wing = section_distance(space, anatomy.ILIAC_WING)
    hip_bone[box] = shapes.smooth_union(hip_bone[box], wing, 8)
    hip_bone = np.maximum(hip_bone, HEAD_RADIUS_MM + SOCKET_GAP_MM - head)

    other = nearest_tube(space, [*anatomy.SPINE.values(), *_posed(patient, side, anatomy.KNEE)], 6)
    return {"femur_mm": femur, "hip_bone_mm": hip_bone, "other_bone_mm": other, "head_mm": head}


def _muscles(space: Space, patient: ThighPatient, side: int) -> tuple[Array, Array, npt.NDArray[np.uint8], Array]:
    """Return distance to the nearest muscle, the lead over the second nearest, which it is, and the fascia."""
    nearest = np.full(space.u.shape, FAR_MM, np.float32)
    second = nearest.copy()
    fascia = nearest.copy()
    index = np.zeros(space.u.shape, np.uint8)
    swell_mm = patient.bulk_mm + float(patient.side_bulk_mm[side]) + REACH_MM
    for number, rows in enumerate(anatomy.MUSCLES.values()):
        jitter = patient.muscle_jitter[side, number]
        own = np.array(rows, float)
        own[:, 1:3] += 1.2 * jitter[:2]
        own[:, 3:5] *= 1 + np.array((0.045, 0.07)) * jitter[2:4]
        own[:, 5] += 2.5 * jitter[4]
        box, distance = section_distance(space, patient.pose(side, tuple(map(tuple, own.tolist()))), swell_mm)
        if not distance.size:
            continue
        so_far = nearest[box]
        closer = distance < so_far
        second[box] = np.where(closer, so_far, np.minimum(second[box], distance))
        np.copyto(index[box], np.uint8(number), where=closer)
        fascia[box] = shapes.smooth_union(fascia[box], distance, _FASCIA_MM)
        nearest[box] = np.minimum(so_far, distance)
    return nearest, second - nearest, index, fascia


def _thigh_skin(space: Space, patient: ThighPatient, side: int, roughness: Array) -> Array:
    """Return the distance to the skin of one thigh, the part above the groin left to the trunk."""
    z, fat = space.z, np.float32(patient.adiposity)
    cu, cv, half_u, half_v = rows_at(patient.pose(side, anatomy.THIGH), z)
    # Fat lies thickest at the top of the thigh and thin at the knee.
    layer = 3 + (4 + 20 * fat) * np.interp(z, (-430, -350, -150, 0), (0.25, 0.3, 0.8, 1.0)).astype(np.float32)
    layer += np.float32(patient.bulk_mm)
    skin = shapes.ellipse(space.u - cu, space.v - cv, half_u + layer, half_v + layer) - 1.2 * roughness
    skin += np.maximum(z - (anatomy.THIGH[0][0] - 20), 0)
    # Two thighs that touch stay two.
    return np.asarray(np.maximum(skin, 0.8 - space.u), dtype=np.float32)


def _skin(
    patient: ThighPatient,
    position_mm: tuple[Array, Array, Array],
    far: dict[str, Array],
    cavity: Array,
    roughness: Array,
) -> Array:
    """Return the distance to the skin of trunk and thighs."""
    x, y, z = position_mm
    fat = np.float32(patient.adiposity)
    half_u, front, back = rows_at(anatomy.TRUNK, z)
    depth = np.where(y > -8, front + 34 * fat, back + 22 * fat)
    trunk = shapes.superellipse(x, y + 8, half_u + 24 * fat, depth, 2.3) - 1.2 * roughness
    trunk += np.maximum(anatomy.TRUNK_END_MM - z, 0) * np.float32(2.2)
    skin = shapes.smooth_union(trunk, far["skin_mm"], 18)
    deep = np.minimum(np.minimum(far["fascia_mm"], cavity + 6), far["other_bone_mm"])
    deep = np.minimum(deep, np.minimum(far["femur_mm"], far["hip_bone_mm"]))
    skin = shapes.smooth_union(skin, deep - (3 + 5 * fat), 10)
    # The cleft between the thighs ends in front of the perineum, the one between the buttocks higher up, behind.
    cleft_mm = np.interp(z, (-80, -56, -10, 60, 80), (120, 20, -66, -100, -200)).astype(np.float32)
    cleft = np.maximum(np.abs(x) - 1.0 - 0.04 * np.maximum(cleft_mm - y, 0), y - cleft_mm)
    return np.asarray(np.maximum(skin, -cleft), dtype=np.float32)
