"""Join overlapping stacks of slices, scanned one after the other, into one scan."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from msklabel.durable import flush, new_beside
from msklabel.imaging.alignment import misfit
from msklabel.imaging.channels import CHANNELS_FACT, read_channels
from msklabel.imaging.scan import ImageError, Scan

_TOLERANCE_VOXELS = 0.1  # in plane
_TOLERANCE_SLICES = 0.05
_LARGEST_SCALE = 4.0
SCALES_FACT = "stitched_scales"


@dataclass(frozen=True)
class _Placed:
    """A stack along the common axis: positions of its slices in units of the first stack's slices."""

    name: str
    scan: Scan
    start: float
    step: float
    scale: float = 1.0

    @property
    def end(self) -> float:
        return self.start + self.step * (self._slices - 1)

    @property
    def _slices(self) -> int:
        return self.scan.array.shape[-1]

    def sample(self, positions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Slices (C, X, Y, len(positions)) by linear interpolation, scaled; beyond an end its last slice."""
        index = np.clip((positions - self.start) / self.step, 0, self._slices - 1)
        below = np.minimum(np.floor(index + 1e-6).astype(int), self._slices - 1)
        part = np.maximum(index - below, 0).astype(np.float32)
        part[part < 1e-4] = 0  # rounding of affines
        slices = self.scan.array[..., below].astype(np.float32)
        between = part > 0
        if between.any():
            above = self.scan.array[..., below[between] + 1].astype(np.float32)
            slices[..., between] += part[between] * (above - slices[..., between])
        return slices * np.float32(self.scale)


def stitch(stacks: Sequence[Scan], names: Sequence[str] | None = None, match_intensity: bool = True) -> Scan:
    """Join stacks that lie behind each other along one array axis and overlap, or just touch.

    In an overlap of n slices the weight of the later stack rises linearly, 1 / (n + 1) to n / (n + 1). Slices that do
    not coincide with those of the first stack are interpolated linearly along the axis. In plane nothing is resampled.

    Args:
        stacks: At least two, in any order; each of shape (C, X, Y, Z), the same but for the common axis.
        names: What to call them in errors; ``stack 1`` and so on by default.
        match_intensity: Multiply each stack after the first by the factor that fits it best, by least squares over the
            overlap, to the one before; one factor for all channels, so that their ratios (the fat fraction) stay. Not
            done for CT, whose values are calibrated, nor without overlap.

    Returns:
        The scan on the grid of the first stack along the axis, continued, in the stacks' common dtype. Its facts are
        those of that stack, and ``stitched_scales``: the factors, in order along the axis.

    Raises:
        ImageError: If fewer than two are given, or they do not line up: other channels, size, orientation or spacing,
            rotated, shifted in plane, a gap between them, one within another, another patient.
    """
    if len(stacks) < 2:
        raise ImageError(f"stitching needs at least two stacks, got {len(stacks)}")
    names = list(names or [f"stack {number}" for number in range(1, len(stacks) + 1)])
    axis = _common_axis(stacks, names)
    for name, scan in zip(names[1:], stacks[1:], strict=True):
        _check(stacks[0], scan, axis, names[0], name)
    moved = [replace(scan, array=np.moveaxis(scan.array, axis + 1, -1)) for scan in stacks]
    placed = sorted(_placed(stacks[0], moved, axis, names), key=lambda stack: stack.start)
    first = placed[0].scan
    origin, unit = placed[0].start, placed[0].step
    placed = [replace(stack, start=(stack.start - origin) / unit, step=stack.step / unit) for stack in placed]
    _check_order(placed, first.spacing_mm[axis])
    if match_intensity and first.facts.get("modality") != "CT":
        placed = _matched(placed)
    facts = {**first.facts, SCALES_FACT: " ".join(f"{stack.scale:.4g}" for stack in placed)}
    array = _blended(placed, np.result_type(*(scan.array.dtype for scan in stacks)))
    return Scan(np.moveaxis(array, -1, axis + 1), first.affine, facts)


def stitch_files(files: Sequence[Path], out: Path, match_intensity: bool = True) -> Scan:
    """Read stacks (files, channel groups or DICOM folders), stitch them and write the scan as NIfTI.

    Raises:
        ImageError: If they cannot be read or do not line up, or ``out`` is no NIfTI name or is there already.
        OSError: If it cannot be written; nothing is left.
    """
    if not out.name.lower().endswith((".nii", ".nii.gz")):
        raise ImageError(f"{out.name}: a stitched scan is written as .nii.gz or .nii")
    if out.exists():
        raise ImageError(f"{out.name}: is there already; choose another name")
    short = [file.name for file in files]
    names = short if len(set(short)) == len(short) else [str(file) for file in files]
    scan = stitch([read_channels(file) for file in files], names, match_intensity)
    _write(out, scan)
    return scan


def _common_axis(stacks: Sequence[Scan], names: Sequence[str]) -> int:
    """Array axis along which the stacks lie behind each other: that of the largest distance of centres, in mm."""
    to_first = np.linalg.inv(stacks[0].affine)
    centres = [scan.affine @ [*((np.array(scan.shape) - 1) / 2), 1] for scan in stacks]
    apart_mm = np.abs([(to_first @ centre)[:3] - (to_first @ centres[0])[:3] for centre in centres])
    apart_mm *= stacks[0].spacing_mm
    if apart_mm.max() < 1e-3:
        raise ImageError(f"{', '.join(names)}: all lie in the same place; there is nothing to stitch")
    return int(apart_mm.max(axis=0).argmax())


def _check(first: Scan, other: Scan, axis: int, first_name: str, name: str) -> None:
    patients = first.facts.get("patient"), other.facts.get("patient")
    if all(patients) and patients[0] != patients[1]:
        raise ImageError(f"{name} is of patient {patients[1]!r}, {first_name} of {patients[0]!r}")
    channels = [(len(scan.array), scan.facts.get(CHANNELS_FACT)) for scan in (first, other)]
    if channels[0] != channels[1]:
        said = [names or f"{number} channels" for number, names in channels]
        raise ImageError(f"{name} has {said[1]}, {first_name} has {said[0]}")
    if difference := misfit(first, other, (first_name, name), axis, _TOLERANCE_VOXELS):
        raise ImageError(f"{difference}, so they cannot be stitched")


def _placed(first: Scan, moved: Sequence[Scan], axis: int, names: Sequence[str]) -> list[_Placed]:
    made = []
    middle = (np.array(first.shape) - 1) / 2
    for name, scan in zip(names, moved, strict=True):
        to_first = np.linalg.inv(first.affine) @ scan.affine
        corner = [*middle, 1.0]
        corner[axis] = 0.0
        made.append(_Placed(name, scan, float((to_first @ corner)[axis]), float(to_first[axis, axis])))
    return made


def _check_order(placed: Sequence[_Placed], spacing_mm: float) -> None:
    last = placed[0]
    for stack in placed[1:]:
        if stack.end <= last.end + _TOLERANCE_SLICES:
            raise ImageError(f"{stack.name} lies within {last.name} along the slices; leave it out")
        missing = stack.start - last.end - 1
        if missing > _TOLERANCE_SLICES:
            raise ImageError(f"there is a gap of {missing * spacing_mm:.3g} mm between {last.name} and {stack.name}")
        last = stack


def _matched(placed: Sequence[_Placed]) -> list[_Placed]:
    matched = [placed[0]]
    for stack in placed[1:]:
        before = matched[-1]
        shared = np.arange(np.ceil(stack.start - 1e-3), np.floor(before.end + 1e-3) + 1)
        scale = 1.0
        if len(shared):
            a, b = before.sample(shared).astype(np.float64), stack.sample(shared).astype(np.float64)
            scale = float((a * b).sum() / square) if (square := (b * b).sum()) > 0 else 1.0
            if not 1 / _LARGEST_SCALE < scale < _LARGEST_SCALE:
                raise ImageError(
                    f"{stack.name} would have to be multiplied by {scale:.2g} to match {before.name} in their "
                    f"overlap; expected {1 / _LARGEST_SCALE:g} to {_LARGEST_SCALE:g}: are they of one examination?"
                )
        matched.append(replace(stack, scale=scale))
    return matched


def _blended(placed: Sequence[_Placed], dtype: np.dtype) -> NDArray:
    positions = np.arange(np.floor(placed[-1].end + 1e-3) + 1)
    rises = [np.ones(len(positions))]
    rises += [_rise(positions, before.end, stack.start) for before, stack in itertools.pairwise(placed)]
    shape = (*placed[0].scan.array.shape[:-1], len(positions))
    total = np.zeros(shape, np.float32)
    for number, stack in enumerate(placed):
        weights = rises[number] * np.prod([1 - rise for rise in rises[number + 1 :]], axis=0)
        used = np.flatnonzero(weights)
        total[..., used] += weights[used].astype(np.float32) * stack.sample(positions[used])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(total), limits.min, limits.max).astype(dtype)
    return total.astype(dtype)


def _rise(positions: NDArray[np.float64], end: float, start: float) -> NDArray[np.float64]:
    """Weight of a stack that begins at ``start`` over one that ends at ``end``, at each position."""
    if start > end:  # they touch: between the last slice of one and the first of the other
        return np.clip((positions - end) / (start - end), 0, 1)
    rise = (positions - start + 1) / (end - start + 2)
    return np.where(positions < start - 1e-3, 0, np.where(positions > end + 1e-3, 1, rise))


def _write(path: Path, scan: Scan) -> None:
    """Write a scan as NIfTI, channels along the fourth axis; the file appears complete or not at all."""
    array = scan.array[0] if len(scan.array) == 1 else np.moveaxis(scan.array, 0, -1)
    image = nib.Nifti1Image(array, scan.affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(scan.affine, code=1)
    image.set_qform(scan.affine, code=1)
    data = image.to_bytes()
    temporary = new_beside(path)
    try:
        temporary.write_bytes(gzip.compress(data, 1, mtime=0) if path.name.lower().endswith(".gz") else data)
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
