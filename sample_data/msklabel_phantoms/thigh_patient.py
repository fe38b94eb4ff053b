"""Who lies in the scanner: everything about a phantom of the thighs that is drawn before a voxel is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.random_fields import SmoothField
from msklabel_phantoms.sections import Rows, rows_at
from msklabel_phantoms.thigh_anatomy import FEMUR_AXIS, MUSCLES, SUSCEPTIBLE

# Node distance along x, y, z in mm.
_FIELD_SCALES_MM = {
    "warp_x": (28, 28, 46),
    "warp_y": (28, 28, 46),
    "muscle_warp_x": (13, 13, 28),
    "muscle_warp_y": (13, 13, 28),
    "fat_planes": (15, 15, 26),
    "patches": (15, 15, 34),
    "streaks": (5, 5, 24),
    "texture": (5, 5, 10),
    "skin_fat": (18, 18, 36),
    "bowel": (9, 9, 11),
}
# The pose turns about the hip joint, at this height of the anatomy.
_HIP_MM = 18.0
# A thigh turns about its own axis as a whole from here downward, not at all at the hip joint.
_TWISTED_MM = -110.0


@dataclass(frozen=True)
class ThighPatient:
    """A patient as the generator drew them; lengths in mm, sides (right, left).

    Attributes:
        patient_id: Made up.
        sex: F or M.
        age_years: Age.
        height_cm: Height.
        size: Breadth against the tables.
        length: Length against the tables.
        adiposity: Fat under the skin, 0 to 1.
        bulk_mm: How much the muscles swell against the tables.
        septum_mm: Mean thickness of the fat between two muscles.
        infiltration: Fat's share of the mean muscle, 0 to 1.
        side_bulk_mm: What a side's muscles have more than ``bulk_mm``, shape (2,).
        muscle_fat_logit: Log-odds of fat in each muscle, shape (2, muscles).
        muscle_jitter: Standard scores of each muscle's u, v, half axes and angle, shape (2, muscles, 5).
        abduction: Sideways shift of each thigh, mm per mm below the hip, shape (2,).
        flexion: Forward shift of each thigh, mm per mm below the hip, shape (2,).
        twist_rad: Outward rotation of each thigh about its axis, shape (2,).
        side_shift_mm: Shift of a whole side along u, v, z, shape (2, 3).
        roll_rad: Rotation of the body about its long axis.
        off_centre_mm: Where the body lies off the scanner's axis.
        table_shift_mm: How much higher than meant the field of view lies on the body.
        fields: Smooth random fields in the scanner's frame.
    """

    patient_id: str
    sex: str
    age_years: int
    height_cm: float
    size: float
    length: float
    adiposity: float
    bulk_mm: float
    septum_mm: float
    infiltration: float
    side_bulk_mm: npt.NDArray[np.float32]
    muscle_fat_logit: npt.NDArray[np.float32]
    muscle_jitter: npt.NDArray[np.float32]
    abduction: npt.NDArray[np.float32]
    flexion: npt.NDArray[np.float32]
    twist_rad: npt.NDArray[np.float32]
    side_shift_mm: npt.NDArray[np.float32]
    roll_rad: float
    off_centre_mm: tuple[float, float]
    table_shift_mm: float
    fields: dict[str, SmoothField]

    def pose(self, side: int, rows: Rows) -> Rows:
        """Move rows of (z, u, v, ...) as one side's thigh is flexed, abducted and turned.

        Args:
            side: 0 right, 1 left.
            rows: Cross-sections; a seventh and sixth value are bend and angle in degrees.

        Returns:
            The rows in the same form and order.
        """
        table = np.array(rows, float)
        below_mm = np.maximum(_HIP_MM - table[:, 0], 0)
        axis_u, axis_v = rows_at(FEMUR_AXIS, table[:, 0].astype(np.float32))
        turn = -self.twist_rad[side] * np.clip(below_mm / (_HIP_MM - _TWISTED_MM), 0, 1)
        du, dv = table[:, 1] - axis_u, table[:, 2] - axis_v
        table[:, 1] = axis_u + du * np.cos(turn) - dv * np.sin(turn) + self.abduction[side] * below_mm
        table[:, 2] = axis_v + du * np.sin(turn) + dv * np.cos(turn) + self.flexion[side] * below_mm
        if table.shape[1] > 5:
            table[:, 5] += np.rad2deg(turn)
        return tuple(map(tuple, table.tolist()))

    def pose_tube(self, side: int, nodes: Rows) -> Rows:
        """Move nodes (u, v, z, radius) of a tube as ``pose`` moves rows."""
        rows = self.pose(side, tuple((z, u, v) for u, v, z, _ in nodes))
        return tuple((u, v, z, node[3]) for (z, u, v), node in zip(rows, nodes, strict=True))


def draw_patient(rng: np.random.Generator, ages: tuple[int, int], infiltration: float) -> ThighPatient:
    """Draw a patient; always the same number of draws, so that nothing depends on the voxel grid.

    Args:
        rng: Source of randomness.
        ages: Youngest and oldest in years.
        infiltration: Fat's share of the mean muscle, between 0 and 1.

    Returns:
        The patient.
    """
    male = bool(rng.random() < 0.5)
    age_years = int(rng.integers(ages[0], ages[1] + 1))
    height_cm = float(np.clip(rng.normal(174 if male else 162, 6), 145, 195))
    severity = float(np.clip(infiltration / 0.4, 0.2, 1))
    mean_logit = np.log(infiltration / (1 - infiltration))
    susceptible = np.array([SUSCEPTIBLE.get(name, 0.0) for name in MUSCLES])
    count = len(MUSCLES)

    def both_sides(spread: float, *shape: int) -> npt.NDArray[np.float32]:
        """Draw one value for the patient and small differences for each side."""
        shared, own = rng.normal(0, 1, (1, *shape)), rng.normal(0, 1, (2, *shape))
        return (spread * (0.9 * shared + 0.44 * own)).astype(np.float32)

    wasting_mm = 3.0 * max(infiltration - 0.1, 0.0) + 0.02 * max(age_years - 50, 0)
    return ThighPatient(
        patient_id=f"T{rng.integers(0, 10_000_000):07d}",
        sex="M" if male else "F",
        age_years=age_years,
        height_cm=round(height_cm, 1),
        size=float(np.clip(rng.normal(1.0 if male else 0.95, 0.025), 0.89, 1.07)),
        length=float(np.clip(height_cm / 173 + rng.normal(0, 0.012), 0.88, 1.08)),
        adiposity=float(rng.beta(1.8, 2.6) * (0.8 if male else 1.0) + (0.0 if male else 0.12)),
        bulk_mm=float(np.clip(rng.normal(1.1 if male else 0.5, 0.7) - wasting_mm, -2.0, 3.5)),
        septum_mm=float(rng.uniform(0.4, 0.8) + 1.2 * infiltration),
        infiltration=infiltration,
        side_bulk_mm=rng.normal(0, 0.3, 2).astype(np.float32),
        muscle_fat_logit=(mean_logit + severity * susceptible + both_sides(0.2 + 0.25 * severity, count)).astype(
            np.float32
        ),
        muscle_jitter=both_sides(1.0, count, 5),
        abduction=(rng.normal(0.03, 0.018) + rng.normal(0, 0.008, 2)).astype(np.float32),
        flexion=(rng.normal(0.0, 0.025) + rng.normal(0, 0.01, 2)).astype(np.float32),
        twist_rad=np.deg2rad(rng.normal(4, 6) + rng.normal(0, 3, 2)).astype(np.float32),
        side_shift_mm=np.clip(rng.normal(0, (1.2, 1.5, 2.5), (2, 3)), -6, 6).astype(np.float32),
        roll_rad=float(np.deg2rad(np.clip(rng.normal(0, 1.5), -4, 4))),
        off_centre_mm=(float(rng.normal(0, 4)), float(rng.normal(0, 4))),
        table_shift_mm=float(rng.uniform(-8, 8)),
        fields={name: SmoothField(rng, scale) for name, scale in _FIELD_SCALES_MM.items()},
    )
