"""A person around a label map: its structures to look at from any grid, and the body that encloses them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from edt import edt
from scipy import ndimage
from skimage.morphology import convex_hull_image

from msklabel_phantoms.label_names import is_bone, structure_of
from msklabel_phantoms.sections import Grid

Array = npt.NDArray[np.float32]
_BLUR_VOXELS = 0.8  # of a structure's mask, so that its surface has no steps on a finer grid
_MARGIN_VOXELS = 3
_BODY_MM = 3.0  # grid on which fascia and skin are found
_AROUND_MM = 60.0  # beyond the label map: room for fat
_CLOSING_MM = 16.0
_PELVIS = ("ilium", "iliac_bone", "sacrum", "hip_bone", "pelvis")
_FAR_MM = 1e4
_GAP_MM = 75.0
# Cortex by the place along a long bone, from its lower end; other bones have thin walls throughout.
_LONG_BONES = ("femur", "tibia", "fibula")
_CORTEX_MM = ((0.0, 1.2), (0.15, 2.0), (0.3, 4.5), (0.75, 5.0), (0.85, 3.0), (0.92, 1.6), (1.0, 1.4))
_THIN_CORTEX_MM = 1.6


@dataclass(frozen=True)
class Volume:
    """Numbers on a regular grid along the axes of the scanner.

    Attributes:
        array: Shape (X, Y, Z).
        first_mm: Centre of the first voxel, right, anterior, superior.
        step_mm: Voxel size.
    """

    array: npt.NDArray[np.generic]
    first_mm: tuple[float, float, float]
    step_mm: tuple[float, float, float]

    @property
    def last_mm(self) -> tuple[float, ...]:
        """Centre of the last voxel."""
        return tuple(f + (n - 1) * s for f, n, s in zip(self.first_mm, self.array.shape, self.step_mm, strict=True))

    def part_of(self, grid: Grid) -> tuple[slice, slice, slice] | None:
        """Return the part of another grid that lies within this volume; None if none does."""
        parts = []
        for positions, first, step, size in zip(
            _axes(grid), self.first_mm, self.step_mm, self.array.shape, strict=True
        ):
            inside = np.flatnonzero((positions >= first) & (positions <= first + (size - 1) * step))
            if not len(inside):
                return None
            parts.append(slice(int(inside[0]), int(inside[-1]) + 1))
        return parts[0], parts[1], parts[2]

    def on(self, grid: Grid) -> Array:
        """Interpolate linearly on a grid; what lies outside gets the value of the border."""
        values = self.array
        for axis, (positions, first, step) in enumerate(zip(_axes(grid), self.first_mm, self.step_mm, strict=True)):
            place = np.clip((positions - first) / step, 0, values.shape[axis] - 1)
            below = np.minimum(place.astype(int), max(values.shape[axis] - 2, 0))
            share = (place - below).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
            above = np.minimum(below + 1, values.shape[axis] - 1)
            values = np.take(values, below, axis) * (1 - share) + np.take(values, above, axis) * share
        return values.astype(np.float32)


@dataclass(frozen=True)
class Structure:
    """One bone or muscle of a label map.

    Attributes:
        value: Its voxel value.
        name: Without its side.
        bone: Whether it is a bone.
        share: Its blurred mask, 0 to 255.
        depth_mm: Of a bone: distance from its surface, in tenths of a mm.
        z_mm: Its lowest and highest point.
    """

    value: int
    name: str
    bone: bool
    share: Volume
    depth_mm: Volume | None
    z_mm: tuple[float, float]

    def cortex_mm(self, z_mm: Array) -> Array:
        """Return the thickness of a bone's wall at some heights."""
        if self.name not in _LONG_BONES:
            return np.full(len(z_mm), _THIN_CORTEX_MM, np.float32)
        along = (z_mm - self.z_mm[0]) / max(self.z_mm[1] - self.z_mm[0], 1e-6)
        return np.interp(along, *np.array(_CORTEX_MM).T).astype(np.float32)

    def spongy(self, z_mm: Array) -> Array:
        """Return how much of the space within a bone is trabecular bone rather than fatty marrow, 0 to 1."""
        return np.clip((3.0 - self.cortex_mm(z_mm)) / 1.5, 0, 1)


@dataclass(frozen=True)
class Anatomy:
    """A label map with a body around it.

    Attributes:
        structures: In order of value.
        fascia_mm: Signed distance from the deep fascia, positive inside, in each axial plane.
        pelvis_mm: Lowest and highest corner of the pelvic bones; None where there are none.
        low_mm: Lowest corner of the label map.
        high_mm: Highest corner.
    """

    structures: tuple[Structure, ...]
    fascia_mm: Volume
    pelvis_mm: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None
    low_mm: tuple[float, float, float]
    high_mm: tuple[float, float, float]


def anatomy_of(
    labels: npt.NDArray[np.integer], spacing_mm: Sequence[float], first_mm: Sequence[float], names: Mapping[int, str]
) -> Anatomy:
    """Build the anatomy of a label map.

    Args:
        labels: Shape (X, Y, Z), axes to right, anterior and superior; 0 is background.
        spacing_mm: Voxel size.
        first_mm: Centre of the first voxel in the scanner.
        names: Name of each value, with its side.

    Raises:
        ValueError: Nothing is labelled, or a value has no name.
    """
    values = [int(value) for value in np.unique(labels) if value]
    if not values:
        raise ValueError("the label map is empty: no voxel is labelled")
    nameless = [value for value in values if value not in names]
    if nameless:
        raise ValueError(f"no name for the voxel values {nameless}")
    step, first = (tuple(float(number) for number in three) for three in (spacing_mm, first_mm))
    if len(values) > 255:
        raise ValueError(f"at most 255 structures in one label map, got {len(values)}")
    table = np.zeros(values[-1] + 1, np.uint8)
    table[values] = np.arange(1, len(values) + 1)
    order = table[labels]
    boxes = ndimage.find_objects(order)
    structures = tuple(
        _structure(order, number, value, names[value], boxes[number - 1], step, first)
        for number, value in enumerate(values, start=1)
    )
    sides = np.array([2, *(structure_of(names[value])[1] for value in values)], np.int8)
    pelvic = [structure for structure in structures if structure.name in _PELVIS]
    corners = [(part.share.first_mm, part.share.last_mm) for part in pelvic]
    pelvis = None
    if corners:
        pelvis = np.min([low for low, _ in corners], axis=0), np.max([high for _, high in corners], axis=0)
    high = tuple(a + (n - 1) * s for a, n, s in zip(first, labels.shape, step, strict=True))
    fascia = _fascia(sides[order], step, first, pelvis)
    return Anatomy(structures, fascia, pelvis, first, high)  # type: ignore[arg-type]


def _structure(
    order: npt.NDArray[np.uint8], number: int, value: int, name: str, box: tuple, step: tuple, first: tuple
) -> Structure:
    wide = tuple(
        slice(max(0, part.start - _MARGIN_VOXELS), min(size, part.stop + _MARGIN_VOXELS))
        for part, size in zip(box, order.shape, strict=True)
    )
    mask = np.pad(order[wide] == number, 1)  # so that a structure that is cut off by the border keeps its edge there
    mask[:, :, [0, -1]] = mask[:, :, [1, -2]]
    corner = tuple(f + (part.start - 1) * s for f, part, s in zip(first, wide, step, strict=True))
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), _BLUR_VOXELS, mode="nearest", truncate=3)
    structure, _ = structure_of(name)
    depth = None
    if is_bone(structure):
        inside = edt(mask, anisotropy=step) - min(step) / 2
        depth = Volume(np.clip(np.rint(inside * 10), 0, 255).astype(np.uint8), corner, step)
    z_mm = tuple(first[2] + place * step[2] for place in (box[2].start, box[2].stop - 1))
    share = Volume(np.rint(blurred * 255).astype(np.uint8), corner, step)
    return Structure(value, structure, is_bone(structure), share, depth, z_mm)


def _fascia(
    sides: npt.NDArray[np.int8], step: tuple, first: tuple, pelvis: tuple[npt.NDArray, npt.NDArray] | None
) -> Volume:
    """Find what lies under the deep fascia: each leg closed by itself, the pelvis as one.

    Args:
        sides: Of the structure at each voxel: -1 left, 1 right, 0 neither, 2 where there is none.
        step: Voxel size, mm.
        first: Centre of the first voxel, mm.
        pelvis: Lowest and highest corner of the pelvic bones.
    """
    pool = tuple(max(1, round(_BODY_MM / s)) for s in step)
    coarse_mm = tuple(p * s for p, s in zip(pool, step, strict=True))
    around = tuple(round(_AROUND_MM / s) for s in coarse_mm[:2])
    corner = [f + (p - 1) / 2 * s for f, p, s in zip(first, pool, step, strict=True)]
    in_plane_mm = (*coarse_mm[:2], _FAR_MM)
    deep = _pooled(sides != 2, pool, around)
    for side in (-1, 0, 1):
        occupied = _pooled(sides == side, pool, around)
        grown = edt(~occupied, anisotropy=in_plane_mm) <= _CLOSING_MM
        deep |= edt(grown, anisotropy=in_plane_mm) > _CLOSING_MM
    if pelvis is not None:
        z_mm = corner[2] + np.arange(deep.shape[2]) * coarse_mm[2]
        for z in np.flatnonzero((z_mm >= pelvis[0][2]) & (z_mm <= pelvis[1][2]) & deep.any(axis=(0, 1))):
            deep[..., z] = convex_hull_image(deep[..., z])
    distance = edt(deep, anisotropy=in_plane_mm) - edt(~deep, anisotropy=in_plane_mm)
    distance = np.clip(distance, -_AROUND_MM, _AROUND_MM)
    # Where few structures are labelled, as at a knee, the body goes on as it does above and below.
    distance = ndimage.grey_closing(distance, size=(1, 1, 2 * round(_GAP_MM / coarse_mm[2] / 2) + 1), mode="nearest")
    smooth = ndimage.gaussian_filter(distance.astype(np.float32), (1.2, 1.2, 2.0), mode="nearest")
    low = (corner[0] - around[0] * coarse_mm[0], corner[1] - around[1] * coarse_mm[1], corner[2])
    return Volume(smooth, low, coarse_mm)


def _pooled(mask: npt.NDArray[np.bool_], pool: tuple, around: tuple) -> npt.NDArray[np.bool_]:
    """Whether any voxel of a block is set; with room around in-plane."""
    padded = np.pad(mask, [(0, -size % block) for size, block in zip(mask.shape, pool, strict=True)])
    for axis, block in enumerate(pool):
        shape = (*padded.shape[:axis], padded.shape[axis] // block, block, *padded.shape[axis + 1 :])
        padded = padded.reshape(shape).any(axis=axis + 1)
    return np.pad(padded, [(around[0],) * 2, (around[1],) * 2, (0, 0)])


def _axes(grid: Grid) -> Iterator[Array]:
    return iter((grid.x_mm, grid.y_mm, grid.z_mm))
