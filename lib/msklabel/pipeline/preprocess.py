"""The one pre-processing chain, built from a System: training, validation and inference share it.

Native scan -> closest anatomical axes -> working spacing -> crop to the body -> normalised intensities; and the way
back: class scores on the crop -> label indices on the native grid, slab by slab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from msklabel.errors import UserError
from msklabel.imaging.geometry import closest_axes
from msklabel.imaging.scan import Scan
from msklabel.pipeline.resample import (
    apply_weights,
    linear_weights,
    resample_linear,
    resample_nearest,
    resampled_shape,
)
from msklabel.pipeline.sides import Sides, find_sides
from msklabel.sections import Percentile, Window
from msklabel.system import System

_MARGIN_MM = 10.0
_SLAB_ELEMENTS = 2**25  # scores held at once while restoring: 128 MiB in float32


@dataclass(frozen=True)
class Grid:
    """How a working crop lies in its scan.

    Attributes:
        native_shape: Voxels of the scan as stored.
        axes: Stored axis for each working axis.
        flipped: Whether the stored axis runs against the working axis.
        working_shape: Voxels of the whole working grid.
        crop: Start and stop of the crop on the working grid, per axis.
    """

    native_shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    working_shape: tuple[int, int, int]
    crop: tuple[slice, slice, slice]

    @property
    def oriented_shape(self) -> tuple[int, int, int]:
        """Voxels of the scan after turning its axes, before resampling."""
        x, y, z = (self.native_shape[axis] for axis in self.axes)
        return x, y, z

    def orient(self, array: NDArray) -> NDArray:
        """Turn an array (..., X, Y, Z) from stored to working axes; a view."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        x, y, z = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return turned[..., x, y, z]

    def deorient(self, array: NDArray) -> NDArray:
        """Inverse of :meth:`orient` for (X, Y, Z)."""
        back = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        return np.ascontiguousarray(back.transpose(np.argsort(self.axes)))


@dataclass(frozen=True)
class Prepared:
    """A scan ready for a network.

    Attributes:
        image: Shape (C, X, Y, Z), float32, normalised, on the working crop.
        grid: Where the crop lies.
        sides: Where left and right are, in systems with one network for both.
    """

    image: torch.Tensor
    grid: Grid
    sides: Sides | None = None

    def parts(self, array: torch.Tensor) -> list[torch.Tensor]:
        """What the network sees of an array (..., X, Y, Z) on the crop: the whole, or its sides as right ones."""
        return self.sides.split(array) if self.sides else [array]

    def whole(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Inverse of :meth:`parts`."""
        return self.sides.join(parts) if self.sides else parts[0]


class Preprocess:
    """Prepare scans and labels for one system, and take class scores back to the scan."""

    def __init__(self, system: System) -> None:
        self.system = system

    def __call__(self, scan: Scan) -> Prepared:
        """Prepare a scan.

        Raises:
            UserError: If it has other channels than the system, or nothing is in it.
        """
        system = self.system
        if len(scan.array) != len(system.channels):
            raise UserError(
                f"{system.name} needs {len(system.channels)} channel(s) ({', '.join(system.channels)}), "
                f"the scan has {len(scan.array)}"
            )
        whole = turned_grid(scan, system.orientation)
        steps_mm = [scan.spacing_mm[axis] for axis in whole.axes]
        shape = resampled_shape(whole.oriented_shape, (steps_mm[0], steps_mm[1], steps_mm[2]), system.spacing_mm)
        image = torch.from_numpy(np.ascontiguousarray(whole.orient(scan.array), dtype=np.float32))
        image = resample_linear(image, shape)
        step_mm = tuple(n * s / m for n, s, m in zip(whole.oriented_shape, steps_mm, shape, strict=True))
        foreground = _foreground(image[0].numpy(), system)
        crop = _body(foreground, system, step_mm)
        grid = replace(whole, working_shape=shape, crop=crop)
        sides = None
        if system.laterality == "mirror_halves":
            middle_mm = _middle_mm(scan, grid)
            sides = find_sides(foreground[crop], step_mm, middle_mm, scan.facts)
        x, y, z = crop
        return Prepared(_normalise(image[:, x, y, z].contiguous(), system), grid, sides)

    def labels(self, labels: NDArray[np.uint8], grid: Grid) -> torch.Tensor:
        """Bring a label map (X, Y, Z) of the scan to the working crop, by the nearest voxel; uint8."""
        if labels.shape != grid.native_shape:
            raise ValueError(f"label map of shape {labels.shape} for a scan of shape {grid.native_shape}")
        working = resample_nearest(grid.orient(labels), grid.working_shape)
        return torch.from_numpy(np.ascontiguousarray(working[grid.crop]))

    def restore(self, scores: torch.Tensor, grid: Grid) -> NDArray[np.uint8]:
        """Take class scores on the crop to label indices on the scan's own grid, axes turned to the working ones.

        Scores are interpolated linearly and reduced at once, a slab of slices at a time, so that a full-size array
        of scores never exists. Outside the crop all is background.

        Args:
            scores: Shape (classes, X, Y, Z) on the crop, class 0 the background.

        Returns:
            Shape ``grid.oriented_shape``, uint8; ``grid.deorient`` turns it to the scan's stored axes.
        """
        native = grid.oriented_shape
        spans = [_covered(n, m, c) for n, m, c in zip(native, grid.working_shape, grid.crop, strict=True)]
        weights = [
            _crop_weights(n, m, c, span)
            for n, m, c, span in zip(native, grid.working_shape, grid.crop, spans, strict=True)
        ]
        (x0, x1), (y0, y1), (z0, z1) = spans
        restored = np.zeros(native, np.uint8)
        depth = max(1, _SLAB_ELEMENTS // (len(scores) * (x1 - x0) * (y1 - y0)))
        for start in range(z0, z1, depth):
            stop = min(start + depth, z1)
            rows = weights[2][start - z0 : stop - z0]
            used = np.flatnonzero(rows.any(axis=0))
            below, above = int(used[0]), int(used[-1]) + 1
            part = scores[..., below:above]
            matrices = (*weights[:2], rows[:, below:above])
            slab = apply_weights(part, tuple(_matrix_or_none(w, scores.device) for w in matrices))
            restored[x0:x1, y0:y1, start:stop] = slab.argmax(0).to(torch.uint8).cpu().numpy()
        return restored


def turned_grid(scan: Scan, codes: str) -> Grid:
    """The grid of a whole scan with its axes turned to the closest anatomical ones, not resampled."""
    axes, signs = closest_axes(scan.affine)
    wanted = [1 if code in "RAS" else -1 for code in codes]
    x, y, z = (sign != want for sign, want in zip(signs, wanted, strict=True))
    grid = Grid(scan.shape, axes, (x, y, z), (1, 1, 1), (slice(0, 1), slice(0, 1), slice(0, 1)))
    i, j, k = grid.oriented_shape
    return replace(grid, working_shape=(i, j, k), crop=(slice(0, i), slice(0, j), slice(0, k)))


def _foreground(image: NDArray[np.float32], system: System) -> NDArray[np.bool_]:
    """What is neither air nor noise."""
    lower = _dark(image)
    if isinstance(system.intensity, Window) and "CT" in system.modality:  # in HU; elsewhere noise may exceed it
        lower = system.intensity.lower
    return ndimage.uniform_filter(image, [min(3, n) for n in image.shape]) > lower


def _middle_mm(scan: Scan, grid: Grid) -> float:
    """Where the middle of the crop lies along the scanner's left-right axis, in mm to the right."""
    shares = [(c.start + c.stop) / 2 / n for c, n in zip(grid.crop, grid.working_shape, strict=True)]
    index = np.ones(4)
    for share, axis, flip in zip(shares, grid.axes, grid.flipped, strict=True):
        index[axis] = (1 - share if flip else share) * grid.native_shape[axis] - 0.5
    return float((scan.affine @ index)[0])


def _body(foreground: NDArray[np.bool_], system: System, step_mm: tuple[float, ...]) -> tuple[slice, slice, slice]:
    """Bounding box of the foreground, with a margin."""
    found = ndimage.find_objects(foreground.astype(np.uint8))
    if not found:
        raise UserError(f"{system.name}: nothing but air or noise in this scan; is it {' or '.join(system.modality)}?")
    margins = [int(np.ceil(_MARGIN_MM / step)) for step in step_mm]
    x, y, z = (
        slice(max(0, part.start - margin), min(n, part.stop + margin))
        for part, margin, n in zip(found[0], margins, foreground.shape, strict=True)
    )
    return x, y, z


def _dark(image: NDArray[np.float32]) -> float:
    """Level between air and tissue for images without a physical scale: a tenth of the bright end."""
    low, high = np.percentile(image[::2, ::2, :: max(1, image.shape[2] // 32)], [0.5, 99.5])
    return float(low + 0.1 * (high - low))


def _normalise(image: torch.Tensor, system: System) -> torch.Tensor:
    intensity = system.intensity
    if isinstance(intensity, Window):
        scaled = ((image - intensity.lower) / (intensity.upper - intensity.lower)).clamp_(0, 1)
        return scaled if intensity.gamma == 1 else scaled**intensity.gamma
    channels = []
    for channel in image:
        values = channel[channel > _dark(channel.numpy())]
        values = values if values.numel() else channel.flatten()
        if isinstance(intensity, Percentile):
            low, high = np.percentile(values.numpy(), [intensity.lower_percent, intensity.upper_percent])
            channels.append(((channel - low) / max(high - low, 1e-6)).clamp(0, 1))
        else:
            channels.append((channel - values.mean()) / values.std(correction=0).clamp_min(1e-6))
    return torch.stack(channels).float()


def _covered(size_native: int, size_working: int, crop: slice) -> tuple[int, int]:
    """Native voxels whose centres lie in the crop."""
    scale = size_native / size_working
    start = int(np.ceil(crop.start * scale - 0.5))
    stop = int(np.ceil(crop.stop * scale - 0.5))
    return max(0, start), min(size_native, max(stop, start + 1))


def _crop_weights(size_native: int, size_working: int, crop: slice, span: tuple[int, int]) -> NDArray[np.float32]:
    """Weights from crop to native voxels; what would fall outside the crop goes to its border."""
    rows = linear_weights(size_working, size_native, *span)
    inside = rows[:, crop].copy()
    inside[:, 0] += rows[:, : crop.start].sum(axis=1)
    inside[:, -1] += rows[:, crop.stop :].sum(axis=1)
    return inside


def _matrix_or_none(weights: NDArray[np.float32], device: torch.device) -> torch.Tensor | None:
    rows, columns = weights.shape
    if rows == columns and np.array_equal(weights, np.eye(rows, dtype=np.float32)):
        return None
    return torch.from_numpy(weights).to(device)
