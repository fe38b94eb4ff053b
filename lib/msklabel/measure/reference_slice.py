"""Which axial slice is measured: the one of the thickest femoral neck, or one at a percentage of the femur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msklabel.errors import UserError

Mask = NDArray[np.bool_]


class NoSlice(UserError):
    """A scan in which the slice that was asked for is not to be found; another scan may have it."""


_HEAD_MM = (55.0, 105.0)  # how far the femoral head lies from the femur's lateral edge, in plane
_TROCHANTER_MM = 35.0  # and the greater trochanter's deepest point
_LOBE_MM = 8.0  # half width of the least head or trochanter
_STEPS = 24  # of the search for the narrowest place


@dataclass(frozen=True)
class Neck:
    """What the slices say about one side's femoral neck.

    Attributes:
        index: Slice with the thickest neck, counted from inferior.
        thickness_mm: Narrowest width between trochanter and head, in each slice; 0 where they are not joined.
    """

    index: int
    thickness_mm: NDArray[np.float64]


def thickest_neck(bone: Mask, spacing_mm: Sequence[float]) -> Neck:
    """Find the axial slice with the thickest femoral neck of one side.

    In a slice through the neck, head and greater trochanter are one piece of bone; the neck's thickness there is the
    width of the narrowest place on the widest way from one to the other. Where several slices are equally thick it is
    the middle one. (Imani et al. 2025, 2.3, pick this slice by eye, on the left.)

    Args:
        bone: Filled bone of one side, femur and pelvis, shape (X, Y, Z); axis 0 runs from medial to lateral, axis 2 up.
        spacing_mm: Voxel size along each axis.

    Raises:
        NoSlice: If head and trochanter are joined in no slice.
    """
    thickness = np.array([_neck_mm(bone[..., z], spacing_mm[:2]) for z in range(bone.shape[2])])
    if not thickness.any():
        raise NoSlice(
            "the femoral neck is in no slice of this side: no piece of bone joins a femoral head with a trochanter"
        )
    best = np.flatnonzero(thickness >= thickness.max() - min(spacing_mm[:2]) / 2)
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    longest = max(runs, key=lambda run: (len(run), thickness[run].mean()))
    return Neck(int(longest[len(longest) // 2]), thickness)


def slice_at_percent(femur_voxels: NDArray[np.int64], percent: float, at_edge: NDArray[np.int64] | None = None) -> int:
    """The slice at a percentage of the femur's length.

    Args:
        femur_voxels: Voxels of one femur in each slice, from inferior.
        percent: 0 is its upper end (the head), 100 its lower one (the knee).
        at_edge: As in :func:`ends_of_femur`.

    Raises:
        UserError: If the percentage is impossible.
        NoSlice: If there is no femur, or an end of it lies outside the scan.
    """
    if not 0 <= percent <= 100:
        raise UserError(f"a percentage of the femur is 0 to 100, got {percent:g}")
    first, last = ends_of_femur(femur_voxels, at_edge)
    return round(last - (last - first) * percent / 100)


def ends_of_femur(femur_voxels: NDArray[np.int64], at_edge: NDArray[np.int64] | None = None) -> tuple[int, int]:
    """The lowest and the highest slice of one femur.

    Args:
        femur_voxels: Voxels in each slice, from inferior.
        at_edge: Those of them on the edge of the field of view, in each slice; none by default. A femur that leaves the
            scan sideways has some in the last slice in which it is seen.

    Raises:
        NoSlice: If there is no femur, or an end of it lies outside the scan.
    """
    inside = np.flatnonzero(femur_voxels)
    if not len(inside):
        raise NoSlice("there is no femur on this side, so that no percentage of it can be told")
    first, last = int(inside[0]), int(inside[-1])
    if first == 0 or last == len(femur_voxels) - 1:
        raise NoSlice("the femur is cut off by the end of the scan, so that no percentage of it can be told")
    if at_edge is not None and at_edge[[first, last]].any():
        raise NoSlice("the femur is cut off by the edge of the field of view, so that no percentage of it can be told")
    return first, last


def _neck_mm(bone: Mask, spacing_mm: Sequence[float]) -> float:
    """Width of the narrowest place between trochanter and head in a slice (X, Y); 0 without both."""
    pieces, count = cc3d.connected_components(ndimage.binary_fill_holes(bone), connectivity=4, return_N=True)
    if not count:
        return 0.0
    reach = [np.flatnonzero((pieces == i).any(axis=1))[-1] for i in range(1, count + 1)]
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:] * spacing_mm[0] * spacing_mm[1]
    large = [i for i in range(count) if sizes[i] > (2 * _LOBE_MM) ** 2]
    if not large:
        return 0.0
    lateral = max(large, key=lambda i: reach[i])
    piece = np.pad(pieces == lateral + 1, 1)
    depth = ndimage.distance_transform_edt(piece, sampling=spacing_mm)
    from_lateral = (reach[lateral] + 1 - np.arange(piece.shape[0])) * spacing_mm[0]
    outer = np.where((from_lateral >= 0) & (from_lateral <= _TROCHANTER_MM), 1, 0)[:, None] * depth
    inner = np.where((from_lateral >= _HEAD_MM[0]) & (from_lateral <= _HEAD_MM[1]), 1, 0)[:, None] * depth
    if min(outer.max(), inner.max()) < _LOBE_MM:
        return 0.0
    return 2 * _widest_way(depth, int(outer.argmax()), int(inner.argmax()))


def _widest_way(depth: NDArray[np.float64], start: int, end: int) -> float:
    """Largest depth at which two places, as flat indices, are still joined."""
    low, high = 0.0, float(min(depth.flat[start], depth.flat[end]))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        pieces = ndimage.label(depth >= middle)[0]
        if pieces.flat[start] == pieces.flat[end] != 0:
            low = middle
        else:
            high = middle
    return low
