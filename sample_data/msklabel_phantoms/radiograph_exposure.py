"""What an X-ray unit does to an ideal projection: collimation, scatter, noise, and the processing for display."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from msklabel_phantoms.radiograph_patient import RadiographPatient
from msklabel_phantoms.random_fields import smooth_step

Array = npt.NDArray[np.float32]

TOP = 4095  # of 12 bits
_BLUR_MM = 0.25
_SCATTER_MM = 35.0
_LEAKED = 0.004  # of the beam, under the collimator
_LETTERS = {
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
}


def exposed_field(patient: RadiographPatient, x_mm: Array, y_mm: Array) -> Array:
    """Return 1 where the beam is not collimated, 0 where it is, shape (X, Y).

    The margin is measured from the edge of the image, so that it needs no anatomy.
    """
    if patient.collimated == "no":
        return np.ones((len(x_mm), len(y_mm)), np.float32)
    sides = []
    for axis_mm, (first, last) in ((x_mm, patient.margins_mm[:2]), (y_mm, patient.margins_mm[2:])):
        inside = np.minimum(np.abs(axis_mm - axis_mm[0]) - first, np.abs(axis_mm - axis_mm[-1]) - last)
        sides.append(smooth_step(inside.astype(np.float32), -1.0, 1.0))
    return sides[0][:, None] * sides[1][None, :]


def marker(patient: RadiographPatient, x_mm: Array, y_mm: Array) -> Array:
    """Return the attenuation of a lead letter on its side of the patient, shape (X, Y).

    Args:
        patient: Says which letter, if any.
        x_mm: Positions to the patient's right.
        y_mm: Positions upwards.
    """
    lead = np.zeros((len(x_mm), len(y_mm)), np.float32)
    if not patient.marker:
        return lead
    letter = np.array([[int(dot) for dot in row] for row in _LETTERS[patient.marker]], np.float32)
    left_mm, top_mm, dot_mm = (195.0 if patient.marker == "R" else -178.0), patient.marker_mm, 2.6
    columns, rows = np.floor((left_mm - x_mm) / dot_mm).astype(int), np.floor((top_mm - y_mm) / dot_mm).astype(int)
    there = ((columns >= 0) & (columns < 5))[:, None] & ((rows >= 0) & (rows < 7))[None, :]
    lead[there] = 7 * letter[np.clip(rows, 0, 6)[None, :], np.clip(columns, 0, 4)[:, None]][there]
    return lead


def expose(
    rng: np.random.Generator, patient: RadiographPatient, passed: Array, field: Array, spacing_mm: Sequence[float]
) -> Array:
    """Turn transmission into the values of a processed MONOCHROME2 image.

    Args:
        rng: Source of the noise.
        patient: Says how the image is taken.
        passed: Share of the beam that passes the patient, shape (X, Y).
        field: Where the beam is not collimated, 0 to 1, shape (X, Y).
        spacing_mm: Distance of pixels along both axes.

    Returns:
        Whole numbers from 0 to 4095, attenuation bright, shape (X, Y).
    """
    heel = np.linspace(1 - patient.heel, 1 + patient.heel, passed.shape[1], dtype=np.float32)
    primary = passed * (_LEAKED + (1 - _LEAKED) * field) * heel
    coarse = [max(1, round(5 / mm)) for mm in spacing_mm[:2]]
    scatter = ndimage.uniform_filter(np.minimum(primary, 0.1), coarse)[:: coarse[0], :: coarse[1]]
    scatter = ndimage.gaussian_filter(scatter, [_SCATTER_MM / (n * spacing_mm[i]) for i, n in enumerate(coarse)])
    zoomed = ndimage.zoom(scatter, [n / m for n, m in zip(passed.shape, scatter.shape, strict=True)], order=1)
    beam = primary + patient.scatter * zoomed
    photons = patient.photons_per_mm2 * float(np.prod(spacing_mm[:2])) * beam
    noise = rng.standard_normal(passed.shape, dtype=np.float32)
    counted = photons + np.sqrt(photons + 4) * noise
    counted = ndimage.gaussian_filter(counted, [_BLUR_MM / mm for mm in spacing_mm[:2]])
    dark = -np.log(np.maximum(counted / photons.max(), 1e-5))
    smooth = ndimage.gaussian_filter(dark, [6 / mm for mm in spacing_mm[:2]], truncate=2.5)
    dark = dark + patient.sharpen * (dark - smooth)
    return _displayed(patient, dark, field)


def _displayed(patient: RadiographPatient, dark: Array, field: Array) -> Array:
    """Scale by what lies in the field, as the unit's automatic does, and bend the curve at both ends."""
    seen = dark[field > 0.5]
    high = float(np.percentile(seen[::7], 99.3)) if seen.size else 1.0
    level = np.clip((dark - high) / patient.latitude + 1, 0, 1.15) ** np.float32(patient.gamma)
    curve = smooth_step((0.06 + 0.86 * level).astype(np.float32), 0, 1) * 0.55 + 0.45 * level
    if patient.collimated == "dark":
        curve = curve * smooth_step(field, 0.5, 1)
    return np.rint(np.clip(curve * patient.brightness, 0, 1) * TOP).astype(np.float32)
