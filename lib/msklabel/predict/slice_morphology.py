"""Binary morphology on axial slices with radii in mm, by exact Euclidean distance.

Every function takes a mask of shape (X, Y, Z) and works on each axial slice (X, Y) by itself, so that a single slice
and a whole CT are treated alike and thick slices do not blur anatomy along Z. Distances run between voxel centres.
"""

from collections.abc import Iterator, Sequence

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def distance_inside_mm(mask: Mask, spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """In-plane distance from each voxel of a mask to the nearest voxel outside it.

    Args:
        mask: Shape (X, Y, Z). Beyond the image's border counts as inside.
        spacing_mm: Voxel size in mm along each axis.

    Returns:
        Distance in mm, shape (X, Y, Z): 0 outside the mask, infinite in a slice that the mask fills.
    """
    distance = np.zeros_like(mask, dtype=np.float32)
    in_plane_mm = (float(spacing_mm[0]), float(spacing_mm[1]))
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        distance[:, :, z] = edt.edt(mask[:, :, z], anisotropy=in_plane_mm, black_border=False)
    return distance


def dilate_mm(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Voxels within a radius of a mask, in-plane; shape (X, Y, Z) as the mask."""
    margin = (int(radius_mm / spacing_mm[0]), int(radius_mm / spacing_mm[1]))
    dilated = np.zeros_like(mask)
    for box in _slice_boxes(mask, margin):
        dilated[box] = distance_inside_mm(~mask[box], spacing_mm) <= radius_mm
    return dilated


def erode_mm(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Voxels of a mask farther than a radius from its outside, in-plane; shape (X, Y, Z) as the mask."""
    eroded = np.zeros_like(mask)
    for box in _slice_boxes(mask, (1, 1)):
        eroded[box] = distance_inside_mm(mask[box], spacing_mm) > radius_mm
    return eroded


def _slice_boxes(mask: Mask, margin: tuple[int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """For each slice that the mask touches, its box there with a margin in voxels, within the image."""
    along_x, along_y = mask.any(axis=1), mask.any(axis=0)
    for z in np.flatnonzero(along_x.any(axis=0)):
        x, y = np.flatnonzero(along_x[:, z]), np.flatnonzero(along_y[:, z])
        yield (
            slice(max(0, x[0] - margin[0]), x[-1] + margin[0] + 1),
            slice(max(0, y[0] - margin[1]), y[-1] + margin[1] + 1),
            slice(z, z + 1),
        )


def open_mm(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Parts of a mask that a disk of the radius fits into; shape (X, Y, Z) as the mask."""
    return dilate_mm(erode_mm(mask, radius_mm, spacing_mm), radius_mm, spacing_mm) & mask


def close_mm(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """A mask with the gaps filled that a disk of the radius does not fit into; shape (X, Y, Z) as the mask."""
    return erode_mm(dilate_mm(mask, radius_mm, spacing_mm), radius_mm, spacing_mm) | mask


def fill_enclosed(mask: Mask, largest_cm2: float = np.inf, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)) -> Mask:
    """A mask with its holes filled: regions of a slice that it encloses wholly.

    Args:
        mask: Shape (X, Y, Z).
        largest_cm2: Holes of a larger area stay open.
        spacing_mm: Voxel size in mm along each axis; needed with `largest_cm2` only.

    Returns:
        Shape (X, Y, Z).
    """
    filled = mask.copy()
    largest_voxels = largest_cm2 * 100.0 / (spacing_mm[0] * spacing_mm[1])
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        holes = cc3d.connected_components(~mask[:, :, z], connectivity=4)
        fills = np.bincount(holes.ravel()) <= largest_voxels
        fills[0] = False
        for border in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
            fills[border] = False
        filled[:, :, z] |= fills[holes]
    return filled


def components_touching(mask: Mask, seeds: Mask) -> Mask:
    """In-plane components (4-connected) of a mask that contain at least one seed; shape (X, Y, Z)."""
    touching = np.zeros_like(mask)
    for z in np.flatnonzero((mask & seeds).any(axis=(0, 1))):
        components = cc3d.connected_components(mask[:, :, z], connectivity=4)
        keep = np.zeros(int(components.max()) + 1, bool)
        keep[components[seeds[:, :, z]]] = True
        keep[0] = False
        touching[:, :, z] = keep[components]
    return touching


def drop_small(mask: Mask, smallest_cm2: float, spacing_mm: Sequence[float]) -> Mask:
    """In-plane components (4-connected) of a mask that have at least an area; shape (X, Y, Z)."""
    kept = np.zeros_like(mask)
    smallest_voxels = smallest_cm2 * 100.0 / (spacing_mm[0] * spacing_mm[1])
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        components = cc3d.connected_components(mask[:, :, z], connectivity=4)
        large = np.bincount(components.ravel()) >= smallest_voxels
        large[0] = False
        kept[:, :, z] = large[components]
    return kept


def grow_within(seeds: Mask, region: Mask, reach_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Seeds and what can be reached from them through a region, in-plane, over at most a distance; shape (X, Y, Z)."""
    steps = max(1, round(reach_mm / max(spacing_mm[:2])))
    cross = ndimage.generate_binary_structure(2, 1)[:, :, None]
    return ndimage.binary_dilation(seeds, cross, iterations=steps, mask=region | seeds)


def block_step(spacing_mm: Sequence[float], grid_mm: float) -> tuple[int, int]:
    """How many voxels along X and Y make a block of about a size in mm; 1 where voxels are as large already."""
    return max(1, round(grid_mm / spacing_mm[0])), max(1, round(grid_mm / spacing_mm[1]))


def block_mean(volume: NDArray[np.float32], step: tuple[int, int]) -> NDArray[np.float32]:
    """Means over in-plane blocks of step voxels; shape (ceil(X / step), ceil(Y / step), Z)."""
    if step == (1, 1):
        return volume
    return np.asfortranarray(_blocks(volume, step).mean(axis=(1, 3)))


def block_any(mask: Mask, step: tuple[int, int]) -> Mask:
    """In-plane blocks of step voxels that the mask touches; shape (ceil(X / step), ceil(Y / step), Z)."""
    return mask if step == (1, 1) else np.asfortranarray(_blocks(mask, step).any(axis=(1, 3)))


def unblock(mask: Mask, step: tuple[int, int], shape: Sequence[int]) -> Mask:
    """The voxels of the blocks that a coarse mask holds; shape (X, Y, Z) as given."""
    if step == (1, 1):
        return mask
    return np.asfortranarray(mask.repeat(step[0], axis=0).repeat(step[1], axis=1)[: shape[0], : shape[1]])


def refine(coarse: Mask, step: tuple[int, int], belongs: Mask) -> Mask:
    """Redraws the outline of a coarse mask on the fine grid, one block inwards and one outwards.

    Args:
        coarse: Shape (ceil(X / step), ceil(Y / step), Z).
        step: Voxels of a block along X and Y.
        belongs: Which voxels near the outline belong to the mask, shape (X, Y, Z).

    Returns:
        Shape (X, Y, Z): the inner blocks, and the voxels of the blocks along the outline that belong.
    """
    square = np.ones((3, 3, 1), bool)
    inner = unblock(ndimage.binary_erosion(coarse, square, border_value=1), step, belongs.shape)
    outer = unblock(ndimage.binary_dilation(coarse, square), step, belongs.shape)
    return inner | (outer & belongs)


def _blocks(volume: NDArray, step: tuple[int, int]) -> NDArray:
    padding = ((0, -volume.shape[0] % step[0]), (0, -volume.shape[1] % step[1]), (0, 0))
    padded = np.pad(volume, padding, mode="edge")
    x, y, z = padded.shape
    return padded.reshape(x // step[0], step[0], y // step[1], step[1], z)
