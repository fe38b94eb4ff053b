"""CT of the proximal hip with seven tissues: an axial slab around the femoral necks, both hips in view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.acquisition import band_limited_noise, block_mean, blur, metal_streaks, voxel_centres_mm
from msklabel_phantoms.hip_geometry import hip_geometry
from msklabel_phantoms.hip_patient import SITES, HipPatient, draw_patient
from msklabel_phantoms.hip_tissues import CORTEX, DEEP, MARROW, SUBCUTANEOUS, HipTissues, hip_tissues
from msklabel_phantoms.phantom import Fact, Phantom
from msklabel_phantoms.sections import Grid

Array = npt.NDArray[np.float32]

LABELS = {
    "cortical_bone": 1,
    "trabecular_bone": 2,
    "haematopoietic_bone_marrow": 3,
    "marrow_adipose_tissue": 4,
    "muscle": 5,
    "intermuscular_adipose_tissue": 6,
    "subcutaneous_adipose_tissue": 7,
}
# Thresholds between tissues of one compartment, HU (Imani et al. 2025, doi:10.1002/jcsm.13728).
CORTICAL_LOWER_HU, TRABECULAR_LOWER_HU, HAEMATOPOIETIC_LOWER_HU, MUSCLE_LOWER_HU = 300, 150, 50, -30
# Thin structures need finer voxels than a coarse scan has.
_FINEST_MM = 1.5


def generate_hip_ct(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] = (160, 120, 8),
    spacing_mm: Sequence[float] = (2.6, 2.6, 3.0),
    metal: bool | None = None,
) -> Phantom:
    """Generate a CT slab of the proximal hip of one elderly man.

    One state of ``rng`` is one patient: other shapes and spacings show the same anatomy.

    Args:
        rng: Source of randomness.
        shape: Voxels along right, anterior and superior.
        spacing_mm: Voxel size along the same axes in mm.
        metal: Whether one femur holds an implant; None leaves it to chance (3 %).

    Returns:
        HU, labels as in ``LABELS`` (skin, organs, vessels, nerves, joint and metal are 0), geometry and facts.

    Raises:
        ValueError: A shape or spacing is not three positive numbers.
    """
    if len(shape) != 3 or len(spacing_mm) != 3 or min(shape) < 1 or min(spacing_mm) <= 0:
        raise ValueError(f"expected three positive sizes and spacings, got {tuple(shape)} and {tuple(spacing_mm)}")
    patient = draw_patient(rng, metal)
    subdivision = max(1, int(np.ceil(max(spacing_mm[:2]) / _FINEST_MM)))
    grid = Grid(
        voxel_centres_mm(shape[0], spacing_mm[0], subdivision),
        voxel_centres_mm(shape[1], spacing_mm[1], subdivision),
        voxel_centres_mm(shape[2], spacing_mm[2]),
    )
    tissues = hip_tissues(patient, grid, hip_geometry(patient, grid))
    ideal_hu = _sample(tissues.hu, patient, spacing_mm, subdivision)
    labels = _label(tissues, ideal_hu, subdivision)
    table_z_mm = float(rng.integers(-900, -500))
    image_hu = _scan(rng, ideal_hu, block_mean(tissues.metal, subdivision), patient, spacing_mm)

    affine = np.diag([*spacing_mm, 1.0]).astype(np.float64)
    affine[:3, 3] = -(np.asarray(shape) - 1) / 2 * np.asarray(spacing_mm) + (0, 0, table_z_mm)
    return Phantom(image_hu[None], labels, affine, _facts(patient, labels, ideal_hu, spacing_mm))


def _label(tissues: HipTissues, ideal_hu: Array, subdivision: int) -> npt.NDArray[np.uint8]:
    """Return what an annotator would draw without noise: the compartment by anatomy, the tissue in it by HU.

    Where bone's blur brightens its neighbours anatomy wins: marrow without any cortex in the voxel is never
    cortical, and fat beside bone stays fat.
    """
    kinds = (MARROW, CORTEX, DEEP, SUBCUTANEOUS)
    marrow, cortex, deep, subcutaneous = (block_mean(tissues.compartment == kind, subdivision) for kind in kinds)
    bone = marrow + cortex
    bone_tissue = np.select(
        [
            (cortex > marrow) | ((cortex > 0) & (ideal_hu >= CORTICAL_LOWER_HU)),
            ideal_hu >= TRABECULAR_LOWER_HU,
            ideal_hu >= HAEMATOPOIETIC_LOWER_HU,
        ],
        [LABELS["cortical_bone"], LABELS["trabecular_bone"], LABELS["haematopoietic_bone_marrow"]],
        LABELS["marrow_adipose_tissue"],
    )
    fat = block_mean(tissues.soft_hu, subdivision) < MUSCLE_LOWER_HU
    deep_tissue = np.where(fat, LABELS["intermuscular_adipose_tissue"], LABELS["muscle"])
    under_skin = np.full(fat.shape, LABELS["subcutaneous_adipose_tissue"])
    largest = np.argmax(np.stack([bone, deep, subcutaneous, 1 - bone - deep - subcutaneous]), axis=0)
    return np.choose(largest, [bone_tissue, deep_tissue, under_skin, np.zeros_like(under_skin)]).astype(np.uint8)


def _sample(hu: Array, patient: HipPatient, spacing_mm: Sequence[float], subdivision: int) -> Array:
    """Return the noise-free image on the voxel grid, as the site's scanner sees it."""
    fine_mm = [spacing_mm[0] / subdivision, spacing_mm[1] / subdivision]
    return block_mean(blur(hu, SITES[patient.site].blur_mm, fine_mm), subdivision)


def _scan(
    rng: np.random.Generator, ideal_hu: Array, metal: Array, patient: HipPatient, spacing_mm: Sequence[float]
) -> Array:
    """Return the image with the site's calibration, noise and, around metal, streaks, in whole HU."""
    site = SITES[patient.site]
    x_mm = voxel_centres_mm(ideal_hu.shape[0], spacing_mm[0]) - np.float32(patient.off_centre_mm[0])
    y_mm = voxel_centres_mm(ideal_hu.shape[1], spacing_mm[1]) - np.float32(patient.off_centre_mm[1])
    tissue = np.clip((ideal_hu + 1000) / 800, 0, 1)
    image = ideal_hu + site.hu_offset * tissue
    image += 170 * metal_streaks(rng, metal, x_mm, y_mm) * (0.15 + 0.85 * tissue)
    # Photons that crossed the most tissue are the fewest.
    depth = np.exp(-np.square(x_mm / 190)[:, None] - np.square(y_mm / 130)[None, :])[..., None]
    noise = band_limited_noise(rng, ideal_hu.shape, spacing_mm, site.noise_cutoff_per_mm)
    image += patient.noise_sd_hu * (0.35 + 0.65 * depth * (0.5 + 0.5 * tissue)) * noise
    return np.rint(np.clip(image, -1024, 3071)).astype(np.float32)


def _facts(
    patient: HipPatient, labels: npt.NDArray[np.uint8], ideal_hu: Array, spacing_mm: Sequence[float]
) -> dict[str, Fact]:
    """Return what is known about the scan: the patient, the scanner, and the truth of what one measures."""
    voxel_cm3 = float(np.prod(spacing_mm)) / 1000
    muscle = labels == LABELS["muscle"]
    facts: dict[str, Fact] = {
        "patient_id": patient.patient_id,
        "site": patient.site,
        "sex": "M",
        "age_years": patient.age_years,
        "height_cm": patient.height_cm,
        "body_scale": round(patient.size, 3),
        "adiposity": round(patient.adiposity, 3),
        "fat_infiltration": round(patient.infiltration, 3),
        "slab_centre_mm": round(patient.slab_centre_mm, 1),
        "metal": ("none", "right", "left")[patient.metal_side + 1],
        "noise_sd_hu": round(patient.noise_sd_hu, 1),
        "hu_offset": SITES[patient.site].hu_offset,
        "muscle_mean_hu": round(float(ideal_hu[muscle].mean()) if muscle.any() else float("nan"), 2),
    }
    for name, label in LABELS.items():
        facts[f"{name}_cm3"] = round(float((labels == label).sum()) * voxel_cm3, 2)
    return facts
