"""What a scanner does to an ideal image: sampling, blur, noise and metal streaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]


def voxel_centres_mm(count: int, spacing_mm: float, subdivision: int = 1) -> Array:
    """Return the centres of ``count`` voxels, each cut into ``subdivision`` parts, around 0, in mm."""
    fine = np.arange(count * subdivision) - (count * subdivision - 1) / 2
    return (fine * (spacing_mm / subdivision)).astype(np.float32)


def block_mean(fine: npt.NDArray[np.generic], subdivision: int) -> Array:
    """Average in-plane blocks of a finer grid: the partial volume of a voxel.

    Args:
        fine: Values or a mask, shape (X * subdivision, Y * subdivision, Z).
        subdivision: Edge of a block in fine voxels.

    Returns:
        Means of shape (X, Y, Z).
    """
    if subdivision == 1:
        return fine.astype(np.float32)
    total = np.zeros((fine.shape[0] // subdivision, fine.shape[1] // subdivision, fine.shape[2]), np.float32)
    for row in range(subdivision):
        for column in range(subdivision):
            total += fine[row::subdivision, column::subdivision].astype(np.float32)
    return total / np.float32(subdivision**2)


def blur(image: Array, full_width_mm: float, spacing_mm: Sequence[float]) -> Array:
    """Blur in-plane with a Gaussian point spread, and slightly from slice to slice.

    Args:
        image: Shape (X, Y, Z).
        full_width_mm: Full width at half maximum in-plane in mm.
        spacing_mm: Voxel size along x and y in mm.

    Returns:
        The blurred image.
    """
    sigma_mm = full_width_mm / 2.355
    sigma = (sigma_mm / spacing_mm[0], sigma_mm / spacing_mm[1], 0.35)
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0), dtype=np.float32)


def band_limited_noise(
    rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], cutoff_per_mm: float
) -> Array:
    """Draw noise with the spectrum of filtered back-projection: a ramp that a kernel cuts off.

    Args:
        rng: Source of randomness.
        shape: (X, Y, Z).
        spacing_mm: Voxel size along x and y in mm.
        cutoff_per_mm: In-plane frequency where the kernel falls to 1/e in cycles/mm; larger is sharper.

    Returns:
        Noise of unit standard deviation, independent between slices, shape (X, Y, Z).
    """
    white = rng.standard_normal(tuple(shape), dtype=np.float32)
    frequency = np.hypot(np.fft.fftfreq(shape[0], spacing_mm[0])[:, None], np.fft.rfftfreq(shape[1], spacing_mm[1]))
    amplitude = np.sqrt(frequency) * np.exp(-np.square(frequency / cutoff_per_mm))
    spectrum = np.fft.rfft2(white, axes=(0, 1)) * amplitude[..., None]
    noise = np.fft.irfft2(spectrum, s=tuple(shape[:2]), axes=(0, 1))
    return (noise / max(float(noise.std()), 1e-6)).astype(np.float32)


def metal_streaks(rng: np.random.Generator, metal: Array, x_mm: Array, y_mm: Array, reach_mm: float = 60.0) -> Array:
    """Draw bright and dark rays around metal, in each slice that has some.

    Args:
        rng: Source of randomness; the same draws whatever the grid.
        metal: Fraction of metal in each voxel, shape (X, Y, Z).
        x_mm: Voxel centres along x in mm, shape (X,).
        y_mm: Voxel centres along y in mm, shape (Y,).
        reach_mm: Distance over which the rays fade.

    Returns:
        Unit-amplitude rays, 0 in slices without metal, shape (X, Y, Z).
    """
    orders = np.arange(2, 24, 2)
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    drift_per_slice = rng.normal(0, 0.25, len(orders))
    streaks = np.zeros_like(metal)
    for slice_index in np.flatnonzero(metal.sum(axis=(0, 1)) > 0.5):
        weight = metal[..., slice_index] / metal[..., slice_index].sum()
        dx = x_mm - weight.sum(axis=1) @ x_mm
        dy = y_mm - weight.sum(axis=0) @ y_mm
        angle = np.arctan2(dy[None, :], dx[:, None])
        radius = np.hypot(dx[:, None], dy[None, :])
        rays = sum(
            np.cos(order * angle + phase + drift * slice_index) / np.sqrt(len(orders))
            for order, phase, drift in zip(orders, phases, drift_per_slice, strict=True)
        )
        streaks[..., slice_index] = rays * np.exp(-radius / reach_mm) * radius / (radius + 8)
    return streaks
