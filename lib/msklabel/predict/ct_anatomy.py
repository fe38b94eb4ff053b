"""Anatomy of the proximal-hip CT without training: body, metal, filled bone, deep fascia and visceral cavity.

Arrays have shape (X, Y, Z) in RAS+ order: indices grow towards the patient's right, anterior and superior. Intensities
are Hounsfield units, lengths mm in-plane. Everything is found slice by slice, components of body, bone and metal in 3D.
"""

from collections.abc import Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from msklabel.predict.slice_morphology import (
    Mask,
    block_any,
    block_step,
    close_mm,
    components_touching,
    dilate_mm,
    distance_inside_mm,
    drop_small,
    erode_mm,
    fill_enclosed,
    open_mm,
    unblock,
)

# Body: table and sheets are thin, other parts of the body small.
BODY_LOWER_HU = -300.0
SHEET_RADIUS_MM = 4.0
TABLE_RADIUS_MM = 6.0
BODY_PART_SHARE = 0.3
# Metal blurs into what it touches and throws streaks.
METAL_RIM_HU = 1000.0
METAL_RIM_MM = 4.0
STREAK_REACH_MM = 15.0
STREAK_RADIUS_MM = 3.0
# Contrast medium is bright, thick and even.
POOL_LOWER_HU = 400.0
POOL_DEPTH_MM = 7.0
POOL_RELATIVE_SD = 0.15
# Bone: gaps of the shell, size and closedness of the marrow in it, size of what is no bone.
BONE_GAP_RADII_MM = (0.0, 2.0, 4.0, 6.0, 8.0)
MARROW_HALF_WIDTH_MM = 3.0
MARROW_SHELL_SHARE = 0.7
MARROW_LARGEST_CM2 = 25.0
SPECK_AREA_CM2 = 0.5
SPECK_LENGTH_MM = 20.0
# Fascia: what is too thin or too small for a muscle, and half the widest gap between muscles.
FASCIA_OPEN_MM = 2.0
FASCIA_CLOSE_MM = 15.0
FASCIA_SMALLEST_CM2 = 1.5
# Cavity: see `find_cavity`.
CAVITY_GRID_MM = 3.0
CAVITY_WALL_MM = 15.0
CAVITY_BONE_MM = 15.0
CAVITY_OPEN_MM = 8.0
CAVITY_SMALLEST_CM2 = 5.0
CAVITY_DIRECTIONS = 9
CAVITY_MIDLINE_DIRECTIONS = 5
CAVITY_MIDLINE_MM = 45.0
BOWEL_WALL_MM = 6.0


def find_body(hu: NDArray[np.float32], spacing_mm: Sequence[float]) -> Mask:
    """Trunk and thighs, with gas inside filled; table, pads and arms that lie apart are left out.

    Openings cut thin things (table, sheets, bridges to pads) off; then the largest 3D component stays, and others of at
    least `BODY_PART_SHARE` of its volume (two thighs that do not touch). An arm that is pressed to the trunk stays in.

    Args:
        hu: CT, shape (X, Y, Z), Hounsfield units.
        spacing_mm: Voxel size in mm along each axis.

    Returns:
        Shape (X, Y, Z).
    """
    above_air = fill_enclosed(open_mm(hu > BODY_LOWER_HU, SHEET_RADIUS_MM, spacing_mm))
    core = erode_mm(above_air, TABLE_RADIUS_MM, spacing_mm)
    components, count = cc3d.connected_components(core, connectivity=26, return_N=True)
    if count == 0:
        return np.zeros(hu.shape, bool)
    volumes = np.bincount(components.ravel())
    volumes[0] = 0
    keep = volumes >= BODY_PART_SHARE * volumes.max()
    kept = keep[components]
    restored = above_air & dilate_mm(kept, 1.2 * TABLE_RADIUS_MM, spacing_mm)
    return fill_enclosed(components_touching(restored, kept))


def find_metal(hu: NDArray[np.float32], spacing_mm: Sequence[float], metal_lower_hu: float) -> Mask:
    """Implants with their bright rim: voxels above the limit and connected ones above `METAL_RIM_HU` close to them."""
    seeds = hu > metal_lower_hu
    if not seeds.any():
        return seeds
    rim = (hu > METAL_RIM_HU) & dilate_mm(seeds, METAL_RIM_MM, spacing_mm)
    return components_touching(rim, seeds) | seeds


def find_contrast_pools(hu: NDArray[np.float32], spacing_mm: Sequence[float]) -> Mask:
    """Thick, even, bright regions: contrast medium in bladder or bowel, bone cement.

    Bone is never so: cortical bone is thinner than twice `POOL_DEPTH_MM`, trabecular bone darker than `POOL_LOWER_HU`.
    """
    bright = hu > POOL_LOWER_HU
    cores, count = cc3d.connected_components(erode_mm(bright, POOL_DEPTH_MM, spacing_mm), return_N=True)
    even = [False]
    for index in range(1, count + 1):
        values = hu[cores == index]
        even.append(bool(values.std() < POOL_RELATIVE_SD * values.mean()))
    pools = np.array(even)[cores]
    return dilate_mm(pools, POOL_DEPTH_MM + 2.0 * max(spacing_mm[:2]), spacing_mm) if pools.any() else pools


def find_bone(
    hu: NDArray[np.float32],
    body: Mask,
    metal: Mask,
    spacing_mm: Sequence[float],
    shell_lower_hu: float,
    cortical_lower_hu: float,
) -> Mask:
    """Whole bones: the dense shell and the marrow that it encloses.

    The shell is what exceeds `shell_lower_hu`, in 3D components that reach `cortical_lower_hu` and are no specks
    (calcifications, vessels). Marrow is what the shell encloses in a slice once its gaps are closed, with growing
    radii; narrow gaps between two shells (joint space, grooves) stay out, and so does what bone bounds for less than
    `MARROW_SHELL_SHARE`. Around metal an opening cuts streaks off.

    Args:
        hu: CT, shape (X, Y, Z), Hounsfield units, denoised.
        body: Shape (X, Y, Z).
        metal: Shape (X, Y, Z), from `find_metal`.
        spacing_mm: Voxel size in mm along each axis.
        shell_lower_hu: Lower limit of the shell; below it thin cortex is lost to partial volume.
        cortical_lower_hu: What a shell must reach somewhere.

    Returns:
        Shape (X, Y, Z), without the metal.
    """
    dense = ((hu > shell_lower_hu) | metal) & body & ~find_contrast_pools(np.where(metal, 0.0, hu), spacing_mm)
    bone = _without_specks(dense, hu > cortical_lower_hu, spacing_mm)
    for radius_mm in BONE_GAP_RADII_MM:
        closed = close_mm(bone, radius_mm, spacing_mm) if radius_mm else bone
        filled = fill_enclosed(closed, MARROW_LARGEST_CM2, spacing_mm)
        gaps = filled & ~bone
        wide = (filled & ~closed) | erode_mm(gaps, MARROW_HALF_WIDTH_MM, spacing_mm)
        bone = bone | _shelled(components_touching(gaps, wide), bone)
    if metal.any():
        near = dilate_mm(metal, STREAK_REACH_MM, spacing_mm)
        bone = np.where(near, open_mm(bone, STREAK_RADIUS_MM, spacing_mm), bone)
        bone = _without_specks(bone, hu > cortical_lower_hu, spacing_mm)
    return bone & body & ~metal


def _shelled(marrow: Mask, bone: Mask) -> Mask:
    """In-plane components of marrow whose outline is bone for at least `MARROW_SHELL_SHARE`; shape (X, Y, Z)."""
    shelled = np.zeros_like(marrow)
    for z in np.flatnonzero(marrow.any(axis=(0, 1))):
        components, count = cc3d.connected_components(marrow[:, :, z], connectivity=4, return_N=True)
        outline, shell = np.zeros(count + 1), np.zeros(count + 1)
        for ahead, behind in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
            for own, other in ((ahead, behind), (behind, ahead)):
                border = components[own] != components[other]
                outline += np.bincount(components[own][border], minlength=count + 1)
                shell += np.bincount(components[own][border & bone[:, :, z][other]], minlength=count + 1)
        keep = shell >= MARROW_SHELL_SHARE * outline
        keep[0] = False
        shelled[:, :, z] = keep[components]
    return shelled


def _without_specks(dense: Mask, cortical: Mask, spacing_mm: Sequence[float]) -> Mask:
    components, count = cc3d.connected_components(dense, connectivity=26, return_N=True)
    length_mm = min(SPECK_LENGTH_MM, dense.shape[2] * spacing_mm[2])
    smallest_voxels = SPECK_AREA_CM2 * 100.0 * length_mm / float(np.prod(spacing_mm))
    keep = np.bincount(components.ravel(), minlength=count + 1) >= smallest_voxels
    keep &= np.bincount(components[cortical], minlength=count + 1) > 0
    keep[0] = False
    return keep[components]


def find_fascia(lean: Mask, inside: Mask, spacing_mm: Sequence[float]) -> Mask:
    """What the deep fascia encloses: muscles, bones and cavity, and the fat between them.

    The fascia is taken as the outline of the lean tissue: thin septa, vessels and nodes of the subcutaneous fat are
    opened away, gaps between muscles of up to twice `FASCIA_CLOSE_MM` closed, and the inside filled.

    Args:
        lean: Everything denser than fat except the skin, shape (X, Y, Z).
        inside: Where the result may lie: the body without its skin, shape (X, Y, Z).
        spacing_mm: Voxel size in mm along each axis.

    Returns:
        Shape (X, Y, Z).
    """
    solid = fill_enclosed(lean)
    walls = drop_small(open_mm(solid, FASCIA_OPEN_MM, spacing_mm), FASCIA_SMALLEST_CM2, spacing_mm)
    return fill_enclosed(close_mm(walls, FASCIA_CLOSE_MM, spacing_mm)) & inside


def find_cavity(fascia: Mask, bone: Mask, gas: Mask, spacing_mm: Sequence[float]) -> Mask:
    """Pelvic and abdominal cavity, roughly: what lies deep in the fascia between the bones of pelvis or rib cage.

    A voxel belongs to the cavity if enough of sixteen in-plane directions from it meet bone (`CAVITY_DIRECTIONS`; near
    the midline and inside the hull of the bones `CAVITY_MIDLINE_DIRECTIONS`) and if it is deeper than a body wall
    (`CAVITY_WALL_MM` from the fascia, `CAVITY_BONE_MM` from bone). Upwards the cavity goes on between pelvis and ribs
    as far as it is that deep and lies in front of the spine. Gas and the bowel wall around it belong to it too. Between
    two thighs only two directions meet bone, so that there is no cavity below the pelvis.

    Args:
        fascia: What the deep fascia encloses, shape (X, Y, Z).
        bone: Filled bone, shape (X, Y, Z).
        gas: Gas in the body, shape (X, Y, Z).
        spacing_mm: Voxel size in mm along each axis.

    Returns:
        Shape (X, Y, Z).
    """
    step = block_step(spacing_mm, CAVITY_GRID_MM)
    grid_mm = (spacing_mm[0] * step[0], spacing_mm[1] * step[1], spacing_mm[2])
    coarse_bone = block_any(bone, step)
    deep = erode_mm(~block_any(~fascia, step), CAVITY_WALL_MM, grid_mm)
    deep &= distance_inside_mm(~coarse_bone, grid_mm) > CAVITY_BONE_MM
    directions = _count_directions_with_bone(coarse_bone)
    columns = np.flatnonzero(coarse_bone.any(axis=(1, 2)))
    middle = 0.5 * (columns[0] + columns[-1]) if columns.size else 0.0
    midline = np.abs(np.arange(coarse_bone.shape[0]) - middle) * grid_mm[0] < CAVITY_MIDLINE_MM
    enclosed = directions >= CAVITY_DIRECTIONS
    enclosed |= (directions >= CAVITY_MIDLINE_DIRECTIONS) & _convex_hull(coarse_bone) & midline[:, None, None]
    core = fill_enclosed(close_mm(open_mm(deep & enclosed, CAVITY_OPEN_MM, grid_mm), CAVITY_WALL_MM, grid_mm)) & deep
    core = drop_small(core, CAVITY_SMALLEST_CM2, grid_mm)
    core = _continue_upwards(core, open_mm(deep, CAVITY_OPEN_MM, grid_mm), coarse_bone)
    core = unblock(core, step, bone.shape)
    deep_gas = gas & erode_mm(fascia, CAVITY_WALL_MM, spacing_mm)
    return (core | dilate_mm(deep_gas, BOWEL_WALL_MM, spacing_mm)) & fascia & ~bone


def _convex_hull(bone: Mask) -> Mask:
    """Convex hull of a mask in each slice; shape (X, Y, Z)."""
    hull = np.zeros_like(bone)
    for z in np.flatnonzero(bone.any(axis=(0, 1))):
        hull[:, :, z] = convex_hull_image(bone[:, :, z])
    return hull


def _count_directions_with_bone(bone: Mask) -> NDArray[np.uint8]:
    """For each voxel, how many of sixteen in-plane directions meet bone; shape (X, Y, Z)."""
    count = np.zeros(bone.shape, np.uint8)
    for flip_x in (1, -1):
        for flip_y in (1, -1):
            view, total = bone[::flip_x, ::flip_y], count[::flip_x, ::flip_y]
            total += _bone_behind(view, 1)
            total += _bone_behind(view, 2)
            total += _bone_behind(view.swapaxes(0, 1), 2).swapaxes(0, 1)
    for axis in (0, 1):
        for flip in (slice(None), slice(None, None, -1)):
            index = (flip, slice(None)) if axis == 0 else (slice(None), flip)
            count[index] += np.logical_or.accumulate(bone[index], axis=axis)
    return count


def _bone_behind(bone: Mask, across: int) -> Mask:
    """Whether the ray (-1, -across) from each voxel meets bone; shape (X, Y, Z)."""
    behind = np.zeros_like(bone)
    between = ndimage.maximum_filter1d(bone.view(np.uint8), across, axis=1).view(bool)
    for x in range(1, bone.shape[0]):
        behind[x, across:] = (behind[x - 1] | between[x - 1])[:-across]
    return behind


def _continue_upwards(core: Mask, deep: Mask, bone: Mask) -> Mask:
    """The core, carried from each slice to the one above through deep voxels in front of the spine; shape (X, Y, Z)."""
    cavity = core.copy()
    for z in range(1, core.shape[2]):
        below = cavity[:, :, z - 1]
        if not below.any() or not bone[:, :, z].any():
            continue
        in_front = np.zeros_like(below)
        in_front[:, int(np.argwhere(bone[:, :, z])[:, 1].mean()) :] = True
        reach = ndimage.binary_dilation(below, iterations=3)
        cavity[:, :, z] |= deep[:, :, z] & in_front & reach
    return cavity
