"""Who lies in the scanner: everything about a hip phantom that is drawn before a voxel is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.hip_anatomy import MUSCLES
from msklabel_phantoms.random_fields import SmoothField


@dataclass(frozen=True)
class Site:
    """A scanner and its protocol.

    Attributes:
        hu_offset: Error of calibration in tissue, HU.
        blur_mm: In-plane full width at half maximum of the reconstruction in mm.
        noise_cutoff_per_mm: Sharpness of the kernel: cut-off of the noise in cycles/mm.
        noise_sd_hu: Range of the noise's standard deviation between patients, HU.
        size: Mean body size of its patients relative to the anatomy tables.
    """

    hu_offset: float
    blur_mm: float
    noise_cutoff_per_mm: float
    noise_sd_hu: tuple[float, float]
    size: float


SITES = {
    "site_a": Site(hu_offset=0.0, blur_mm=1.8, noise_cutoff_per_mm=0.14, noise_sd_hu=(6.0, 13.0), size=1.02),
    "site_b": Site(hu_offset=7.0, blur_mm=1.1, noise_cutoff_per_mm=0.30, noise_sd_hu=(11.0, 20.0), size=0.96),
}

# Node distance along x, y, z in mm.
_FIELD_SCALES_MM = {
    "warp_x": (26, 26, 40),
    "warp_y": (26, 26, 40),
    "muscle_warp_x": (11, 11, 22),
    "muscle_warp_y": (11, 11, 22),
    "fat_planes": (14, 14, 22),
    "infiltration": (13, 13, 24),
    "streaks": (4.0, 4.0, 16),
    "long_streaks": (13, 3.6, 16),
    "muscle_texture": (4, 4, 9),
    "skin_fat": (16, 16, 30),
    "septa": (7, 7, 14),
    "marrow": (6.5, 6.5, 8),
    "trabeculae": (1.7, 1.7, 2.2),
    "cortex": (9, 9, 12),
    "bowel": (9, 9, 11),
    "gas": (6, 6, 9),
}


@dataclass(frozen=True)
class HipPatient:
    """A patient as the generator drew them; lengths in mm, densities in HU, sides (right, left)."""

    patient_id: str
    site: str
    age_years: int
    height_cm: float
    size: float
    adiposity: float
    infiltration: float
    bulk_mm: float
    fat_plane_mm: float
    muscle_hu: float
    fat_hu: float
    marrow_hu: float
    cortex_hu: float
    cortex_scale: float
    bladder: float
    outline_exponent: float
    roll_rad: float
    off_centre_mm: tuple[float, float]
    slab_centre_mm: float
    side_shift_mm: npt.NDArray[np.float32]
    muscle_jitter: npt.NDArray[np.float32]
    metal_side: int
    noise_sd_hu: float
    fields: dict[str, SmoothField]


def draw_patient(rng: np.random.Generator, metal: bool | None = None) -> HipPatient:
    """Draw a patient; always the same number of draws, so that nothing depends on the voxel grid.

    Args:
        rng: Source of randomness.
        metal: Whether one hip has an implant; None leaves it to chance (3 %).

    Returns:
        The patient.
    """
    site_name = str(rng.choice(sorted(SITES)))
    site = SITES[site_name]
    age_years = int(rng.integers(65, 91))
    size = float(np.clip(rng.normal(site.size, 0.03), 0.9, 1.1))
    infiltration = float(np.clip(0.02 + 0.006 * (age_years - 65) + 0.35 * rng.beta(1.3, 3.0), 0, 0.45))
    chance, side = rng.random(), int(rng.integers(0, 2))
    has_metal = chance < 0.03 if metal is None else metal
    return HipPatient(
        patient_id=f"{site_name[-1].upper()}{rng.integers(0, 10_000_000):07d}",
        site=site_name,
        age_years=age_years,
        height_cm=round(float(172 * size + rng.normal(0, 4)), 1),
        size=size,
        adiposity=float(rng.beta(1.8, 2.2)),
        infiltration=infiltration,
        bulk_mm=float(np.clip(rng.normal(4.0 - 6 * infiltration, 0.9), -1.5, 5.0)),
        fat_plane_mm=float(rng.uniform(0.8, 1.5) + 2.0 * infiltration),
        muscle_hu=float(np.clip(rng.normal(62, 3.5), 54, 70)),
        fat_hu=float(rng.normal(-106, 4)),
        marrow_hu=float(rng.normal(-10, 20)),
        cortex_hu=float(rng.uniform(850, 1250)),
        cortex_scale=float(rng.uniform(0.8, 1.25)),
        bladder=float(rng.uniform(0.55, 1.15)),
        outline_exponent=float(rng.uniform(2.15, 2.6)),
        roll_rad=float(np.deg2rad(np.clip(rng.normal(0, 2.0), -5, 5))),
        off_centre_mm=(float(rng.normal(0, 5)), float(rng.normal(0, 5))),
        slab_centre_mm=float(rng.uniform(-14, 14)),
        side_shift_mm=np.clip(rng.normal(0, (1.5, 2.0, 3.0), (2, 3)), -6, 6).astype(np.float32),
        muscle_jitter=rng.normal(0, 1, (2, len(MUSCLES), 5)).astype(np.float32),
        metal_side=side if has_metal else -1,
        noise_sd_hu=float(rng.uniform(*site.noise_sd_hu)),
        fields={name: SmoothField(rng, scale) for name, scale in _FIELD_SCALES_MM.items()},
    )
