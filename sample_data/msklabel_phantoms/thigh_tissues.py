"""What the structures of the thighs are made of: layers of tissue to paint, the same for every scanner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.hip_anatomy import HEAD_RADIUS_MM
from msklabel_phantoms.sections import Grid
from msklabel_phantoms.thigh_anatomy import ILIUM_FROM_MM, MUSCLES
from msklabel_phantoms.thigh_geometry import ThighGeometry
from msklabel_phantoms.thigh_patient import ThighPatient

Array = npt.NDArray[np.float32]
SKIN_MM = 1.6
# Thickness of the femur's cortex (z, mm), and of all other bones.
_CORTEX_MM = ((-400, 1.5), (-350, 2.5), (-280, 5.0), (-100, 6.0), (-40, 4.0), (-10, 2.0), (10, 1.6))
_THIN_CORTEX_MM = 1.8

STRUCTURES: dict[str, int] = {name: index for index, name in enumerate([*MUSCLES, "femur", "ilium"], start=1)}


@dataclass(frozen=True)
class Layer:
    """A tissue painted over what was painted before.

    Attributes:
        tissue: Its name: fat, muscle, skin, organ, gas, fluid, vessel, cortex or marrow.
        share: How much of each voxel it covers, 0 to 1, shape (X, Y, Z).
    """

    tissue: str
    share: Array


def layers(patient: ThighPatient, grid: Grid, geometry: ThighGeometry, voxel_mm: float) -> Iterator[Layer]:
    """Yield a patient's tissues from the skin inward; before the first there is air.

    Args:
        patient: Whose tissues.
        grid: The voxel grid.
        geometry: The patient's anatomy on that grid.
        voxel_mm: Edge of a voxel in-plane: partial volume blends tissues over this distance.

    Yields:
        One layer after the other. Muscle leaves the fat layer under it uncovered where it holds fat itself.
    """
    h = np.float32(voxel_mm / patient.size)
    bone_mm = np.minimum(np.minimum(geometry.femur_mm, geometry.hip_bone_mm), geometry.other_bone_mm)
    yield Layer("skin", coverage(geometry.skin_mm, h))
    yield Layer("fat", coverage(geometry.skin_mm + SKIN_MM, h))
    bowel = patient.fields["bowel"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
    yield Layer("organ", coverage(geometry.cavity_mm + 4, h) * np.clip(0.75 + 0.9 * bowel, 0, 1))
    yield Layer("gas", coverage(geometry.cavity_mm + 14, h) * np.clip(4 * (bowel - 1.8), 0, 1))

    inside = coverage(geometry.fascia_mm, h)
    septa = _septa(patient, grid, geometry, h)
    yield Layer("fat", inside)
    yield Layer("muscle", inside * (1 - septa) * (1 - muscle_fat(patient, grid, geometry)))
    yield Layer("vessel", coverage(np.maximum(geometry.vessel_mm, geometry.skin_mm + 2 * SKIN_MM), h))
    joint = np.minimum(geometry.head_mm - HEAD_RADIUS_MM - 4.5, _knee_joint(geometry))
    yield Layer("fluid", coverage(np.maximum(joint, geometry.skin_mm + 4), h))
    yield Layer("cortex", coverage(bone_mm, h))
    in_femur = geometry.femur_mm <= np.minimum(geometry.hip_bone_mm, geometry.other_bone_mm)
    heights_mm, thicknesses_mm = np.array(_CORTEX_MM).T
    shaft_mm = np.interp(geometry.z_mm, heights_mm, thicknesses_mm).astype(np.float32)
    yield Layer("marrow", coverage(bone_mm + np.where(in_femur, shaft_mm, np.float32(_THIN_CORTEX_MM)), h))


def structures(geometry: ThighGeometry) -> npt.NDArray[np.uint8]:
    """Return which structure each voxel's centre lies in.

    Args:
        geometry: The anatomy.

    Returns:
        0 for none, 1 + index for a muscle of ``MUSCLES``, then ``STRUCTURES``' femur and ilium, shape (X, Y, Z).
    """
    within = np.where(geometry.fascia_mm < 0, geometry.muscle + np.uint8(1), np.uint8(0))
    np.copyto(within, np.uint8(0), where=geometry.vessel_mm < 0)
    bone_mm = np.minimum(np.minimum(geometry.femur_mm, geometry.hip_bone_mm), geometry.other_bone_mm)
    ilium = (geometry.hip_bone_mm < 0) & (geometry.z_mm > ILIUM_FROM_MM)
    np.copyto(within, np.uint8(0), where=(bone_mm < 0) | (geometry.head_mm < HEAD_RADIUS_MM + 4.5))
    np.copyto(within, np.uint8(STRUCTURES["ilium"]), where=ilium)
    np.copyto(within, np.uint8(STRUCTURES["femur"]), where=geometry.femur_mm < 0)
    return within


def coverage(distance_mm: Array, voxel_mm: np.float32) -> Array:
    """Return how much of a voxel lies inside a surface at a signed distance from its centre, 0 to 1."""
    return np.asarray(np.clip(0.5 - distance_mm / voxel_mm, 0, 1), dtype=np.float32)


def muscle_fat(patient: ThighPatient, grid: Grid, geometry: ThighGeometry) -> Array:
    """Return fat's share of muscle, in patches and streaks around the mean of each muscle, 0 to 1."""
    patches = patient.fields["patches"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
    streaks = patient.fields["streaks"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
    mean = patient.muscle_fat_logit[geometry.left.astype(np.uint8), geometry.muscle]
    return np.asarray(1 / (1 + np.exp(-(mean + 0.7 * patches + 0.35 * streaks))), dtype=np.float32)


def _septa(patient: ThighPatient, grid: Grid, geometry: ThighGeometry, voxel_mm: np.float32) -> Array:
    """Return how much of each voxel is fat between two muscles."""
    waves = patient.fields["fat_planes"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
    half_mm = np.clip(np.float32(patient.septum_mm) * (1 + 0.35 * waves), 0.3, 4) / 2
    # The plane between two muscles is half as far away as the second is farther than the first.
    plane_mm, half_voxel = geometry.muscle_gap_mm / 2, voxel_mm / 2
    covered = np.minimum(plane_mm + half_voxel, half_mm) - np.maximum(plane_mm - half_voxel, -half_mm)
    return np.asarray(np.clip(covered / voxel_mm, 0, 1), dtype=np.float32)


def _knee_joint(geometry: ThighGeometry) -> Array:
    """Return the distance to the cartilage and fluid between femur, tibia and patella."""
    return np.asarray((geometry.femur_mm + geometry.other_bone_mm) / 2 - 2.5 + 5 * (geometry.z_mm > -340), np.float32)
