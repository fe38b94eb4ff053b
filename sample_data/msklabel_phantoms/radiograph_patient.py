"""Who lies on the table for a radiograph of the pelvis, and how the image is taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.radiograph_anatomy import HIP_BONE, Hip
from msklabel_phantoms.random_fields import SmoothField

SIDES = {"right": 1, "left": -1}  # sense of u, the distance from the midline, along the patient's right
# Node distance along x, y and in depth in mm.
_FIELDS_MM = {"muscle": (16, 16, 9), "spongy": (1.5, 1.5, 9), "density": (14, 14, 9), "gas": (11, 8, 9)}


@dataclass(frozen=True)
class RadiographPatient:
    """A patient on the table and how the image is taken, as drawn before a pixel is made; mm, radians."""

    patient_id: str
    sex: str
    age_years: int
    scale: float
    turn_rad: float
    shift_mm: tuple[float, float]
    half_width_mm: float
    depth_mm: float
    fat_mm: float
    bone: float
    gas: float
    scatter: float
    photons_per_mm2: float
    sharpen: float
    gamma: float
    latitude: float
    brightness: float
    heel: float
    marker: str
    marker_mm: float
    collimated: str
    margins_mm: tuple[float, ...]
    hips: dict[str, Hip]
    fields: dict[str, SmoothField]


def draw_patient(rng: np.random.Generator) -> RadiographPatient:
    """Draw a patient; always the same number of draws, so that nothing depends on the pixel grid."""
    sex = "FM"[int(rng.integers(0, 2))]
    age_years = int(rng.integers(20, 91))
    common = {
        "head": (22.6 if sex == "F" else 25.0) + rng.normal(0, 1.0),
        "angle": rng.normal(128, 4),
        "cortex": np.clip(rng.normal(6.6, 0.7) - 0.025 * (age_years - 50), 4, 8.5),
        "tilt": rng.normal(1, 0.09),
        "rotation": rng.normal(0, 0.025),
        "outline": rng.normal(0, 1.3, (2, len(HIP_BONE))),
    }
    hips = {side: _draw_hip(rng, common, sense) for side, sense in SIDES.items()}
    stout = float(rng.beta(2, 2.5))
    return RadiographPatient(
        patient_id=f"X{rng.integers(0, 10_000_000):07d}",
        sex=sex,
        age_years=age_years,
        scale=float(np.clip(rng.normal(1.0 if sex == "M" else 0.96, 0.03), 0.88, 1.08) * rng.uniform(1.08, 1.16)),
        turn_rad=float(np.radians(np.clip(rng.normal(0, 1.8), -5, 5))),
        shift_mm=(float(rng.normal(0, 7)), float(rng.uniform(-22, 2))),
        half_width_mm=float(158 + 40 * stout),
        depth_mm=float(90 + 45 * stout),
        fat_mm=float(12 + 30 * stout),
        bone=float(rng.uniform(0.8, 1.15)),
        gas=float(rng.uniform(0.0, 1.0)),
        scatter=float(rng.uniform(0.1, 0.5)),
        photons_per_mm2=float(np.exp(rng.uniform(np.log(4e4), np.log(2.5e5)))),
        sharpen=float(rng.uniform(0.0, 0.8)),
        gamma=float(rng.uniform(0.8, 1.3)),
        latitude=float(rng.uniform(1.9, 3.1)),
        brightness=float(rng.uniform(0.8, 1.0)),
        heel=float(rng.uniform(-0.12, 0.12)),
        marker=str(rng.choice(["", "R", "L", "R", "L"])),
        marker_mm=float(rng.choice([-95.0, 110.0])),
        collimated=str(rng.choice(["no", "no", "bright", "dark"])),
        margins_mm=tuple(float(mm) for mm in rng.uniform(2, 20, 4)),
        hips=hips,
        fields={name: SmoothField(rng, scale) for name, scale in _FIELDS_MM.items()},
    )


def _draw_hip(rng: np.random.Generator, common: dict[str, npt.NDArray[np.floating] | float], sense: int) -> Hip:
    worn = float(rng.random() < 0.25) * float(rng.uniform(0.3, 1))
    jitter = np.asarray(common["outline"]) + rng.normal(0, 0.6, (2, len(HIP_BONE)))
    jitter[0, [0, -1]] = np.maximum(jitter[0, [0, -1]], -1.2)
    head = float(common["head"]) + rng.normal(0, 0.3)
    return Hip(
        head_mm=head,
        neck_mm=float(np.clip(rng.normal(2.08, 0.08), 1.85, 2.3) * head),
        neck_shaft_degrees=float(common["angle"]) + rng.normal(0, 1.5),
        rotation=float(np.clip(rng.normal(0.93, 0.07), 0.72, 1.0)),
        adduction_degrees=float(np.clip(rng.normal(2, 3.5), -7, 9)),
        cortex_mm=float(common["cortex"]) + rng.normal(0, 0.3),
        lesser_mm=float(rng.uniform(5.5, 8.5)),
        gap_mm=float(max(rng.normal(4.4, 0.5) * (1 - 0.6 * worn), 1.4)),
        fossa_mm=float(np.clip(rng.normal(8.5, 1.2), 5.5, 11.5)),
        teardrop=(rng.normal(0, 0.7), rng.normal(0, 1.5), rng.uniform(3.2, 4.8), rng.uniform(8, 11.5)),
        cover_degrees=float(np.clip(rng.normal(34, 5), 22, 48)),
        jitter_mm=jitter.astype(np.float32),
        widths=(1 + sense * float(common["rotation"]), float(np.clip(float(common["tilt"]), 0.8, 1.2))),
    )
