"""What the structures of a hip are made of: compartments and noise-free HU on a fine voxel grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from msklabel_phantoms import shapes
from msklabel_phantoms.hip_anatomy import HEAD_RADIUS_MM, MUSCLES
from msklabel_phantoms.hip_geometry import HipGeometry
from msklabel_phantoms.hip_patient import HipPatient
from msklabel_phantoms.random_fields import sheets, smooth_step
from msklabel_phantoms.sections import Grid

Array = npt.NDArray[np.float32]

# Compartments of the fine grid.
OUTSIDE, SUBCUTANEOUS, DEEP, MARROW, CORTEX = range(5)
AIR_HU = -1000.0
SKIN_MM = 1.6
_GLUTEUS_MAXIMUS = list(MUSCLES).index("gluteus_maximus")
# Muscles that fat infiltrates first, relative to the others.
_SUSCEPTIBLE = {"gluteus_maximus": 1.5, "gluteus_minimus": 1.5, "tensor_fasciae_latae": 1.4, "gluteus_medius": 1.1,
                "iliopsoas": 0.5, "rectus_femoris": 0.7, "obturator_externus": 0.6}  # fmt: skip


@dataclass(frozen=True)
class HipTissues:
    """The ideal scan, every array of shape (X, Y, Z).

    Attributes:
        hu: Density of everything, HU.
        compartment: OUTSIDE (air, skin, organs, vessels, joint, metal), SUBCUTANEOUS, DEEP, MARROW or CORTEX.
        soft_hu: Density of muscle and fat alone, continued under everything else.
        metal: True inside the implant.
    """

    hu: Array
    compartment: npt.NDArray[np.uint8]
    soft_hu: Array
    metal: npt.NDArray[np.bool_]


def hip_tissues(patient: HipPatient, grid: Grid, geometry: HipGeometry) -> HipTissues:
    """Fill a patient's anatomy with tissue.

    Args:
        patient: Whose tissue.
        grid: The fine voxel grid.
        geometry: The patient's anatomy on that grid.

    Returns:
        Density and compartment of every fine voxel.
    """
    field = {name: patient.fields[name].on_grid(grid.x_mm, grid.y_mm, grid.z_mm) for name in _TISSUE_FIELDS}
    bone_mm = np.minimum(geometry.femur_mm, geometry.pelvis_mm)
    fascia_mm = _fascia(geometry, bone_mm)
    skin_mm, back_mm = _skin(patient, geometry, fascia_mm, field["skin_fat"])
    fascia_mm = np.maximum(fascia_mm, skin_mm + 3)

    soft_hu = _soft_tissue(patient, geometry, field)
    marrow_hu = _marrow(patient, geometry, field)
    subcutaneous_hu = np.float32(patient.fat_hu) + 55 * sheets(field["septa"], 0.07) + 3 * field["muscle_texture"]

    hu = _table(geometry, back_mm)
    compartment = np.full(grid.shape, OUTSIDE, np.uint8)

    def fill(where: npt.NDArray[np.bool_], density: Array | float, kind: int) -> None:
        np.copyto(hu, np.asarray(density, np.float32), where=where)
        np.copyto(compartment, np.uint8(kind), where=where)

    fill(skin_mm < 0, 25.0, OUTSIDE)
    fill(skin_mm < -SKIN_MM, subcutaneous_hu, SUBCUTANEOUS)
    fill(fascia_mm < 0, soft_hu, DEEP)
    np.maximum(hu, -40, out=hu, where=np.abs(fascia_mm + 0.4) < 0.5)
    cavity = (geometry.cavity_mm < np.minimum(geometry.muscle_mm, 0)) | (
        (geometry.cavity_mm < 14) & (geometry.muscle_mm > 0.5)
    )
    fill(cavity, _organs(patient, geometry, field), OUTSIDE)
    joint = (geometry.head_mm < HEAD_RADIUS_MM + 4.5) | ((geometry.femur_mm < 2.5) & (geometry.head_mm < 44))
    fill(joint, 65.0, OUTSIDE)
    fill((geometry.vessel_mm < 0) & (bone_mm > 2) & (skin_mm < -3), 42.0, OUTSIDE)

    cortex_mm = _cortex_thickness(patient, geometry, field["cortex"])
    cortex_hu = np.float32(patient.cortex_hu) * (0.72 + 0.28 * smooth_step(cortex_mm, 1.2, 5)) + 35 * field["marrow"]
    fill(bone_mm < 0, cortex_hu, CORTEX)
    fill(bone_mm < -cortex_mm, marrow_hu, MARROW)
    metal = geometry.metal_mm < 0
    fill(metal, 3000.0, OUTSIDE)
    return HipTissues(hu, compartment, soft_hu, metal)


_TISSUE_FIELDS = ("fat_planes", "infiltration", "streaks", "long_streaks", "muscle_texture", "skin_fat", "septa",
                  "marrow", "trabeculae", "cortex", "bowel", "gas")  # fmt: skip


def _fascia(geometry: HipGeometry, bone_mm: Array) -> Array:
    """Return the distance to the deep fascia: on either side a wrap around muscles, bones and cavity.

    Seen from the hip joint the wrap is a closed curve: the outermost structure in every direction, with dips
    narrower than a muscle bridged.
    """
    deep = np.minimum(np.minimum(geometry.muscle_mm, bone_mm + 2), geometry.cavity_mm) < 0
    fascia = np.full(deep.shape, np.float32(200))
    slices = np.arange(deep.shape[2])
    bins = 120
    for sign in (1, -1):
        columns = np.flatnonzero((sign * geometry.x_mm[:, :: max(deep.shape[1] - 1, 1)] > -12).any(axis=(1, 2)))
        if not len(columns):
            continue
        near = slice(columns[0], columns[-1] + 1)
        du, dv = sign * geometry.x_mm[near] - 85, geometry.y_mm[near] + 8
        radius = np.hypot(du, dv)
        # Whole numbers of this angle are the middles of the bins.
        turn = (np.arctan2(dv, du) + np.float32(np.pi)) * np.float32(bins / (2 * np.pi))
        where = np.nonzero(deep[near])
        reach = np.zeros((bins, deep.shape[2]), np.float32)
        np.maximum.at(reach, ((turn[where] + 0.5).astype(np.int32) % bins, where[2]), radius[where])
        reach = ndimage.grey_closing(reach, size=(9, 1), mode="wrap")
        reach = ndimage.gaussian_filter(reach, (1.5, 0.5), mode=("wrap", "nearest")) + np.float32(1.5)
        low = turn.astype(np.int32)
        part = turn - low
        limit = reach[low % bins, slices] * (1 - part) + reach[(low + 1) % bins, slices] * part
        np.minimum(fascia[near], radius - limit, out=fascia[near])
    return fascia


def _skin(patient: HipPatient, geometry: HipGeometry, fascia_mm: Array, roughness: Array) -> tuple[Array, Array]:
    """Return the distance to the skin and, over (X, Y, Z), the distance behind the back's lowest line."""
    fat = np.float32(patient.adiposity)
    x, y, z = geometry.x_mm, geometry.y_mm, geometry.z_mm
    half_width = (168 + 25 * fat + 0.12 * np.clip(z, -80, 80)).astype(np.float32)
    front, back = np.float32(93 + 38 * fat), np.float32(110 + 28 * fat)
    belly = (front + 0.18 * np.clip(z, -60, 60) * (0.3 + fat)).astype(np.float32)
    depth = np.where(y > -8, belly + 8, back)
    skin = shapes.superellipse(x, y + 8, half_width, depth, patient.outline_exponent) + 1.5 * roughness
    skin = shapes.smooth_union(skin, np.minimum(fascia_mm, geometry.vessel_mm) - (5 + 7 * fat), 14)

    # The table flattens the buttocks along the curve of its top.
    back_mm = y + (back + 1) - np.square(x) / 1500
    skin = np.maximum(skin, -back_mm)
    # Between the buttocks and, farther down, between the thighs lies a fold of skin.
    fold_front = np.interp(z, (-120, -50, -10, 40, 60), (10, -45, -72, -100, -140)).astype(np.float32)
    fold = np.abs(x) - np.maximum(0.06 * (fold_front - 30 - y), -0.2)
    skin = np.maximum(skin, -np.maximum(fold, y - fold_front))
    return skin, back_mm


def _table(geometry: HipGeometry, back_mm: Array) -> Array:
    """Return the density of the air with the table and its pad under the patient."""
    hu = np.full(back_mm.shape, AIR_HU, np.float32)
    on_table = np.abs(geometry.x_mm) < 215
    np.copyto(hu, np.float32(-940), where=on_table & (back_mm < -2) & (back_mm > -14))
    np.copyto(hu, np.float32(-965), where=on_table & (back_mm < -14) & (back_mm > -60))
    np.copyto(hu, np.float32(-120), where=on_table & (np.abs(back_mm + 15) < 1.4))
    return hu


def _soft_tissue(patient: HipPatient, geometry: HipGeometry, field: dict[str, Array]) -> Array:
    """Return the density of muscle with fat planes between and streaks of fat within."""
    plane_mm = np.maximum(patient.fat_plane_mm * (1 + 0.35 * field["fat_planes"]), 0.5)
    apart = np.clip((geometry.muscle_gap_mm - plane_mm) / 1.4 + 0.5, 0, 1)
    inside = np.clip((1.5 - geometry.muscle_mm) / 1.6 + 0.5, 0, 1)

    susceptible = np.array([_SUSCEPTIBLE.get(name, 1.0) for name in MUSCLES], np.float32)[geometry.muscle]
    severity = np.float32(patient.infiltration) * susceptible * (1 + 0.9 * field["infiltration"])
    width = np.clip(0.05 + 0.55 * severity, 0.02, 0.8)
    streaks = np.where(
        geometry.muscle == _GLUTEUS_MAXIMUS, sheets(field["long_streaks"], width), sheets(field["streaks"], width)
    )
    fat = np.clip(streaks * np.clip(0.25 + 1.8 * severity, 0, 1) + 0.10 * np.clip(severity, 0, 1), 0, 0.95)
    muscle_share = apart * inside * (1 - fat)
    muscle_hu = np.float32(patient.muscle_hu) + 3 * field["muscle_texture"] + 2 * field["infiltration"]
    fat_hu = np.float32(patient.fat_hu) + 4 * field["muscle_texture"]
    return np.asarray(fat_hu + (muscle_hu - fat_hu) * muscle_share, dtype=np.float32)


def _marrow(patient: HipPatient, geometry: HipGeometry, field: dict[str, Array]) -> Array:
    """Return the density inside bone: dense under load, fatty in the shaft and greater trochanter."""
    head = smooth_step(geometry.head_mm, 34, 4)
    shaft = smooth_step(geometry.z_mm, -18, -60)
    in_femur = np.float32(55) + 165 * head - 125 * shaft
    texture = 66 * field["marrow"] + 30 * field["trabeculae"]
    # Trabeculae stand densest just under the cortex.
    rim = smooth_step(np.minimum(geometry.femur_mm, geometry.pelvis_mm), -7, -1)
    mean = np.where(geometry.femur_mm < geometry.pelvis_mm, in_femur, np.float32(95)) + 50 * rim
    return np.asarray(np.clip(mean + np.float32(patient.marrow_hu) + texture, -95, 290), dtype=np.float32)


def _cortex_thickness(patient: HipPatient, geometry: HipGeometry, variation: Array) -> Array:
    """Return the thickness of the cortex at every point, in mm: thick in the shaft and calcar, thin elsewhere."""
    heights, thicknesses_mm = (-90, -60, -40, -22, -8, 10), (7.0, 6.0, 4.2, 2.8, 2.0, 1.5)
    femur_mm = np.interp(geometry.z_mm, heights, thicknesses_mm).astype(np.float32)
    du, dv, dz = np.abs(geometry.x_mm) - 103, geometry.y_mm + 8, geometry.z_mm + 14
    calcar = np.exp(-(du * du + dv * dv + dz * dz) / 260)
    thickness = np.where(geometry.femur_mm < geometry.pelvis_mm, femur_mm + 2.2 * calcar, np.float32(1.9))
    return np.asarray(thickness * np.float32(patient.cortex_scale) * (1 + 0.15 * variation), dtype=np.float32)


def _organs(patient: HipPatient, geometry: HipGeometry, field: dict[str, Array]) -> Array:
    """Return the density in the pelvic cavity: fat, bowel with gas, bladder, prostate, rectum, pelvic floor."""
    x, y, z, full = geometry.x_mm, geometry.y_mm, geometry.z_mm, patient.bladder
    hu = np.float32(patient.fat_hu) + 6 * field["muscle_texture"] + 90 * sheets(field["septa"], 0.12)
    bowel = np.minimum(0.8 * field["bowel"] + smooth_step(z, 20, 70) - 0.55, -0.2 * (geometry.cavity_mm + 5))
    np.copyto(hu, np.float32(38), where=bowel > 0)
    np.copyto(hu, np.float32(-860), where=(bowel > 0.3) & (field["gas"] > 0.9))
    wave = 2 * field["bowel"]
    bladder = shapes.ellipsoid((x, y - 22 - 8 * full, z - 34), (44 * full, 38 * full, 38 * full)) + wave
    np.copyto(hu, np.float32(42), where=bladder < 3)
    np.copyto(hu, np.float32(8), where=bladder < 0)
    prostate = shapes.ellipsoid((x, y - 4, z + 10), (23, 19, 19)) + wave
    np.copyto(hu, np.float32(44), where=prostate < 0)
    np.copyto(hu, np.float32(40), where=shapes.ellipsoid((x, y + 22, z - 14), (26, 7, 10)) + wave < 0)
    rectum = shapes.ellipse(x + 4 * field["fat_planes"], y + 38 + 0.15 * z, 17, 15) + wave
    np.copyto(hu, np.float32(40), where=rectum < 0)
    content = np.where(field["gas"] > 0.4, np.float32(-870), 15 + 35 * field["streaks"])
    np.copyto(hu, content, where=(rectum < -5) & (z > -12))
    np.copyto(hu, np.float32(48), where=(np.abs(geometry.cavity_mm + 1.2) < 1.2) & (z < 10))
    return hu
