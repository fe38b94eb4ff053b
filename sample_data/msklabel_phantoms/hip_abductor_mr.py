"""T1-weighted MR of one hip with its three abductor muscles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.acquisition import blur
from msklabel_phantoms.phantom import Fact, Phantom
from msklabel_phantoms.sections import Grid
from msklabel_phantoms.thigh_geometry import ThighGeometry
from msklabel_phantoms.thigh_patient import ThighPatient, draw_patient
from msklabel_phantoms.thigh_scan import label, paint, patient_facts, slabs, view, volumes_cm3
from msklabel_phantoms.thigh_tissues import layers

Array = npt.NDArray[np.float32]

LABELS = {"gluteus_medius": 1, "gluteus_minimus": 2, "tensor_fasciae_latae": 3}
# Fat's share of the mean muscle, and ages, of who is scanned.
_GROUPS = {
    "fai": ((0.03, 0.10), (18, 50)),
    "early_oa": ((0.04, 0.16), (35, 70)),
    "advanced_oa": ((0.08, 0.28), (50, 85)),
}
_SIGNAL = {"skin": 330.0, "fat": 1000.0, "organ": 330.0, "gas": 20.0, "muscle": 310.0, "vessel": 170.0, "fluid": 250.0,
           "cortex": 60.0, "marrow": 820.0}  # fmt: skip
_BLUR_MM = 1.2
# Middle of the view: lateral of the mid-sagittal plane, anterior and superior of the femoral neck.
_CENTRE_MM = (108.0, 0.0, 54.0)
# The surface coil lies on the front of the hip and hears this far.
_COIL_MM = (130.0, 110.0, 40.0)
_COIL_REACH_MM = 230.0


def generate_hip_abductor_mr(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] = (40, 44, 48),
    spacing_mm: Sequence[float] = (4.0, 4.0, 3.0),
) -> Phantom:
    """Generate a T1-weighted MR of one hip, right or left, of a patient with hip osteoarthritis or impingement.

    The view is small, as for a joint: the abductors from the crest to the femur, the tensor's lower end cut off.
    One state of ``rng`` is one patient: other shapes and spacings show the same anatomy.

    Args:
        rng: Source of randomness.
        shape: Voxels along right, anterior and superior.
        spacing_mm: Voxel size along the same axes in mm.

    Returns:
        Signal in whole stored units, labels as in ``LABELS``, geometry, and facts: side, group (fai, early_oa,
        advanced_oa), and the true fat share of each muscle in % of its volume.

    Raises:
        ValueError: A shape or spacing is not three positive numbers.
    """
    group = str(rng.choice(sorted(_GROUPS)))
    (lower, upper), ages = _GROUPS[group]
    infiltration = float(rng.uniform(lower, upper))
    sign = int(rng.choice((1, -1)))
    offset_mm = rng.normal(0, (4, 5, 5))
    noise_sd, gain = float(rng.uniform(12, 28)), float(rng.uniform(0.7, 1.3))
    patient = draw_patient(rng, ages, infiltration)
    u_mm, y_mm, z_mm = (float(c + o) for c, o in zip(_CENTRE_MM, offset_mm, strict=True))
    seen = view(shape, spacing_mm, (sign * u_mm * patient.size, y_mm, z_mm * patient.length))

    signal = np.empty(seen.shape, np.float32)
    fat = np.empty(seen.shape, np.float32)
    labels = np.empty(seen.shape, np.uint8)
    for here, grid, geometry in slabs(patient, seen):
        labels[..., here] = label(geometry, LABELS)
        ideal, fat[..., here] = _ideal(patient, grid, geometry, seen.in_plane_mm)
        signal[..., here] = gain * blur(ideal, _BLUR_MM, seen.spacing_mm) * _sensitivity(grid, sign)
    real, imaginary = (noise_sd * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2))
    image = np.clip(np.rint(np.hypot(signal + real, imaginary)), 0, 4095).astype(np.float32)

    fat_percent: dict[str, Fact] = {
        f"{name}_fat_percent": round(100 * float(fat[labels == index].mean()), 2) if (labels == index).any() else 0.0
        for name, index in LABELS.items()
    }
    facts = {
        **patient_facts(patient),
        "side": "right" if sign > 0 else "left",
        "group": group,
        "noise_sd": round(noise_sd, 1),
        **fat_percent,
        **volumes_cm3(labels, LABELS, seen),
    }
    affine = seen.affine(table_z_mm=0.0)
    affine[0, 3] += sign * u_mm * patient.size
    return Phantom(image[None], labels, affine, facts)


def _ideal(patient: ThighPatient, grid: Grid, geometry: ThighGeometry, voxel_mm: float) -> tuple[Array, Array]:
    """Return the signal under an even coil without noise, and the fat's share of each voxel."""
    texture = 1 + 0.03 * patient.fields["texture"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
    values: dict[str, float | Array] = {name: value * texture for name, value in _SIGNAL.items()}
    painted = list(layers(patient, grid, geometry, voxel_mm))
    black = np.zeros(grid.shape, np.float32)
    return paint(black, painted, values), paint(black, painted, {name: float(name == "fat") for name in _SIGNAL})


def _sensitivity(grid: Grid, sign: int) -> Array:
    """Return how well the coil hears each voxel, about 1 in the hip."""
    dx, dy, dz = (
        axis - np.float32(middle)
        for axis, middle in zip((grid.x_mm, grid.y_mm, grid.z_mm), (sign * _COIL_MM[0], *_COIL_MM[1:]), strict=True)
    )
    squared = np.square(dx)[:, None, None] + np.square(dy)[None, :, None] + np.square(dz)
    return np.asarray(1.25 * np.exp(-squared / np.float32(_COIL_REACH_MM**2)), dtype=np.float32)
