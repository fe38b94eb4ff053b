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

from msklabel.errors import UserError
from msklabel.imaging.scan import Scan
from msklabel.pipeline.grid import Grid, turned_grid
from msklabel.pipeline.resample import axis_maps, resample_nearest, resample_scan
from msklabel.pipeline.restore import Restorer
from msklabel.pipeline.sides import Sides, find_sides
from msklabel.pipeline.windows import reach_of_windows
from msklabel.sections import Percentile, Window
from msklabel.system import System

_MARGIN_MM = 10.0
_SLICES_AT_ONCE = 32


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
    """Prepare scans and labels for one system, and take class scores back to the scan.

    Args:
        system: The system.
        device: Where scans are resampled; all that comes out is on the processor.
    """

    def __init__(self, system: System, device: torch.device | str = "cpu") -> None:
        self.system = system
        self.device = torch.device(device)

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
        native_mm = whole.steps_mm(scan.spacing_mm)
        along = axis_maps(whole.oriented_shape, native_mm, system.spacing_mm, system.resampling)
        whole = replace(whole, along=along)
        image = resample_scan(whole.orient(scan.array), along, self.device)
        step_mm = whole.steps_mm(scan.spacing_mm)
        foreground = _foreground(image[0], system)
        crop = body = _body(foreground, system, step_mm)
        if system.predict.windows == "from_edge":
            x, y, z = (
                reach_of_windows(part, n, patch, system.predict.overlap)
                for part, n, patch in zip(crop, whole.working_shape, system.patch_voxels, strict=True)
            )
            crop = (x, y, z)
        grid = replace(whole, crop=crop)
        sides = None
        if system.laterality == "mirror_halves":
            middle_mm = _middle_mm(scan, replace(whole, crop=body))
            sides = find_sides(foreground[crop], step_mm, middle_mm, scan.facts, system.of_projections)
        x, y, z = crop
        return Prepared(_normalise(image[:, x, y, z].contiguous(), system), grid, sides)

    def labels(self, labels: NDArray[np.uint8], grid: Grid) -> torch.Tensor:
        """Bring a label map (X, Y, Z) of the scan to the working crop, by the nearest voxel; uint8."""
        if labels.shape != grid.native_shape:
            raise ValueError(f"label map of shape {labels.shape} for a scan of shape {grid.native_shape}")
        working = resample_nearest(grid.orient(labels), grid.along)
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
        restorer = Restorer(grid)
        restorer.add(scores)
        return restorer.labels()


def _foreground(image: torch.Tensor, system: System) -> NDArray[np.bool_]:
    """What is neither air nor noise."""
    lower = _dark(image.numpy())
    if isinstance(system.intensity, Window) and "CT" in system.modality:  # in HU; elsewhere noise may exceed it
        lower = system.intensity.lower
    found = np.empty(image.shape, bool)
    depth = image.shape[2]
    for start in range(0, depth, _SLICES_AT_ONCE):
        stop = min(start + _SLICES_AT_ONCE, depth)
        first, last = max(0, start - 1), min(depth, stop + 1)  # with the neighbours of both ends
        found[..., start:stop] = (_smoothed(image[..., first:last])[..., start - first : stop - first] > lower).numpy()
    return found


def _smoothed(image: torch.Tensor) -> torch.Tensor:
    """Mean over three neighbours along each axis of (X, Y, Z); voxels at the edge count twice."""
    for axis, size in enumerate(image.shape):
        if size > 1:
            first, last = image.narrow(axis, 0, 1), image.narrow(axis, size - 1, 1)
            wide = torch.cat((first, image, last), dim=axis)
            image = wide.narrow(axis, 0, size) + wide.narrow(axis, 2, size)
            image.add_(wide.narrow(axis, 1, size)).div_(3)
    return image


def _middle_mm(scan: Scan, grid: Grid) -> float:
    """Where the middle of the crop lies along the scanner's left-right axis, in mm to the right."""
    index = np.ones(4)
    for part, along, axis, flip in zip(grid.crop, grid.along, grid.axes, grid.flipped, strict=True):
        middle = along.edge((part.start + part.stop) / 2)
        index[axis] = (along.size_in - middle if flip else middle) - 0.5
    return float((scan.affine @ index)[0])


def _body(foreground: NDArray[np.bool_], system: System, step_mm: tuple[float, ...]) -> tuple[slice, slice, slice]:
    """Bounding box of the foreground, with a margin."""
    over_z, over_x = foreground.any(axis=2), foreground.any(axis=0)
    found = [np.flatnonzero(flags) for flags in (over_z.any(axis=1), over_z.any(axis=0), over_x.any(axis=0))]
    if not len(found[0]):
        raise UserError(f"{system.name}: nothing but air or noise in this scan; is it {' or '.join(system.modality)}?")
    margins = [int(np.ceil(_MARGIN_MM / step)) for step in step_mm]
    x, y, z = (
        slice(max(0, int(places[0]) - margin), min(n, int(places[-1]) + 1 + margin))
        for places, margin, n in zip(found, margins, foreground.shape, strict=True)
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
