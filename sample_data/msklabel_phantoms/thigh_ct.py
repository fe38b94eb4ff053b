"""CT of both thighs from hip to knee with 27 muscles, femur and ilium."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.acquisition import band_limited_noise, blur
from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.sections import Grid
from msklabel_phantoms.thigh_geometry import ThighGeometry
from msklabel_phantoms.thigh_patient import ThighPatient, draw_patient
from msklabel_phantoms.thigh_scan import label, paint, patient_facts, slabs, view, volumes_cm3
from msklabel_phantoms.thigh_tissues import layers

Array = npt.NDArray[np.float32]

# Left and right share a label (Kim et al. 2024).
LABELS = {
    name: index
    for index, name in enumerate(
        (
            "sartorius", "rectus_femoris", "vastus_lateralis", "vastus_intermedius", "vastus_medialis",
            "adductor_magnus", "adductor_brevis", "adductor_longus", "gracilis", "pectineus",
            "semitendinosus", "semimembranosus", "biceps_femoris",
            "gluteus_maximus", "gluteus_medius", "gluteus_minimus", "tensor_fasciae_latae", "piriformis",
            "obturator_internus", "obturator_externus", "quadratus_femoris",
            "iliacus", "iliopsoas", "psoas", "abdominal_oblique", "rectus_abdominis", "multifidus",
            "femur", "iliac_bone",
        ),
        start=1,
    )
}  # fmt: skip
_PARTS = {
    "biceps_femoris_long_head": "biceps_femoris",
    "biceps_femoris_short_head": "biceps_femoris",
    "gemelli": "obturator_internus",
    "ilium": "iliac_bone",
}
_LABEL_OF = {**LABELS, **{part: LABELS[whole] for part, whole in _PARTS.items()}}

AIR_HU, FAT_HU, MUSCLE_HU = -1000.0, -104.0, 60.0
_HU = {"skin": 20.0, "fat": FAT_HU, "organ": 35.0, "gas": -850.0, "muscle": MUSCLE_HU, "vessel": 42.0,
       "fluid": 35.0}  # fmt: skip
_BLUR_MM = 1.6
_NOISE_CUTOFF_PER_MM = 0.18
# Middle of the view over the femoral necks: from the iliac crest to the knee in 576 mm.
_CENTRE_MM = (0.0, -8.0, -146.0)


def generate_thigh_ct(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] = (96, 64, 96),
    spacing_mm: Sequence[float] = (4.5, 4.5, 6.0),
) -> Phantom:
    """Generate a CT of both thighs of one elderly patient, from the iliac crest to the knee.

    One state of ``rng`` is one patient: other shapes and spacings show the same anatomy.

    Args:
        rng: Source of randomness.
        shape: Voxels along right, anterior and superior.
        spacing_mm: Voxel size along the same axes in mm.

    Returns:
        HU, labels as in ``LABELS``, geometry and facts.

    Raises:
        ValueError: A shape or spacing is not three positive numbers.
    """
    seen = view(shape, spacing_mm, _CENTRE_MM)
    infiltration = float(np.clip(0.05 + 0.22 * rng.beta(1.5, 3.0), 0.05, 0.27))
    noise_sd_hu = float(rng.uniform(6, 14))
    patient = draw_patient(rng, (60, 90), infiltration)
    smi_kg_per_m2 = (7.4 if patient.sex == "M" else 5.9) + 0.6 * patient.bulk_mm + float(rng.normal(-0.3, 0.35))
    affine = seen.affine(table_z_mm=float(rng.integers(-900, -500)))

    image_hu = np.empty(seen.shape, np.float32)
    labels = np.empty(seen.shape, np.uint8)
    muscle_hu_sum, muscle_voxels = 0.0, 0
    muscles = tuple(LABELS[name] for name in LABELS if name not in ("femur", "iliac_bone"))
    for here, grid, geometry in slabs(patient, seen):
        ideal_hu = _ideal(patient, grid, geometry, seen.in_plane_mm)
        labels[..., here] = label(geometry, _LABEL_OF)
        in_muscle = np.isin(labels[..., here], muscles)
        muscle_hu_sum += float(ideal_hu[in_muscle].sum(dtype=np.float64))
        muscle_voxels += int(in_muscle.sum())
        noise = band_limited_noise(rng, ideal_hu.shape, seen.spacing_mm, _NOISE_CUTOFF_PER_MM)
        # Photons that crossed the most tissue are the fewest.
        depth = np.exp(-np.square(grid.x_mm / 190)[:, None] - np.square(grid.y_mm / 130)[None, :])[..., None]
        image = blur(ideal_hu, _BLUR_MM, seen.spacing_mm) + noise_sd_hu * (0.4 + 0.6 * depth) * noise
        image_hu[..., here] = np.rint(np.clip(image, -1024, 3071))

    facts = {
        **patient_facts(patient),
        "smi_kg_per_m2": round(smi_kg_per_m2, 2),
        "fat_infiltration": round(infiltration, 3),
        "noise_sd_hu": round(noise_sd_hu, 1),
        "muscle_mean_hu": round(muscle_hu_sum / muscle_voxels, 2) if muscle_voxels else float("nan"),
        **volumes_cm3(labels, LABELS, seen),
    }
    return Phantom(image_hu[None], labels, affine, facts)


def _ideal(patient: ThighPatient, grid: Grid, geometry: ThighGeometry, voxel_mm: float) -> Array:
    """Return the noise-free image in HU."""
    texture = patient.fields["texture"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
    # Osteoporotic marrow is fat in the shaft and bone in the head.
    head = np.clip((42 - geometry.head_mm) / 20, 0, 1)
    values: dict[str, float | Array] = {
        **_HU,
        "muscle": MUSCLE_HU - 0.08 * (patient.age_years - 60) + 3 * texture,
        "cortex": 1050.0 - 6.0 * (patient.age_years - 60),
        "marrow": np.where(geometry.femur_mm < geometry.hip_bone_mm, 0 + 190 * head, np.float32(90)) + 45 * texture,
    }
    canvas = np.full(grid.shape, AIR_HU, np.float32)
    table_mm = grid.y_mm[None, :, None] + np.float32(146) - np.square(grid.x_mm / 45)[:, None, None]
    np.copyto(canvas, np.float32(-120), where=np.abs(table_mm) < max(2.0, voxel_mm / 2))
    return paint(canvas, layers(patient, grid, geometry, voxel_mm), values)
