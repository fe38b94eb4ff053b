"""AP radiograph of the pelvis with both hips, and the five regions of each hip joint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.acquisition import block_mean, voxel_centres_mm
from msklabel_phantoms.phantom import Fact, Phantom
from msklabel_phantoms.radiograph_anatomy import (
    SACRUM,
    femur,
    hip_bone_corners,
    outline_distance,
    pelvis_depth,
    pelvis_lines,
    ridge,
    shell,
    socket,
)
from msklabel_phantoms.radiograph_exposure import expose, exposed_field, marker
from msklabel_phantoms.radiograph_patient import SIDES, RadiographPatient, draw_patient
from msklabel_phantoms.random_fields import smooth_step
from msklabel_phantoms.shapes import ellipse

Array = npt.NDArray[np.float32]

LABELS = {
    "proximal_femur_medullary": 1,
    "proximal_femur_cortical": 2,
    "koehler_teardrop": 3,
    "joint_space": 4,
    "pelvic_bone": 5,
}
# Attenuation per mm at an effective energy of some 55 keV; bone replaces soft tissue.
_MUSCLE, _FAT, _CORTEX, _SPONGY = 0.0215, 0.0190, 0.070, 0.0335
_FINEST_MM = 0.7
# Beside the lesser gluteal muscle and beside iliopsoas, u and v in mm.
_FAT_STRIPES = (((114, -4), (127, 26), (138, 60)), ((88, -62), (98, -34), (92, 20)))


def generate_hip_radiograph(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] = (700, 520, 1),
    spacing_mm: Sequence[float] = (0.6, 0.6, 1.0),
) -> Phantom:
    """Generate an AP radiograph of the pelvis of one adult.

    Axis 0 runs along a row to the patient's left, axis 1 down a column; the affine calls the latter posterior, as for
    every radiograph. One state of ``rng`` is one patient: other shapes and spacings show the same anatomy.

    Args:
        rng: Source of randomness.
        shape: Columns, rows and 1.
        spacing_mm: Distance of columns and of rows at the detector in mm, and 1.

    Returns:
        Values from 0 to 4095, bone bright (MONOCHROME2), labels as in ``LABELS`` on both sides, geometry and facts.

    Raises:
        ValueError: A shape or spacing is not three positive numbers, or there is more than one slice.
    """
    if len(shape) != 3 or len(spacing_mm) != 3 or min(shape) < 1 or min(spacing_mm) <= 0:
        raise ValueError(f"expected three positive sizes and spacings, got {tuple(shape)} and {tuple(spacing_mm)}")
    if shape[2] != 1:
        raise ValueError(f"a radiograph has one slice, got {shape[2]}")
    patient = draw_patient(rng)
    parts = max(1, int(np.ceil(max(spacing_mm[:2]) / _FINEST_MM)))
    fine_mm = (spacing_mm[0] / parts, spacing_mm[1] / parts)
    x_mm, y_mm = (-voxel_centres_mm(n, mm, parts) for n, mm in zip(shape[:2], spacing_mm[:2], strict=True))
    attenuation, drawn = _project(patient, x_mm, y_mm, fine_mm)
    labels = drawn
    if parts > 1:
        shares = [block_mean((drawn == label)[..., None], parts)[..., 0] for label in range(len(LABELS) + 1)]
        labels = np.argmax(shares, axis=0).astype(np.uint8)
    field = exposed_field(patient, *(voxel_centres_mm(n, mm) for n, mm in zip(shape[:2], spacing_mm[:2], strict=True)))
    labels = np.where(field > 0.5, labels, 0).astype(np.uint8)
    passed = block_mean(np.exp(-attenuation)[..., None], parts)[..., 0]
    image = expose(rng, patient, passed, field, spacing_mm)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0]).astype(np.float64)
    return Phantom(image[None, ..., None], labels[..., None], affine, _facts(patient, labels, spacing_mm))


class _Frame:
    """From the image plane (x to the patient's right, y up, mm) to the patient and back."""

    def __init__(self, patient: RadiographPatient, x_mm: Array, y_mm: Array, step_mm: tuple[float, float]) -> None:
        self.patient, self.first_mm, self.step_mm = patient, (float(x_mm[0]), float(y_mm[0])), step_mm
        self.cosine, self.sine = np.cos(patient.turn_rad), np.sin(patient.turn_rad)
        across = (x_mm - patient.shift_mm[0])[:, None] / patient.scale
        up = (y_mm - patient.shift_mm[1])[None, :] / patient.scale
        self.u = (across * self.cosine + up * self.sine).astype(np.float32)
        self.v = (up * self.cosine - across * self.sine).astype(np.float32)

    def pixels(self, corners_mm: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Pixel coordinates of points (points, 2) of the patient."""
        u, v = corners_mm.T
        right = (u * self.cosine - v * self.sine) * self.patient.scale + self.patient.shift_mm[0]
        top = (u * self.sine + v * self.cosine) * self.patient.scale + self.patient.shift_mm[1]
        columns, rows = (self.first_mm[0] - right) / self.step_mm[0], (self.first_mm[1] - top) / self.step_mm[1]
        return np.stack([columns, rows], axis=1)

    def distance(
        self, outlines: Sequence[npt.NDArray[np.floating]], holes: Sequence[npt.NDArray[np.floating]] = ()
    ) -> Array:
        """Signed distance in mm of the patient to outlines in mm of the patient."""
        ours = [[self.pixels(corners) for corners in group] for group in (outlines, holes)]
        return outline_distance(ours[0], ours[1], self.u.shape, [mm / self.patient.scale for mm in self.step_mm])


def _project(
    patient: RadiographPatient, x_mm: Array, y_mm: Array, step_mm: tuple[float, float]
) -> tuple[Array, npt.NDArray[np.uint8]]:
    """Return line integrals of attenuation and the labels, shape (X, Y); x to the patient's right, y up."""
    frame = _Frame(patient, x_mm, y_mm, step_mm)
    out, v = np.abs(frame.u), frame.v
    corners = {side: hip_bone_corners(patient.hips[side]) for side in SIDES}
    bones, foramina = ([corners[side][part] * (SIDES[side], 1) for side in SIDES] for part in (0, 1))
    pelvis = frame.distance(bones, foramina)
    cortex, spongy = _spine(frame)
    labels = np.zeros(out.shape, np.uint8)
    for side, sense in SIDES.items():
        columns = np.flatnonzero((frame.u * sense > 0).any(axis=1))
        if not len(columns):
            continue
        half = slice(columns[0], columns[-1] + 1)
        u, h, edge, mine = out[half], v[half], pelvis[half], frame.u[half] * sense > 0
        joint, thigh = socket(patient.hips[side], u, h), femur(patient.hips[side], u, h)
        wall, filling = shell(-edge, pelvis_depth(u, h, joint.hollow), 1.1)
        lines = joint.cortex_mm + pelvis_lines(u, h) * smooth_step(-edge, -1, 1)
        cortex[half] += mine * (wall + lines + thigh.cortex_mm)
        spongy[half] += mine * (filling + thigh.spongy_mm)
        regions = ((5, edge < 0), (4, joint.space), (3, joint.teardrop), (1, thigh.cavity), (2, thigh.cortical))
        for label, region in regions:
            labels[half][mine & region] = label
    grain = 1 + 0.16 * _on(patient, "spongy", x_mm, y_mm) + 0.1 * _on(patient, "density", x_mm, y_mm)
    bony = patient.bone * (cortex * (_CORTEX - _MUSCLE) + spongy * grain * (_SPONGY - _MUSCLE))
    soft = _soft_tissue(patient, frame, _on(patient, "muscle", x_mm, y_mm), _on(patient, "gas", x_mm, y_mm))
    return (soft + bony + marker(patient, x_mm, y_mm)).astype(np.float32), labels


def _on(patient: RadiographPatient, field: str, x_mm: Array, y_mm: Array) -> Array:
    return patient.fields[field].on_grid(x_mm, y_mm, np.zeros(1, np.float32))[..., 0]


def _spine(frame: _Frame) -> tuple[Array, Array]:
    """Return mm of cortex and of spongy bone in sacrum and last vertebra."""
    half = np.array(SACRUM, float)
    sacrum = frame.distance([np.concatenate([half, (half * (-1, 1))[-2:0:-1]])])
    vertebra = ellipse(frame.u, frame.v - 156, 27.0, 17.0)
    cortex, spongy = shell(-sacrum, 9.0, 0.7)
    upper, filling = shell(-vertebra, 16.0, 1.0)
    for height in (112, 92, 74):
        hole = np.exp(-np.square((np.abs(frame.u) - 0.2 * height) / 5) - np.square((frame.v - height) / 4))
        spongy = spongy * (1 - 0.6 * hole)
        cortex = cortex + 2.5 * np.exp(-np.square((frame.v - height + 9) / 1.5)) * (sacrum < -4)
    return 0.6 * cortex + 0.7 * upper, 0.8 * (spongy + filling)


def _soft_tissue(patient: RadiographPatient, frame: _Frame, muscle: Array, gas: Array) -> Array:
    """Return the attenuation of trunk and thighs, darker by gas in the bowel and by the fat between muscles."""
    u, v = frame.u, frame.v
    wide = patient.half_width_mm + 7 * np.exp(-np.square((v + 45) / 50)) - 12 * np.exp(-np.square((v - 125) / 50))
    trunk, lean = (
        2 * deep * np.maximum(1 - np.abs(u / (wide - under)) ** 3, 0) ** 0.4
        for deep, under in ((patient.depth_mm, 0.0), (patient.depth_mm - 0.8 * patient.fat_mm, patient.fat_mm))
    )
    thick = 0.53 * patient.half_width_mm + 2
    leg, lean_leg = (
        2 * (thick - under) * np.sqrt(np.maximum(1 - np.square((np.abs(u) - thick - 3) / (thick - under)), 0))
        for under in (0.0, 0.45 * patient.fat_mm)
    )
    below = smooth_step(-v, 72, 118)
    whole, inner = trunk + (leg - trunk) * below, lean + (lean_leg - lean) * below
    inner = np.minimum(inner, whole) * (1 + 0.025 * muscle)
    belly = smooth_step(v, 0, 25) * (1 - smooth_step(np.abs(u), 60, 95))
    bubbles = 70 * patient.gas * belly * smooth_step(gas, 0.5, 2.3)
    bladder = 10 * (ellipse(u, v - 8, 38.0, 24.0) < 0)
    out = np.abs(u)
    stripes = sum(ridge(out, v, line, 2.2) for line in _FAT_STRIPES)
    inner = inner - np.minimum(bubbles + 9 * stripes, 0.6 * inner) + bladder * (inner > 100)
    return _FAT * whole + (_MUSCLE - _FAT) * inner - _FAT * np.minimum(bubbles, 0.5 * whole)


def _facts(patient: RadiographPatient, labels: npt.NDArray[np.uint8], spacing_mm: Sequence[float]) -> dict[str, Fact]:
    """Return what is known about the image: the patient, the exposure, and the areas of the regions."""
    facts: dict[str, Fact] = {
        "patient_id": patient.patient_id,
        "sex": patient.sex,
        "age_years": patient.age_years,
        "scale": round(patient.scale, 3),
        "turn_degrees": round(float(np.degrees(patient.turn_rad)), 2),
        "marker": patient.marker or "none",
        "collimated": patient.collimated,
        "bone_density": round(patient.bone, 3),
    }
    for side, hip in patient.hips.items():
        facts[f"{side}_joint_gap_mm"] = round(hip.gap_mm, 2)
        facts[f"{side}_neck_shaft_degrees"] = round(hip.neck_shaft_degrees, 1)
    for name, label in LABELS.items():
        facts[f"{name}_cm2"] = round(float((labels == label).sum()) * spacing_mm[0] * spacing_mm[1] / 100, 3)
    return facts
