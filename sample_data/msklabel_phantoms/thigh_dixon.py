"""Dixon MR of both thighs from knee to hip with 18 muscles that fat replaces to very different degrees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.acquisition import blur, voxel_centres_mm
from msklabel_phantoms.phantom import Fact, Phantom
from msklabel_phantoms.random_fields import SmoothField
from msklabel_phantoms.sections import Grid
from msklabel_phantoms.thigh_geometry import ThighGeometry
from msklabel_phantoms.thigh_patient import ThighPatient, draw_patient
from msklabel_phantoms.thigh_scan import View, label, paint, patient_facts, slabs, view, volumes_cm3
from msklabel_phantoms.thigh_tissues import layers

Array = npt.NDArray[np.float32]

# Left and right share a label (Huysmans et al. 2023, table 1).
LABELS = {
    name: index
    for index, name in enumerate(
        (
            "rectus_femoris", "vastus_lateralis", "vastus_medialis", "vastus_intermedius",
            "pectineus", "adductor_brevis", "adductor_longus", "adductor_magnus",
            "biceps_femoris_long_head", "biceps_femoris_short_head", "semitendinosus", "semimembranosus",
            "sartorius", "tensor_fasciae_latae", "gracilis", "gluteus_maximus", "gluteus_medius", "gluteus_minimus",
        ),
        start=1,
    )
}  # fmt: skip

# Water and fat signal of each tissue, in stored units. Fat has some water, and pure muscle a little fat in its cells.
WATER_FAT = {
    "skin": (700, 300), "fat": (90, 1900), "organ": (1500, 40), "gas": (0, 0), "muscle": (1480, 25),
    "vessel": (1700, 20), "fluid": (1300, 40), "cortex": (70, 25), "marrow": (220, 1600),
}  # fmt: skip
STAGES = {"low": (0.01, 0.075), "high": (0.25, 0.75)}
_LOW_STAGE_CHANCE = 0.7
_BLUR_MM = 1.2
_BIAS = 0.13
# Middle of the view over the femoral necks.
_CENTRE_MM = (0.0, -6.0, -156.0)


def dixon_water_fat(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] = (96, 56, 88),
    spacing_mm: Sequence[float] = (4.8, 4.8, 6.0),
    stage: str | None = None,
) -> Phantom:
    """Generate the water and fat signal of both thighs, without noise and with an even coil.

    One state of ``rng`` is one patient: other shapes and spacings show the same anatomy, and
    ``generate_thigh_dixon`` shows the same patient as a scanner stores it.

    Args:
        rng: Source of randomness.
        shape: Voxels along right, anterior and superior.
        spacing_mm: Voxel size along the same axes in mm.
        stage: ``low`` (healthy to mild: the mean muscle holds up to 7.5 % fat, the planes between muscles not counted)
            or ``high`` (25 to 75 %); None leaves it to chance.

    Returns:
        Channels water and fat in stored units, labels as in ``LABELS``, geometry and facts: the stage, and the mean
        fat fraction, fat / (fat + water) in %, of all labelled voxels and of each label.

    Raises:
        ValueError: A shape or spacing is not three positive numbers, or there is no such stage.
    """
    seen = view(shape, spacing_mm, _CENTRE_MM)
    chance, position = rng.random(), rng.random()
    if stage is None:
        stage = "low" if chance < _LOW_STAGE_CHANCE else "high"
    if stage not in STAGES:
        raise ValueError(f"no stage {stage!r}; there are: {', '.join(STAGES)}")
    lower, upper = STAGES[stage]
    # Most of the low stage is healthy.
    infiltration = lower + (upper - lower) * (position**2 if stage == "low" else position)
    patient = draw_patient(rng, (19, 70), infiltration)

    water_fat = np.empty((2, *seen.shape), np.float32)
    labels = np.empty(seen.shape, np.uint8)
    for here, grid, geometry in slabs(patient, seen):
        labels[..., here] = label(geometry, LABELS)
        for channel in range(2):
            signal = _signal(patient, grid, geometry, seen, channel)
            water_fat[channel][..., here] = blur(signal, _BLUR_MM, seen.spacing_mm)
    facts = {
        **patient_facts(patient),
        "stage": stage,
        **_fat_fractions(water_fat, labels),
        **volumes_cm3(labels, LABELS, seen),
    }
    return Phantom(water_fat, labels, seen.affine(table_z_mm=0.0), facts)


def generate_thigh_dixon(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] = (96, 56, 88),
    spacing_mm: Sequence[float] = (4.8, 4.8, 6.0),
    stage: str | None = None,
) -> Phantom:
    """Generate out-of-phase and in-phase images of both thighs as a scanner stores them.

    In phase is |W + F|, out of phase |W − F|, both with the coil's uneven sensitivity and Rician noise.

    Args:
        rng: Source of randomness.
        shape: Voxels along right, anterior and superior.
        spacing_mm: Voxel size along the same axes in mm.
        stage: As for ``dixon_water_fat``, whose labels and facts these are.

    Returns:
        Channels out_of_phase and in_phase in whole stored units from 0 to 4095, labels, geometry and facts.

    Raises:
        ValueError: A shape or spacing is not three positive numbers, or there is no such stage.
    """
    maps = dixon_water_fat(rng, shape=shape, spacing_mm=spacing_mm, stage=stage)
    water, fat = maps.image
    image, noise_sd = stored(rng, (np.abs(water - fat), water + fat), maps.spacing_mm)
    return Phantom(image, maps.labels, maps.affine, {**maps.facts, "noise_sd": round(noise_sd, 1)})


def stored(
    rng: np.random.Generator, signals: Sequence[Array], spacing_mm: Sequence[float]
) -> tuple[npt.NDArray[np.float32], float]:
    """Return signals as a scanner stores them, under one uneven coil and with Rician noise.

    Args:
        rng: Source of randomness.
        signals: Magnitudes, each of shape (X, Y, Z).
        spacing_mm: Voxel size.

    Returns:
        Whole numbers from 0 to 4095, shape (C, X, Y, Z), and the standard deviation of the noise.
    """
    bias_field = SmoothField(rng, (130, 110, 190))
    gain, noise_sd = float(rng.uniform(0.85, 1.1)), float(rng.uniform(18, 40))
    axes = (voxel_centres_mm(count, size_mm) for count, size_mm in zip(signals[0].shape, spacing_mm, strict=True))
    sensitivity = gain * np.exp(np.float32(_BIAS) * bias_field.on_grid(*axes))
    image = np.empty((len(signals), *signals[0].shape), np.float32)
    for channel, ideal in enumerate(signals):
        signal = ideal * sensitivity
        real, imaginary = (noise_sd * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2))
        image[channel] = np.clip(np.rint(np.hypot(signal + real, imaginary)), 0, 4095)
    return image, noise_sd


def _signal(patient: ThighPatient, grid: Grid, geometry: ThighGeometry, seen: View, channel: int) -> Array:
    """Return the water (0) or fat (1) signal of everything."""
    texture = 1 + 0.02 * patient.fields["texture"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
    values: dict[str, float | Array] = {name: float(signals[channel]) for name, signals in WATER_FAT.items()}
    for name in ("muscle", "fat", "marrow"):
        values[name] = values[name] * texture
    canvas = np.zeros(grid.shape, np.float32)
    return paint(canvas, layers(patient, grid, geometry, seen.in_plane_mm), values)


def _fat_fractions(water_fat: Array, labels: npt.NDArray[np.uint8]) -> dict[str, Fact]:
    """Return the mean fat fraction in % of all labelled voxels and of each label present."""
    water, fat = water_fat[0].ravel(), water_fat[1].ravel()
    fraction = 100 * fat / np.maximum(water + fat, 1)
    counts = np.bincount(labels.ravel(), minlength=len(LABELS) + 1)
    sums = np.bincount(labels.ravel(), fraction, minlength=len(LABELS) + 1)
    facts: dict[str, Fact] = {
        "fat_fraction_percent": round(float(sums[1:].sum() / max(counts[1:].sum(), 1)), 2),
    }
    for name, index in LABELS.items():
        mean = sums[index] / counts[index] if counts[index] else float("nan")
        facts[f"{name}_fat_fraction_percent"] = round(float(mean), 2)
    return facts
